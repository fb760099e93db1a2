"""The study of linearity: do features of parts of an image add up to those of all together?"""

import dataclasses
from typing import Any, ClassVar

import jax
import numpy as np
import pyarrow as pa

from lmjax.metrics import cosine_similarity
from lmjax.removals import registry as by_name
from lmjax.studies.figures import dots, split
from lmjax.studies.images import Block
from lmjax.studies.statistics import bootstrap, differences, estimates, groups
from lmjax.studies.study import Study, check_removals

_MEASURES = {
    "cosine": "cosine",
    "distance": "relative distance to the sum",
    "mean_distance": "relative distance to the mean",
    "effect_cosine": "cosine of effects",
    "effect_distance": "relative distance of effects",
    "norm": "mean norm, patch alone",
    "norm_together": "norm, patches together",
}
_NORMS = ("norm", "norm_together")  # of other units than the rest: in tables only


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureLinearity(Study):
    """A few patches of an image are shown alone and together, all else is hidden.

    With f_i the features of patch i alone, as they go into the network's last layer, f those of the
    n patches together and f_0 those of nothing, a row for each image, network, removal and patch
    size has

    - `cosine` of sum f_i and f,
    - `distance`, |sum f_i - f| / |f|, and `mean_distance`, |sum f_i / n - f| / |f|,
    - `effect_cosine` and `effect_distance`, the same as the first two of f_i - f_0 and f - f_0,
    - `norm`, the mean of |f_i|, and `norm_together`, |f|.

    Features that are a mean over what is visible cannot add up; their mean can. And what a baseline
    makes of nearly nothing is nearly f_0, so that features of any patches are alike: only the
    effects tell whether patches add up then.

    Attributes:
      removals: names as in `lmjax explain` (`lmjax.removals.names()`), layer, no_padding and
        partial also with a depth, as in layer@2; comparisons are with the first.
      sizes: sides of the square patches, in pixels. Patches are cells of a grid from the upper left
        corner, all different, all whole; every such choice is equally likely.
      patches: n, 2 or more.

    References:
      Balasubramanian & Feizi 2022 (arXiv 2211.14646): the notebook on linearity in their code has
      cosine, distance and norm for n = 4 and sizes 16 and 32, but shows all patches of the grid,
      since n is overwritten. The mean and the effects are ours.
    """

    name: ClassVar[str] = "linearity"
    title: ClassVar[str] = "Linearity of features"
    removals: tuple[str, ...] = ("layer", "no_padding", "partial", "black", "grey", "blur")
    sizes: tuple[int, ...] = (16, 32)
    patches: int = 4

    def __post_init__(self):
        check_removals(self.removals)
        if not self.sizes or sorted({*self.sizes}) != list(self.sizes) or self.sizes[0] < 1:
            raise ValueError(f"sizes must rise from 1 pixel or more, got {self.sizes!r}")
        if self.patches < 2:
            raise ValueError(f"patches must be 2 or more, got {self.patches!r}")

    def rows(self, block: Block) -> list[dict[str, Any]]:
        rows = []
        for network in block.networks:
            shape = block.images(network).shape[1:3]
            parts = [random_patches(shape, size, self.patches, block.keys) for size in self.sizes]
            masks = np.concatenate(
                [_variants(each) for each in parts] + [_nothing(block, shape)], 1
            )
            image_of = np.repeat(np.arange(len(masks)), masks.shape[1])
            for removal in self.removals:
                features = block.features(network, removal, masks.reshape(-1, *shape), image_of)
                features = features.reshape(*masks.shape[:2], -1).astype(np.float64)
                for sample, (*found, nothing) in zip(block.samples, features):
                    for size, (*alone, together) in zip(
                        self.sizes, np.split(np.array(found), len(self.sizes))
                    ):
                        about = {"image": sample.index, "id": sample.id, "network": network}
                        about |= {"removal": removal, "size": size}
                        rows.append(about | linearity(np.array(alone), together, nothing))
        return rows

    def tables(self, rows: pa.Table) -> dict[str, list[dict[str, Any]]]:
        means, found = [], []
        for group in groups(rows, ("network", "size", "removal")):
            images = len(group.columns["image"])
            means_of = bootstrap(images).known_means
            statistics = {name: means_of(group.columns[name]) for name in _MEASURES}
            means.append({**group.key, "images": images, **estimates(statistics)})
            found.append((group.key, statistics))
        tables = {"means": means, "differences": differences(found)}
        return {name: table for name, table in tables.items() if table}

    def figures(self, tables: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
        from lmjax import plots

        shown = {}
        for network, rows in split(tables["means"], "network").items():
            panels = [_panel(rows, name) for name in _MEASURES if name not in _NORMS]
            title = f"{network}, {self.patches} patches, {rows[0]['images']} images"
            shown[network] = plots.dots(panels, title=title)
        return shown


def random_patches(shape: tuple[int, int], size: int, count: int, keys: jax.Array) -> np.ndarray:
    """bool `[M, count, H, W]`: for each of M keys so many different cells of a grid, one a mask.

    Raises:
      ValueError: an image of (H, W) has fewer whole cells of this side.
    """
    high, wide = (length // size for length in shape)
    if high * wide < count:
        raise ValueError(
            f"images of {shape[0]} x {shape[1]} have {high * wide} patches of {size} x {size} "
            f"pixels, and {count} are asked for; give smaller sizes or fewer patches"
        )

    def draw(key):
        return jax.random.bits(jax.random.fold_in(key, size), (high * wide,))

    cells = np.argsort(np.asarray(jax.vmap(draw)(keys)), axis=1)[:, :count]
    cell_of = np.full(shape, -1)
    grid = np.arange(high * wide).reshape(high, wide)
    cell_of[: high * size, : wide * size] = grid.repeat(size, axis=0).repeat(size, axis=1)
    return cell_of == cells[..., None, None]


def linearity(alone: np.ndarray, together: np.ndarray, nothing: np.ndarray) -> dict[str, float]:
    """The measures of `FeatureLinearity` for features `[n, D]`, `[D]` and `[D]`."""
    total, effects = alone.sum(axis=0), (alone - nothing).sum(axis=0)
    return {
        "cosine": cosine_similarity(total, together),
        "distance": _distance(total, together),
        "mean_distance": _distance(total / len(alone), together),
        "effect_cosine": cosine_similarity(effects, together - nothing),
        "effect_distance": _distance(effects, together - nothing),
        "norm": float(np.linalg.norm(alone, axis=1).mean()),
        "norm_together": float(np.linalg.norm(together)),
    }


def _distance(found: np.ndarray, reference: np.ndarray) -> float:
    """Relative; NaN where the reference is 0."""
    norm = np.linalg.norm(reference)
    return float(np.linalg.norm(found - reference) / norm) if norm > 0 else float("nan")


def _variants(patches: np.ndarray) -> np.ndarray:
    """`[M, n + 1, H, W]`: each patch, and all of them."""
    return np.concatenate([patches, patches.any(axis=1, keepdims=True)], axis=1)


def _nothing(block: Block, shape: tuple[int, int]) -> np.ndarray:
    return np.zeros((len(block.samples), 1, *shape), bool)


def _panel(rows: list[dict], measure: str):
    from lmjax import plots

    removals = [by_name.title(removal) for removal in split(rows, "removal")]
    by_size = split(rows, "size").items()
    panel = [dots(f"{size} x {size} pixels", chosen, measure) for size, chosen in by_size]
    return plots.DotPanel("", _MEASURES[measure], removals, panel)
