"""Similarity of ImageNet's classes: the file that `lmjax study removal --similarity` takes."""

import os
from pathlib import Path

import numpy as np

from lmjax._utils.atomic import atomic_write
from lmjax._utils.outputs import check_output
from lmjax.data.imagenet import synsets


def write_similarity(path: str | os.PathLike) -> None:
    """Writes the Wu-Palmer similarity of ImageNet's classes (`lmjax.metrics.wordnet_similarity`).

    Args:
      path: the .npy file, a matrix in the order of networks' outputs; one that is there is
        replaced, and no other file.

    Raises:
      ImportError: NLTK or its WordNet corpus is missing.
      ValueError: a path of another suffix or file, or a corpus that gives no similarities.
      OSError: the file cannot be written.
    """
    from lmjax.metrics import wordnet_similarity

    # Before minutes of work.
    check_output(
        path,
        suffixes=(".npy",),
        ours=_is_similarity,
        what="a similarity of ImageNet's classes",
        argument="output",
    )
    matrix = check_similarity(wordnet_similarity(synsets.synsets()))
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.save(file, matrix)


def _is_similarity(path: Path) -> bool:
    """Returns whether a file holds what is written here; raises ValueError where it does not."""
    with open(path, "rb") as file:
        matrix = np.lib.format.read_array(file)  # no archive, and no pickle
    if matrix.dtype != np.float64 or matrix.shape != 2 * (len(synsets.synsets()),):
        return False
    check_similarity(matrix)
    return True


def check_similarity(matrix: np.ndarray) -> np.ndarray:
    """Returns the matrix `[K, K]`, checked to be 1 on the diagonal, symmetric and within (0, 1].

    Raises:
      ValueError: a matrix that is not; it names the classes.
    """
    (same,) = np.nonzero(np.diag(matrix) != 1)
    if len(same):
        raise ValueError(
            f"class {same[0]} is {matrix[same[0], same[0]]:g} similar to itself, not 1"
        )
    wrong = (matrix != matrix.T) | ~((matrix > 0) & (matrix <= 1))
    if wrong.any():
        i, j = np.argwhere(wrong)[0]
        raise ValueError(
            f"similarity of classes {i} and {j} is {matrix[i, j]:g}, or {matrix[j, i]:g} the other "
            "way round; it must be one number above 0 and at most 1"
        )
    return matrix
