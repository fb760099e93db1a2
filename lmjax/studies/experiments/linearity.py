"""The study of linearity: do features of parts of an image add up to those of the whole?"""

import dataclasses
from typing import Any, ClassVar

import jax
import numpy as np
import pyarrow as pa

from lmjax._utils.checks import check_whole, set_plain_numbers
from lmjax._utils.text import counted
from lmjax.metrics import cosine_similarity
from lmjax.studies.about import About
from lmjax.studies.figures import dot_panel, dots, group_rows, note_of_shares
from lmjax.studies.images import ImageBatch
from lmjax.studies.settings import check_removals, check_whole_numbers
from lmjax.studies.statistics import (
    groups,
    mean_shares,
    paired_differences,
    summaries,
)
from lmjax.studies.study import Study

_MEASURES = {
    "cosine": "cosine",
    "distance": "relative distance to the sum",
    "mean_distance": "relative distance to the mean",
    "effect_cosine": "cosine of effects",
    "effect_distance": "relative distance of effects",
    "norm": "mean norm, patch alone",
    "norm_together": "norm, patches together",
}
_NORMS = ("norm", "norm_together")  # in other units than the rest: in tables only


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureLinearity(Study):
    """Features of a few patches of an image, shown alone and together while all else is hidden.

    With f_i the features of patch i alone, as they go into the network's last layer, f those of the
    n patches together and f_0 those of nothing, a row for each image, network, removal and patch
    size has

    - `cosine` of sum f_i and f,
    - `distance`, |sum f_i - f| / |f|, and `mean_distance`, |sum f_i / n - f| / |f|,
    - `effect_cosine` and `effect_distance`, the same as the first two of f_i - f_0 and f - f_0,
    - `norm`, the mean of |f_i|, and `norm_together`, |f|,
    - `visible`, the share of pixels in the patches together, and `shown`, what the removal shows of
      them: less where token dropping hides tokens that patches cut.

    Features that are a mean over visible positions cannot add up; their mean can. And where a
    baseline covers nearly all of the image, features of any patches are close to f_0 and so alike:
    then only the effects tell whether patches add up.

    Attributes:
      removals: names of removals (`lmjax.removals.names()`), those through the layers also with a
        depth, as in layer@2, or with a file of `lmjax data`, as in calibrated@FILE; comparisons are
        with the first.
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
    about: ClassVar[About] = About(
        question="Do the features of single patches add up to those of the patches together?",
        method=(
            "A few patches of an image are shown alone and together while all else is hidden; "
            "compared is what goes into the network's last layer. Effects are features minus "
            "those of nothing."
        ),
        reading=(
            "High cosines and low distances are good. Where a baseline covers nearly all of the "
            "image, features are alike for all patches, and only the effects tell."
        ),
        higher=("cosine", "effect_cosine"),
        lower=("distance", "mean_distance", "effect_distance"),
        columns={
            "size": "side of a patch (pixels)",
            "distance": "distance of the sum",
            "mean_distance": "distance of the mean",
            "norm": "norm of features alone",
            "norm_together": "norm of features together",
            "effect_cosine": "cosine of effects",
            "effect_distance": "distance of effects",
        },
    )
    removals: tuple[str, ...] = ("layer", "no_padding", "partial", "black", "grey", "blur")
    sizes: tuple[int, ...] = (16, 32)
    patches: int = 4

    def __post_init__(self):
        set_plain_numbers(self)
        check_removals(self.removals)
        check_whole_numbers("sizes", self.sizes, rising=True)
        check_whole("patches", self.patches, least=2)

    def check(self, networks) -> None:
        super().check(networks)
        for network in networks.values():
            crop: int | None = network.preprocessing.crop
            if crop is not None:
                for size in self.sizes:
                    _check_cells((crop, crop), size, self.patches)

    def rows(self, batch: ImageBatch) -> list[dict[str, Any]]:
        rows = []
        for network in batch.networks:
            shape = batch.images(network).shape[1:3]
            parts = [random_patches(shape, size, self.patches, batch.keys) for size in self.sizes]
            hidden = np.zeros((len(batch.samples), 1, *shape), bool)
            masks = np.concatenate([*map(_variants, parts), hidden], axis=1)
            image_of = np.repeat(np.arange(len(masks)), masks.shape[1])
            for removal in self.removals:
                variants = masks.reshape(-1, *shape)
                features = batch.features(network, removal, variants, image_of)
                features = features.reshape(*masks.shape[:2], -1).astype(np.float64)
                shown = batch.shares_shown(network, removal, variants, image_of)
                shown = shown.reshape(masks.shape[:2])[:, self.patches :: self.patches + 1]
                for sample, (*found, nothing), shares in zip(batch.samples, features, shown):
                    for size, (*alone, together), share in zip(
                        self.sizes, np.split(np.array(found), len(self.sizes)), shares
                    ):
                        about = {"image": sample.index, "id": sample.id, "network": network}
                        about |= {"removal": removal, "size": size}
                        visible = self.patches * size**2 / (shape[0] * shape[1])
                        about |= {"visible": visible, "shown": float(share)}
                        rows.append(about | linearity(np.array(alone), together, nothing))
        return rows

    def tables(self, rows: pa.Table) -> dict[str, list[dict[str, Any]]]:
        means, found = [], []
        for group in groups(rows, ("network", "size", "removal")):
            images = len(group.columns["image"])
            values = {name: group.columns[name] for name in _MEASURES}
            about = {name: share for name, (share,) in mean_shares(group).items()}
            means.append(({**group.key, **about, "images": images}, values))
            found.append((group.key, values))
        differences = paired_differences(found, of_images=True)
        tables = {"means": summaries(means), "differences": differences}
        return {name: table for name, table in tables.items() if table}

    def figures(self, tables: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
        from lmjax import plots

        shown = {}
        for network, rows in group_rows(tables["means"], "network").items():
            panels = [_panel(rows, name) for name in _MEASURES if name not in _NORMS]
            title = f"{network}, {self.patches} patches, {counted(rows[0]['images'], 'image')}"
            title += note_of_shares(rows)
            shown[network] = plots.dots(panels, title=title)
        return shown


def random_patches(shape: tuple[int, int], size: int, count: int, keys: jax.Array) -> np.ndarray:
    """Draws `count` different cells of a grid for each of M keys.

    Returns:
      bool `[M, count, H, W]`, one cell in each mask.

    Raises:
      ValueError: an image of (H, W) has fewer whole cells of this side.
    """
    high, wide = _check_cells(shape, size, count)

    def draw(key):
        return jax.random.bits(jax.random.fold_in(key, size), (high * wide,), np.uint32)

    cells = np.argsort(np.asarray(jax.vmap(draw)(keys)), axis=1)[:, :count]
    cell_of = np.full(shape, -1)
    grid = np.arange(high * wide).reshape(high, wide)
    cell_of[: high * size, : wide * size] = grid.repeat(size, axis=0).repeat(size, axis=1)
    return cell_of == cells[..., None, None]


def _check_cells(shape: tuple[int, int], size: int, count: int) -> tuple[int, int]:
    """Returns the rows and columns of whole cells; raises ValueError where they are too few."""
    high, wide = shape[0] // size, shape[1] // size
    if high * wide < count:
        raise ValueError(
            f"images of {shape[0]} x {shape[1]} have {high * wide} patches of {size} x {size} "
            f"pixels, fewer than patches={count}; give smaller sizes or fewer patches"
        )
    return high, wide


def linearity(alone: np.ndarray, together: np.ndarray, nothing: np.ndarray) -> dict[str, float]:
    """Returns the measures of `FeatureLinearity` for features `[n, D]`, `[D]` and `[D]`."""
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
    """Returns the distance relative to the reference's norm; NaN where that is 0."""
    norm = np.linalg.norm(reference)
    return float(np.linalg.norm(found - reference) / norm) if norm > 0 else float("nan")


def _variants(patches: np.ndarray) -> np.ndarray:
    """Returns `[M, n + 1, H, W]`: each patch, and all of them."""
    return np.concatenate([patches, patches.any(axis=1, keepdims=True)], axis=1)


def _panel(rows: list[dict], measure: str):
    """Makes the panel of a measure, with dots for each size and removal."""
    by_size = group_rows(rows, "size").items()
    shown = [dots(f"{size} x {size} pixels", chosen, measure) for size, chosen in by_size]
    return dot_panel("", _MEASURES[measure], rows, shown)
