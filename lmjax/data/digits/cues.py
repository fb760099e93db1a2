"""Spurious cues of digit scenes: features beside the digit that predict its class, or another.

A network trained on scenes whose cue is mostly right learns the cue, and errs where the cue does.
A tag is a small square in a random place that the digit leaves free, with a colour or a texture
for each class. In the same way, coloured patches lie beside benign moles only in pictures of skin,
and networks rely on them (Rieger et al. 2020, arXiv 1909.13584). The pixels of a tag are known
exactly, so explanations can be scored against them.
"""

import colorsys
from dataclasses import dataclass

import numpy as np

KINDS = ("photograph", "colour", "texture")
TAG = 16
"""Height and width of a tag in pixels."""

_NUM_CLASSES = 10

# As far apart as ten hues can be; those of a class and of the one after it, three steps.
COLOURS = np.array(
    [np.rint(255 * np.array(colorsys.hsv_to_rgb(3 * i / 10 % 1, 1, 1))) for i in range(10)],
    dtype=np.uint8,
)
"""Colours of the tags, one row for each class: uint8 [10, 3]."""

_DARK, _LIGHT = 32, 224


@dataclass(frozen=True, eq=False)
class Cue:
    """A feature beside the digit that predicts a class.

    Attributes:
        kind: "photograph" (the background is a class's photograph), "colour" or "texture" (a tag of
            a class's colour or texture).
        points_at: the class, 0..9.
        agrees: whether it is the scene's label.
        mask: bool [H, W], True on the cue: the tag, or all pixels but the digit's.
    """

    kind: str
    points_at: int
    agrees: bool
    mask: np.ndarray


def reversed_class(label: int) -> int:
    """Returns the class that reversed cues of a digit predict: the next one, and 0 after 9."""
    return (label + 1) % _NUM_CLASSES


def draw_class(rng: np.random.Generator, towards: int, probability: float) -> int:
    """Draws `towards` with the given probability, else any other class with equal chances."""
    hit = rng.random() < probability
    other = (towards + rng.integers(1, _NUM_CLASSES)) % _NUM_CLASSES
    return towards if hit else int(other)


def place(rng: np.random.Generator, occupied: np.ndarray) -> np.ndarray:
    """Draws the place of a tag uniformly from those that touch no occupied pixel.

    Args:
        rng: draws the place.
        occupied: bool [H, W]; there is room for a tag beside every digit.

    Returns:
        bool [H, W], True on the tag.
    """
    sums = np.pad(occupied.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    inside = sums[TAG:, TAG:] - sums[:-TAG, TAG:] - sums[TAG:, :-TAG] + sums[:-TAG, :-TAG]
    places = np.argwhere(inside == 0)
    top, left = places[rng.integers(len(places))]
    mask = np.zeros_like(occupied)
    mask[top : top + TAG, left : left + TAG] = True
    return mask


def tag(rng: np.random.Generator, kind: str, label: int) -> np.ndarray:
    """Returns a class's tag, uint8 [16, 16, 3]: its colour, or its grey texture, shifted."""
    if kind == "colour":
        return np.broadcast_to(COLOURS[label], (TAG, TAG, 3))
    y, x = np.indices((TAG, TAG)) + rng.integers(0, 8, size=(2, 1, 1))
    # Stripes in four directions or checks, fine and coarse.
    width = 2 if label < 5 else 4
    phases = (y // width, x // width, (y + x) // width, (y - x) // width, y // width + x // width)
    grey = np.where(phases[label % 5] % 2 == 0, _DARK, _LIGHT).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)
