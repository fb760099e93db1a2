"""The study of concordance: are shrunk images as similar as the images themselves?"""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np
import pyarrow as pa

from lmjax._utils.checks import set_plain_numbers
from lmjax._utils.summary import brief
from lmjax._utils.text import counted
from lmjax.studies.about import About
from lmjax.studies.figures import group_rows, lines_of_removals, note_of_shares
from lmjax.studies.images import ImageBatch
from lmjax.studies.settings import check_removals
from lmjax.studies.statistics import (
    Group,
    bootstrap,
    estimates,
    groups,
    mean_shares,
    paired_differences,
)
from lmjax.studies.study import Study

_WHOLE = "none"
_MEASURES = {
    "change": "mean change of cosines",
    "correlation": "correlation of cosines",
    "similarity": "mean cosine",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Concordance(Study):
    """Similarity of images that are shrunk into a corner while the rest is hidden.

    A row for each image, network, removal and share of the side holds the image's `features`, the
    input of the network's last layer; whole images have share 1 and removal "none". `visible` is
    the share of pixels in the corner, and `shown` what the removal shows of them, which is less
    where token dropping hides patches that the corner's border cuts. Features should
    stay as similar as before. With c_ij the cosine of images i and j at full size and s_ij that of
    both shrunk under the same removal, tables have, over all pairs of different images, `change`,
    the mean of |s_ij - c_ij|; `correlation` of s and c; and `similarity`, the mean of s_ij, which
    says where features of all images have become the same.

    Attributes:
      removals: names of removals (`lmjax.removals.names()`), those through the layers also with a
        depth, as in layer@2, or with a file of `lmjax data`, as in calibrated@FILE; comparisons are
        with the first.
      shares: of each side that shrunk images take, falling, below 1. The defaults are 200, 128, 64
        and 32 pixels of 224.

    References:
      Balasubramanian & Feizi 2022 (arXiv 2211.14646): the notebook on concordance in their code has
      the sizes and the change, over one random pairing of images; under layer masking it shows the
      corner of the image that was not shrunk. Images are shrunk bilinearly, with antialiasing. The
      hidden part has their mean colour, which baselines that are made from the image see.
    """

    name: ClassVar[str] = "concordance"
    title: ClassVar[str] = "Concordance of shrunk images"
    about: ClassVar[About] = About(
        question=(
            "Are images as alike as before when they are shrunk into a corner and the rest is "
            "hidden?"
        ),
        method=(
            "The similarity of two images is the cosine of their features; it is compared between"
            " whole images and shrunk ones, over all pairs of images."
        ),
        reading=(
            "Good are small changes and a high correlation. A high mean similarity means that the"
            " features of all images have become the same."
        ),
        higher=("correlation",),
        lower=("change",),
        columns={
            "share": "side of the shrunk image",
            "change": "change of similarity",
            "correlation": "correlation of similarities",
            "similarity": "mean similarity",
        },
        tables={
            "changes": "Changes",
        },
    )
    removals: tuple[str, ...] = ("layer", "no_padding", "partial", "black", "grey", "blur")
    shares: tuple[float, ...] = (200 / 224, 128 / 224, 64 / 224, 32 / 224)

    def __post_init__(self):
        set_plain_numbers(self)
        check_removals(self.removals)
        steps = np.diff(self.shares, prepend=1.0, append=0.0)
        if len(self.shares) == 0 or not (steps < 0).all():
            raise ValueError(f"shares must fall from below 1 to above 0, got {brief(self.shares)}")

    def rows(self, batch: ImageBatch) -> list[dict[str, Any]]:
        rows = []
        image_of = np.arange(len(batch.samples))
        for network in batch.networks:
            images = batch.images(network)
            everything = np.ones(images.shape[:3], bool)
            whole = batch.features(network, self.removals[0], everything, image_of)
            rows += _rows(batch, network, _WHOLE, 1.0, whole, (1.0, 1.0))
            for share in self.shares:
                shrunk, shape = shrink(images, share)
                masks = np.zeros(images.shape[:3], bool)
                masks[:, : shape[0], : shape[1]] = True
                for removal in self.removals:
                    features = batch.features(network, removal, masks, image_of, images=shrunk)
                    shown = batch.shares_shown(network, removal, masks, image_of)
                    shares = float(masks.mean()), float(shown.mean())
                    rows += _rows(batch, network, removal, share, features, shares)
        return rows

    def tables(self, rows: pa.Table) -> dict[str, list[dict[str, Any]]]:
        changes, whole, found = [], {}, []
        for group in groups(rows, ("network", "share", "removal")):
            network, moments = group.key["network"], _moments(_cosines(group))
            if group.key["removal"] == _WHOLE:
                whole[network] = moments
                continue
            statistics = _statistics(moments, whole[network])
            about = {name: share for name, (share,) in mean_shares(group).items()}
            images = {"images": len(moments.cosines)}
            changes.append({**group.key, **about, **images, **estimates(statistics)})
            found.append((group.key, statistics))
        tables = {"changes": changes, "differences": paired_differences(found)}
        return {name: table for name, table in tables.items() if table}

    def figures(self, tables: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
        from lmjax import plots

        shown = {}
        for network, rows in group_rows(tables["changes"], "network").items():
            shown[network] = plots.charts(
                [[_chart(rows, name) for name in _MEASURES]],
                title=f"{network}, {counted(rows[0]['images'], 'image')}" + note_of_shares(rows),
            )
        return shown


def shrink(images: np.ndarray, share: float) -> tuple[np.ndarray, tuple[int, int]]:
    """Shrinks images `[M, H, W, C]` into their upper left corner.

    Returns:
      The images, whose rest has their mean colour, and the (H, W) of the corner.
    """
    shape = tuple(max(round(share * length), 1) for length in images.shape[1:3])
    size = (len(images), *shape, images.shape[-1])
    shrunk = np.clip(np.asarray(jax.image.resize(images, size, "linear")), 0, 1)
    canvas = np.empty_like(images)
    canvas[:] = shrunk.mean(axis=(1, 2), keepdims=True)
    canvas[:, : shape[0], : shape[1]] = shrunk
    return canvas, shape


def _rows(
    batch: ImageBatch,
    network: str,
    removal: str,
    share: float,
    features: np.ndarray,
    shares: tuple[float, float],
) -> list[dict[str, Any]]:
    """Returns a row for each image with its features, and the shares `visible` and `shown`."""
    about = {"network": network, "removal": removal, "share": share}
    about |= dict(zip(("visible", "shown"), shares, strict=True))
    return [
        {"image": sample.index, "id": sample.id, **about, "features": each}
        for sample, each in zip(batch.samples, features)
    ]


def _cosines(group: Group) -> np.ndarray:
    """Returns cosines `[N, N]` of all pairs of images in rising order."""
    features = np.stack([*group.columns["features"][np.argsort(group.columns["image"])]])
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    unit = features.astype(np.float64) / np.where(norms > 0, norms, 1)
    return unit @ unit.T


class _Moments(NamedTuple):
    """Cosines `[N, N]`, and their mean and variance over pairs, `[1 + draws]` each."""

    cosines: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


def _moments(cosines: np.ndarray) -> _Moments:
    """Computes the moments of cosines over pairs."""
    means_of = bootstrap(len(cosines)).pair_means
    mean = means_of(cosines)
    return _Moments(cosines, mean, means_of(cosines**2) - mean**2)


def _statistics(shrunk: _Moments, whole: _Moments) -> dict[str, np.ndarray]:
    """Returns the measures `[1 + draws]` by name."""
    means_of = bootstrap(len(whole.cosines)).pair_means
    covariance = means_of(shrunk.cosines * whole.cosines) - shrunk.mean * whole.mean
    # Below this, the variance of cosines is rounding error of float64.
    varied = np.minimum(shrunk.variance, whole.variance) > 1e-14
    product = np.where(varied, shrunk.variance * whole.variance, 1)
    correlation = np.where(varied, covariance / np.sqrt(product), np.nan)
    return {
        "change": means_of(np.abs(shrunk.cosines - whole.cosines)),
        "correlation": correlation,
        "similarity": shrunk.mean,
    }


def _chart(rows: list[dict], measure: str):
    """Makes the chart of a measure, with a line for each removal."""
    from lmjax import plots

    lines = lines_of_removals(rows, "share", measure)
    return plots.Chart("", "share of the side", _MEASURES[measure], lines)
