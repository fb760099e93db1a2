"""Coalitions that one method draws and others can use: those in which all are equally likely.

LIME with `keep_probability=0.5` and Banzhaf values draw every segment with probability 1/2, so that
each can go on from the other's samples. Coalitions of KernelSHAP have another distribution: their
sizes follow the Shapley kernel, which hardly ever draws what LIME draws, and the other way round.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from lmjax.attribution.sampling import samples_of
from lmjax.masks.coalitions import random_keep
from lmjax.masks.samplers import bernoulli_keep


class Draws(NamedTuple):
    """Numbered coalitions of a method whose segments are visible independently.

    Attributes:
      settings: of the method that draws them, as in `Sampling`.
      keep_probability: of a segment.
      whole: 1 where the method counts the whole image as its first sample, otherwise 0.
      draw: (S, first, last, key) -> coalitions number `first` to `last - 1`, bool `[N, S]`.
    """

    settings: tuple
    keep_probability: float
    whole: int
    draw: Callable[[int, int, int, jax.Array], np.ndarray]


def lime_draws(keep_probability: float) -> Draws:
    """Returns what LIME draws beside the whole image."""

    def draw(num_segments: int, first: int, last: int, key: jax.Array) -> np.ndarray:
        options = {"key": key, "keep_probability": keep_probability, "first": first + 1}
        return np.asarray(random_keep(num_segments, last - first, **options))

    settings = ("lime", ("keep_probability", keep_probability))
    return Draws(settings, keep_probability, 1, draw)


def banzhaf_draws() -> Draws:
    """Returns what Banzhaf values draw."""

    def draw(num_segments: int, first: int, last: int, key: jax.Array) -> np.ndarray:
        return bernoulli_keep(num_segments, last - first, key=key, first=first)

    return Draws(("banzhaf",), 0.5, 0, draw)


def draws_of(previous: Any) -> Draws | None:
    """Returns the draws of an earlier result; None where its segments are not independent."""
    name, *options = samples_of(previous).settings
    if name == "lime":
        return lime_draws(dict(options)["keep_probability"])
    return banzhaf_draws() if name == "banzhaf" else None


def shared_draws(own: Draws, previous: Any) -> Draws:
    """Returns the draws to go on with: those of an earlier result where they serve as the own do.

    Args:
      own: the method's draws.
      previous: an earlier result, or None.
    """
    found = None if previous is None else draws_of(previous)
    if found is None or not found.keep_probability == own.keep_probability == 0.5:
        return own
    return found
