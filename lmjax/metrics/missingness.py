"""Missingness bias: the effect of hiding parts of images on predicted classes.

All metrics take predicted classes, `logits.argmax(axis=-1)`, with the images along the last axis;
axes before it (amounts hidden, removals, ...) are kept.

References:
  Jain et al. 2022, "Missingness bias in model debugging" (arXiv 2204.08945): accuracy, unchanged
  predictions, entropy of the predicted classes and their WordNet similarity;
  Balasubramanian & Feizi 2022 (arXiv 2211.14646), for layer masking.
"""

import re
from collections.abc import Iterable
from itertools import combinations, permutations
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from lmjax._utils.checks import check_numbers


def accuracy(predictions: ArrayLike, labels: ArrayLike) -> float | np.ndarray:
    """Computes the share of images whose predicted class is the label.

    Example:
      >>> float(lmjax.metrics.accuracy([1, 2, 2, 0], [1, 2, 3, 0]))
      0.75

    Args:
      predictions: ints `[..., N]`, predicted classes.
      labels: ints `[N]`, true classes, or of the same shape.

    Returns:
      A share in [0, 1], or `[...]`.

    Raises:
      ValueError: shapes that do not match, no images, or classes that are not ints from 0.
    """
    predictions, labels = _pairs(predictions, labels, "labels")
    return (predictions == labels).mean(axis=-1)[()]


def unchanged_predictions(predictions: ArrayLike, reference: ArrayLike) -> float | np.ndarray:
    """Computes the share of images whose predicted class is the one of the whole image.

    Example:
      >>> float(lmjax.metrics.unchanged_predictions([1, 2, 2, 0], [1, 2, 2, 2]))
      0.75

    Args:
      predictions: ints `[..., N]`, classes predicted with parts hidden.
      reference: ints `[N]`, classes predicted on the whole images, or of the same shape.

    Returns:
      A share in [0, 1], or `[...]`.

    Raises:
      ValueError: shapes that do not match, no images, or classes that are not ints from 0.
    """
    predictions, reference = _pairs(predictions, reference, "reference")
    return (predictions == reference).mean(axis=-1)[()]


def class_entropy(predictions: ArrayLike) -> float | np.ndarray:
    """Computes the entropy of the histogram of predicted classes, -sum p ln p, in nats.

    It falls where hiding parts makes the network predict a few classes for all images.

    Example:
      >>> round(float(lmjax.metrics.class_entropy([0, 0, 1, 1])), 2)  # ln 2
      0.69

    Args:
      predictions: ints `[..., N]`, predicted classes.

    Returns:
      A number from 0 (all images in one class) to ln min(N, K), or `[...]`.

    Raises:
      ValueError: no images, or classes that are not ints from 0.
    """
    predictions = _classes(predictions, "predictions")
    flat = predictions.reshape(-1, predictions.shape[-1])
    entropies = np.array([_entropy(np.unique(row, return_counts=True)[1]) for row in flat])
    return entropies.reshape(predictions.shape[:-1])[()]


def class_similarity(
    predictions: ArrayLike, labels: ArrayLike, similarity: ArrayLike
) -> float | np.ndarray:
    """Computes the mean similarity of predicted and true class.

    Unlike accuracy, it distinguishes wrong classes that are near the true one from distant ones.

    Example:
      >>> float(lmjax.metrics.class_similarity([0, 1], [0, 0], [[1.0, 0.5], [0.5, 1.0]]))
      0.75

    Args:
      predictions: ints `[..., N]`, predicted classes.
      labels: ints `[N]`, true classes, or of the same shape.
      similarity: `[K, K]`, in row i and column j the similarity of predicted class i to true class
        j; for ImageNet for example `wordnet_similarity`.

    Returns:
      A number, or `[...]`.

    Raises:
      ValueError: shapes that do not match, no images, classes not within 0..K-1, a matrix that is
        not square or holds NaN.
    """
    predictions, labels = _pairs(predictions, labels, "labels")
    similarity = check_numbers("similarity", similarity)
    if similarity.ndim != 2 or similarity.shape[0] != similarity.shape[1]:
        raise ValueError(f"similarity must be [K, K], got shape {similarity.shape}")
    if not np.isfinite(similarity).all():
        raise ValueError("similarity holds NaN or infinity")
    highest = max(predictions.max(), labels.max())
    if highest >= len(similarity):
        raise ValueError(f"similarity has {len(similarity)} classes, but class {highest} occurs")
    return similarity[predictions, labels].mean(axis=-1)[()]


def wordnet_similarity(wnids: Iterable[str]) -> np.ndarray:
    """Computes the Wu-Palmer similarity of WordNet's synsets, a matrix for `class_similarity`.

    It is 2 depth(s) / (2 depth(s) + dist(a, s) + dist(b, s)), with s the deepest synset above both
    a and b, computed by NLTK: the depth of s is that of its longest path from the root, distances
    are the shortest, and the deepest synset is the one with the longest shortest path. The
    similarity of a synset to itself is 1, where NLTK gives less for some with two paths to the root
    (dogs: its issue 1030); for a synset and one above it, where NLTK's result can depend on the
    order, the higher value counts. A thousand classes take minutes: `lmjax data wordnet` stores
    them in a file.

    Args:
      wnids: K strings, part of speech and offset in WordNet 3.0, such as "n01440764".

    Returns:
      float64 `[K, K]`, symmetric, values in (0, 1], 1 on the diagonal.

    Raises:
      ImportError: NLTK or its WordNet is not installed; the message says how to get them.
      ValueError: strings of another form, ids that WordNet 3.0 does not have, or that have nothing
        in common (a noun and a verb).

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


def _synset(wordnet: Any, wnid: str) -> Any:
    """Looks up a synset; raises ValueError where WordNet has none."""
    synset = wordnet.synset_from_pos_and_offset(wnid[0], int(wnid[1:]))
    if synset is None:
        raise ValueError(f"wnids must be of WordNet 3.0, which NLTK's corpus is; it has no {wnid}")
    return synset


def _entropy(counts: np.ndarray) -> float:
    """Computes the entropy of a histogram, in nats."""
    shares = counts / counts.sum()
    return (shares * np.log(1 / shares)).sum()


def _pairs(predictions: ArrayLike, others: ArrayLike, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns checked predictions and classes to compare with, both `[..., N]`."""
    predictions, others = _classes(predictions, "predictions"), _classes(others, name)
    if others.shape not in (predictions.shape, predictions.shape[-1:]):
        raise ValueError(
            f"{name} must be {predictions.shape} like predictions or [{predictions.shape[-1]}], "
            f"got shape {others.shape}"
        )
    return predictions, np.broadcast_to(others, predictions.shape)


def _classes(classes: ArrayLike, name: str) -> np.ndarray:
    """Returns checked classes, ints `[..., N]` from 0."""
    classes = np.asarray(classes)
    if classes.ndim == 0 or classes.size == 0 or classes.dtype.kind not in "iu":
        raise ValueError(
            f"{name} must be ints [..., N], such as logits.argmax(axis=-1); got {classes.dtype} of "
            f"shape {classes.shape}"
        )
    if classes.min() < 0:
        raise ValueError(f"{name} must be classes from 0, got {classes.min()}")
    return classes
