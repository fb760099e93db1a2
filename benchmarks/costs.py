"""How cost grows: with what is visible, image size, variants, segments and images.

    python -m benchmarks.costs                 # all tables and the figure, about 20 minutes
    python -m benchmarks.costs sides segments  # some of them

Variants are layer-masked (half of the study's are grey), and programs are compiled before. The
engine is "auto", except for shares. A slope is that of the logarithms between a row and the one
before: 1 where cost is proportional, 0 where it does not grow.
"""

import functools
import itertools
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import tyro
from tyro.conf import Positional

import lmjax
from benchmarks.harness import measure, show
from benchmarks.subjects import patches, photograph, random_classifier
from lmjax import data, studies
from lmjax._utils.checks import check_choices

FAMILIES = (
    *("resnet50", "densenet121", "vgg11", "regnet_y_400mf"),
    *("mobilenet_v2", "convnext_tiny"),
)
_DIGITS = "resnet18_digits"


class Measured(NamedTuple):
    """One row: what a number of something costs.

    Attributes:
      of: what is measured, such as a network.
      number: the quantity on which cost depends.
      seconds: of processor time, median of the rounds.
      wall: seconds on the clock, of the same round.
      per: the number of variants or of images that the seconds are of.
    """

    of: str
    number: float
    seconds: float
    wall: float
    per: int


class Sizes(NamedTuple):
    """What is measured.

    Attributes:
      families: networks of `shares`, with random weights.
      shares: visible, of 16-pixel patches.
      sides: of images, in pixels.
      variants, segments, images: numbers of them.
      model: of `sides`.
      at_once: variants of a call of `shares` and `sides`.
      samples: variants of LIME for `segments`.
      rounds: of each measurement, after one that compiles; one of 10,000 variants and more, and of
        the study.
    """

    families: tuple[str, ...] = FAMILIES
    shares: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75, 1.0)
    sides: tuple[int, ...] = (96, 128, 160, 224, 320, 448)
    variants: tuple[int, ...] = (10, 100, 1_000, 10_000, 100_000)
    segments: tuple[int, ...] = (10, 50, 200, 1_000, 5_000)
    images: tuple[int, ...] = (1, 10, 100, 1_000)
    model: str = "resnet50"
    at_once: int = 32
    samples: int = 1_000
    rounds: int = 3


def by_share(sizes: Sizes) -> Iterator[Measured]:
    """Measures networks by the share of an image that is visible, 224 x 224 pixels, both ways."""
    image = photograph(224)
    for name, engine in itertools.product(sizes.families, ("dense", "visible")):
        predictor = lmjax.Predictor(random_classifier(name), "layer")
        for share in sizes.shares:
            masks = patches(image, sizes.at_once, share)
            run = functools.partial(lmjax.evaluate, predictor, image, masks, engine=engine)
            yield _median(f"{name}, {engine}", share, run, sizes.at_once, sizes.rounds)


def by_side(sizes: Sizes) -> Iterator[Measured]:
    """Measures a network by the side of an image, half of its patches visible."""
    predictor = lmjax.Predictor(random_classifier(sizes.model), "layer")
    for side in sizes.sides:
        image = photograph(side)
        masks = patches(image, sizes.at_once, 0.5)
        run = functools.partial(lmjax.evaluate, predictor, image, masks)
        yield _median(sizes.model, side, run, sizes.at_once, sizes.rounds)


def by_variants(sizes: Sizes) -> Iterator[Measured]:
    """Measures the bundled network by the number of variants of one image."""
    predictor, image = _digits()
    for count in sizes.variants:
        masks = patches(image, count, 0.5)
        run = functools.partial(lmjax.evaluate, predictor, image, masks)
        yield _median(_DIGITS, count, run, count, sizes.rounds if count < 10_000 else 1)


def by_segments(sizes: Sizes) -> Iterator[Measured]:
    """Measures LIME with the bundled network by the number of segments, at equal variants."""
    predictor, image = _digits()
    height, width = image.shape[:2]
    for count in sizes.segments:
        segments = (np.arange(height * width) * count // (height * width)).reshape(height, width)
        run = functools.partial(
            lmjax.attribution.lime,
            predictor,
            image,
            segments,
            key=jax.random.key(0),
            num_samples=sizes.samples,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that samples are few for so many segments
            yield _median(f"LIME, {_DIGITS}", count, run, sizes.samples, sizes.rounds)


def by_images(sizes: Sizes) -> Iterator[Measured]:
    """Measures a removal study of digit scenes by the number of images, in a fresh folder each."""
    study = studies.SegmentRemoval(removals=("layer", "grey"), orders=("random",))
    for count in sizes.images:

        def run(count: int = count) -> None:
            with tempfile.TemporaryDirectory() as folder:
                source = data.DigitScenes("test", length=count)
                studies.run(study, source, output=Path(folder) / "run", progress=False)

        yield _median("removal study", count, run, count, 1)


TABLES: dict[str, tuple[Callable[[Sizes], Iterator[Measured]], str, str]] = {
    "shares": (by_share, "visible", "a variant"),
    "sides": (by_side, "side, pixels", "a variant"),
    "variants": (by_variants, "variants", "a variant"),
    "segments": (by_segments, "segments", "a variant"),
    "images": (by_images, "images", "an image"),
}
"""By name: what measures, what its number is, and what a millisecond is of."""


def main(
    tables: Positional[tuple[str, ...]] = tuple(TABLES),
    *,
    rounds: int = Sizes().rounds,
    figure: Path | None = None,
) -> None:
    """Prints tables of how cost grows.

    Args:
      tables: shares, sides, variants, segments, images.
      rounds: of each measurement; one of 10,000 variants and more, and of the study.
      figure: where to draw them.
    """
    check_choices("tables", tables, TABLES)
    found = {name: _print(name, Sizes(rounds=rounds)) for name in tables}
    if figure is not None:
        _draw(found, figure)


def _digits() -> tuple[lmjax.Predictor, np.ndarray]:
    return lmjax.Predictor(random_classifier(_DIGITS), "layer"), photograph(128)


def _median(of: str, number: float, run: Callable, per: int, rounds: int) -> Measured:
    """Measures a function after a run that compiles."""
    run()
    took = sorted((measure(run) for _ in range(rounds)), key=lambda usage: usage.cpu)
    usage = took[len(took) // 2]
    return Measured(of, number, usage.cpu, usage.wall, per)


def _print(name: str, sizes: Sizes) -> list[Measured]:
    measured: list[Measured] = []
    function, *columns = TABLES[name]

    def rows() -> Iterator[Mapping[str, Any]]:
        for each in function(sizes):
            before = [m for m in measured if m.of == each.of]
            measured.append(each)
            yield _row(each, before[-1] if before else None, *columns, area=name == "sides")

    show(rows(), table=name)
    return measured


def _row(
    each: Measured, before: Measured | None, number: str, unit: str, *, area: bool
) -> dict[str, Any]:
    """Returns the cells of a row; the slope of sides is by area."""
    slope = None
    if before is not None:
        growth = math.log(each.number / before.number) * (2 if area else 1)
        slope = math.log(each.seconds / before.seconds) / growth
    return {
        "of": each.of,
        number: each.number,
        f"CPU ms, {unit}": 1e3 * each.seconds / each.per,
        f"ms, {unit}": 1e3 * each.wall / each.per,
        "CPU s, in all": each.seconds,
        "slope": slope,
    }


def _draw(tables: Mapping[str, Sequence[Measured]], path: Path) -> None:
    """Draws milliseconds a variant or an image, a panel for each table."""
    import matplotlib.pyplot as plt

    columns = math.ceil(len(tables) / 2)
    shape = {"figsize": (4.6 * columns, 7.2), "squeeze": False, "layout": "constrained"}
    figure, axes = plt.subplots(2, columns, **shape)
    for axis in axes.flat[len(tables) :]:
        axis.remove()
    for axis, (name, measured) in zip(axes.flat, tables.items()):
        _, number, unit = TABLES[name]
        lines = list(dict.fromkeys(each.of for each in measured))
        networks = list(dict.fromkeys(of.partition(",")[0] for of in lines))
        for of in lines:
            own = [each for each in measured if each.of == of]
            cost = [1e3 * each.seconds / each.per for each in own]
            colour = f"C{networks.index(of.partition(',')[0])}"
            style = "--" if of.endswith("dense") else "-"
            label = None if style == "--" else of
            axis.plot([m.number for m in own], cost, style, color=colour, marker=".", label=label)
        axis.set_xlabel(number)
        axis.set_ylabel(f"CPU milliseconds, {unit}")
        highest = max(1e3 * each.seconds / each.per for each in measured)
        axis.set_ylim(0, (1.5 if len(lines) > 1 else 1.1) * highest)
        if name not in ("shares", "sides"):
            axis.set_xscale("log")
        dashed = "dashed: on full-size activations" if len(lines) > 1 else None
        axis.legend(fontsize=7, title=dashed, title_fontsize=7, loc="best", framealpha=0.6)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    tyro.cli(main)
