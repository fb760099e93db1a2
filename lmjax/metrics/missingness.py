"""What hiding parts of an image does to predictions: missingness bias over a set of images.

All take predicted classes, `logits.argmax(axis=-1)`, with the images along the last axis; axes
before it (amounts hidden, removals, ...) are kept.

References:
  Jain et al. 2022, "Missingness bias in model debugging" (arXiv 2204.08945): accuracy, unchanged
  predictions, entropy of the predicted classes and their WordNet similarity;
  Balasubramanian & Feizi 2022 (arXiv 2211.14646), for layer masking.
"""

import re
from itertools import combinations, permutations

import numpy as np


def accuracy(predictions, labels) -> float | np.ndarray:
    """Share of images whose predicted class is the label.

    Args:
      predictions: ints `[..., N]`, predicted classes.
      labels: ints `[N]`, true classes, or of the same shape.

    Returns:
      A share in [0, 1], or `[...]`.

    Raises:
      ValueError: shapes that do not match, no images, or classes that are no ints from 0.
    """
    predictions, labels = _pairs(predictions, labels, "labels")
    return (predictions == labels).mean(axis=-1)[()]


def unchanged_predictions(predictions, reference) -> float | np.ndarray:
    """Share of images whose predicted class is the one predicted on the whole image.

    Args:
      predictions: ints `[..., N]`, classes predicted with something hidden.
      reference: ints `[N]`, classes predicted on the whole images, or of the same shape.

    Returns:
      A share in [0, 1], or `[...]`.

    Raises:
      ValueError: shapes that do not match, no images, or classes that are no ints from 0.
    """
    predictions, reference = _pairs(predictions, reference, "reference")
    return (predictions == reference).mean(axis=-1)[()]


def class_entropy(predictions) -> float | np.ndarray:
    """Entropy of the histogram of predicted classes, -sum p ln p, in nats.

    It falls where hiding things sends images to few classes, whatever they show.

    Args:
      predictions: ints `[..., N]`, predicted classes.

    Returns:
      A number from 0 (one class for all) to ln min(N, K), or `[...]`.

    Raises:
      ValueError: no images, or classes that are no ints from 0.
    """
    predictions = _classes(predictions, "predictions")
    flat = predictions.reshape(-1, predictions.shape[-1])
    entropies = np.array([_entropy(np.unique(row, return_counts=True)[1]) for row in flat])
    return entropies.reshape(predictions.shape[:-1])[()]


def class_similarity(predictions, labels, similarity) -> float | np.ndarray:
    """Mean similarity of predicted and true class.

    A wrong class can be near the true one or far off: accuracy does not tell, this does.

    Args:
      predictions: ints `[..., N]`, predicted classes.
      labels: ints `[N]`, true classes, or of the same shape.
      similarity: `[K, K]`, in row i and column j how similar class i, predicted, is to class j,
        true; for ImageNet, say, `wordnet_similarity`.

    Returns:
      A number, or `[...]`.

    Raises:
      ValueError: shapes that do not match, no images, classes not within 0..K-1, a matrix that is
        not square or holds NaN.
    """
    predictions, labels = _pairs(predictions, labels, "labels")
    similarity = np.asarray(similarity, np.float64)
    if similarity.ndim != 2 or similarity.shape[0] != similarity.shape[1]:
        raise ValueError(f"similarity must be [K, K], got shape {similarity.shape}")
    if not np.isfinite(similarity).all():
        raise ValueError("similarity holds NaN or infinity")
    highest = max(predictions.max(), labels.max())
    if highest >= len(similarity):
        raise ValueError(f"similarity has {len(similarity)} classes, but class {highest} occurs")
    return similarity[predictions, labels].mean(axis=-1)[()]


def wordnet_similarity(wnids) -> np.ndarray:
    """Wu-Palmer similarity of WordNet's synsets, a matrix for `class_similarity`.

    2 depth(s) / (depth(a) + depth(b)), with s the deepest synset above both a and b, by NLTK: depth
    of s is that of its longest path from the root, deepest is what has the longest shortest path. A
    synset is as similar to itself as can be, 1, where NLTK finds less for some with two paths to
    the root (dogs: its issue 1030); of a synset and one above it, where NLTK's answer can depend on
    the order, the higher one counts. A thousand classes take minutes: `lmjax data wordnet` keeps
    them in a file.

    Args:
      wnids: K strings, part of speech and offset in WordNet 3.0, such as "n01440764".

    Returns:
      float64 `[K, K]`, symmetric, values in (0, 1], 1 on the diagonal.

    Raises:
      ImportError: NLTK is not installed, or its WordNet is not; the text says how to get them.
      ValueError: strings of another form, that WordNet 3.0 does not have, or with nothing in
        common (a noun and a verb).

    References:
      Wu & Palmer 1994, "Verb semantics and lexical selection".
    """
    wnids = list(wnids)
    bad = [each for each in wnids if not re.fullmatch(r"[nvars]\d{8}", str(each))]
    if bad or not wnids:
        raise ValueError(f"wnids must be strings such as 'n01440764', got {bad[:5]}")
    try:
        from nltk.corpus import wordnet

        synsets = [_synset(wordnet, each) for each in wnids]
    except (ImportError, LookupError) as error:
        raise ImportError(
            'wordnet_similarity needs NLTK with WordNet: pip install "lmjax[wordnet]", and then '
            "python -m nltk.downloader wordnet"
        ) from error
    similarity = np.eye(len(wnids))
    for i, j in combinations(range(len(wnids)), 2):
        found = [one.wup_similarity(other) for one, other in permutations((synsets[i], synsets[j]))]
        if None in found:
            raise ValueError(f"wnids {wnids[i]} and {wnids[j]} have nothing above both in WordNet")
        similarity[i, j] = similarity[j, i] = max(found)
    return similarity


def _synset(wordnet, wnid: str):
    synset = wordnet.synset_from_pos_and_offset(wnid[0], int(wnid[1:]))
    if synset is None:
        raise ValueError(f"wnids must be of WordNet 3.0, which NLTK's corpus is; it has no {wnid}")
    return synset


def _entropy(counts: np.ndarray) -> float:
    shares = counts / counts.sum()
    return (shares * np.log(1 / shares)).sum()


def _pairs(predictions, others, name: str) -> tuple[np.ndarray, np.ndarray]:
    predictions, others = _classes(predictions, "predictions"), _classes(others, name)
    if others.shape not in (predictions.shape, predictions.shape[-1:]):
        raise ValueError(
            f"{name} must be {predictions.shape} like predictions or [{predictions.shape[-1]}], "
            f"got shape {others.shape}"
        )
    return predictions, np.broadcast_to(others, predictions.shape)


def _classes(classes, name: str) -> np.ndarray:
    classes = np.asarray(classes)
    if classes.ndim == 0 or classes.size == 0 or classes.dtype.kind not in "iu":
        raise ValueError(
            f"{name} must be ints [..., N], such as logits.argmax(axis=-1); got {classes.dtype} of "
            f"shape {classes.shape}"
        )
    if classes.min() < 0:
        raise ValueError(f"{name} must be classes from 0, got {classes.min()}")
    return classes
