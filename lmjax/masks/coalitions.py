"""Coalitions: which segments stay visible in each variant."""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np

from lmjax._utils.sizes import power_of_two
from lmjax.masks.families import MaskFamily
from lmjax.masks.keys import threefry
from lmjax.masks.segments import check_segments


@dataclasses.dataclass(frozen=True, eq=False)
class Coalitions(MaskFamily):
    """Masks given as a label map and the segments that each variant keeps.

    The masks themselves, `keep[:, segments]`, are made on the device, a batch at a time.

    Attributes:
      segments: `[H, W]` ints, labels 0..S-1, none missing.
      keep: `[N, S]` bool (or 0 and 1), True = the segment stays visible.

    Raises:
      ValueError: shapes that do not match, labels missing, or values other than 0 and 1.
    """

    segments: np.ndarray
    keep: np.ndarray

    def __post_init__(self):
        segments = check_segments(self.segments)
        object.__setattr__(self, "segments", segments)
        object.__setattr__(self, "keep", _check_keep(self.keep, int(segments.max()) + 1))

    @property
    def num_segments(self) -> int:
        return self.keep.shape[1]

    @property
    def spatial_shape(self) -> tuple[int, int]:
        return self.segments.shape

    @property
    def rows(self) -> np.ndarray:
        return self.keep

    @property
    def shared(self) -> np.ndarray:
        return self.segments

    @property
    def make(self) -> Callable:
        return _paint

    def shown(self) -> np.ndarray:
        return self.keep.any(axis=0)[self.segments]


@dataclasses.dataclass(frozen=True, eq=False)
class ImageCoalitions:
    """Coalitions of several images: `Coalitions` whose variants have label maps of their own.

    Attributes:
      segments: `[M, H, W]` ints from 0, a label map for each image.
      keep: `[N, S]` bool, True = the segment of the variant's image stays visible. S is the largest
        number of segments; columns that an image has no segment for are ignored.
    """

    segments: np.ndarray
    keep: np.ndarray

    def __post_init__(self):
        segments, keep = np.asarray(self.segments), np.asarray(self.keep)
        if segments.ndim != 3 or segments.dtype.kind not in "iu" or segments.size == 0:
            raise ValueError(
                f"segments must be ints [M, H, W], got {segments.dtype} {segments.shape}"
            )
        if keep.ndim != 2 or keep.dtype != bool:
            raise ValueError(f"keep must be bool [N, S], got {keep.dtype} {keep.shape}")
        if segments.min() < 0 or segments.max() >= keep.shape[1]:
            raise ValueError(
                f"segments must hold labels from 0 to {keep.shape[1] - 1}, one for each column of "
                f"keep; got {segments.min()} to {segments.max()}"
            )
        object.__setattr__(self, "segments", segments.astype(np.int32))
        object.__setattr__(self, "keep", keep)

    @property
    def spatial_shape(self) -> tuple[int, int]:
        return self.segments.shape[1:]

    def __len__(self) -> int:
        return len(self.keep)

    @property
    def make(self) -> Callable:
        return _paint


def _paint(segments, keep):
    return keep[:, segments]


def random_keep(
    num_segments: int,
    num_samples: int,
    *,
    key: jax.Array,
    keep_probability: float = 0.5,
    first_all_visible: bool = True,
    first: int = 0,
) -> jax.Array:
    """Random coalitions: every segment stays visible independently of the others.

    They are numbered: a coalition depends on the key and on its number alone.

    Args:
      num_segments: S.
      num_samples: N.
      key: random key; the same key gives the same coalitions.
      keep_probability: how likely a segment stays, above 0 and below 1. 0.5 and
        `first_all_visible` are LIME's (Ribeiro et al. 2016; `lime` package 0.2.0.1).
      first_all_visible: coalition 0 keeps every segment.
      first: number of the first coalition.

    Returns:
      bool `[N, S]`.

    Raises:
      ValueError: options out of range, or more coalitions than memory allows.
    """
    names = "num_segments", "num_samples", "first"
    for name, value, least in zip(names, (num_segments, num_samples, first), (1, 1, 0)):
        if value < least:
            raise ValueError(f"{name} must be {least} or more, got {value!r}")
    if not 0 < keep_probability < 1:
        raise ValueError(f"keep_probability must be above 0 and below 1, got {keep_probability!r}")
    last = first + num_samples
    # 32 random bits, a float and a bool for each entry
    check_memory(9 * num_segments * last, num_segments, last)
    with jax.threefry_partitionable(True):  # bits depend on their place only, not on the shape
        shape = power_of_two(last), num_segments
        keep = jax.random.bernoulli(threefry(key), keep_probability, shape)
    keep = keep.at[0].set(True) if first_all_visible else keep
    return keep[first:last]


def check_memory(needed: int, num_segments: int, num_samples: int) -> None:
    """Raises ValueError when `needed` bytes are more than the host has available."""
    import psutil

    available = psutil.virtual_memory().available
    if needed > available:
        raise ValueError(
            f"{num_segments:,} segments with {num_samples:,} samples need about "
            f"{needed / 1e9:.1f} GB of memory, {available / 1e9:.1f} GB are available; "
            "use fewer segments, for example lmjax.segments.slic(image, n_segments=50), "
            "or fewer samples"
        )


def _check_keep(keep, num_segments: int) -> np.ndarray:
    keep = np.asarray(keep)
    if keep.ndim != 2 or keep.shape[1] != num_segments:
        raise ValueError(
            f"keep must be [N, {num_segments}], a column for each segment; got shape {keep.shape}"
        )
    if keep.dtype == bool:
        return keep
    bad = ~((keep == 0) | (keep == 1))
    if bad.any():
        named = ", ".join(f"{value:g}" for value in np.unique(keep[bad])[:5])
        raise ValueError(f"keep must hold only 0 (hidden) and 1 (visible), got {named}")
    return keep.astype(bool)
