"""Coalitions: which segments stay visible in each variant."""

import dataclasses
import functools

import jax
import numpy as np
from jax.typing import ArrayLike

from lmjax._utils.checks import check_flag, check_number, check_whole
from lmjax._utils.sizes import filled
from lmjax.masks.families import MaskFamily, _paint
from lmjax.masks.keys import draw_rows, threefry
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
    make = staticmethod(_paint)

    def __post_init__(self):
        segments = check_segments(self.segments)
        object.__setattr__(self, "segments", segments)
        object.__setattr__(self, "keep", _check_keep(self.keep, int(segments.max()) + 1))

    @property
    def num_segments(self) -> int:
        """S, the number of segments."""
        return self.keep.shape[1]

    @property
    def spatial_shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.segments.shape

    @functools.cached_property
    def rows(self) -> np.ndarray:
        """The coalitions, `[N, S]` filled up with columns of labels that no pixel has.

        Images with different numbers of segments then share compiled programs.
        """
        return filled(self.keep, axis=1)

    def __len__(self) -> int:
        return len(self.keep)

    @property
    def shared(self) -> np.ndarray:
        """The label map `[H, W]`."""
        return self.segments

    def shown(self) -> np.ndarray:
        """Returns which pixels any variant shows, bool `[H, W]`."""
        return np.any(self.keep, axis=0)[self.segments]


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
    make = staticmethod(_paint)

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
        """(H, W)."""
        return self.segments.shape[1], self.segments.shape[2]

    def __len__(self) -> int:
        return len(self.keep)

    @functools.cached_property
    def rows(self) -> np.ndarray:
        """The coalitions, filled up as those of `Coalitions`."""
        return filled(self.keep, axis=1)

    @property
    def shared(self) -> np.ndarray:
        """The label maps `[M, H, W]`."""
        return self.segments


def random_keep(
    num_segments: int,
    num_samples: int,
    *,
    key: jax.Array,
    keep_probability: float = 0.5,
    first_all_visible: bool = True,
    first: int = 0,
) -> np.ndarray:
    """Draws coalitions in which every segment stays visible independently of the others.

    Coalitions are numbered: each depends on the key and on its number alone.

    Args:
      num_segments: S.
      num_samples: N.
      key: random key; the same key gives the same coalitions.
      keep_probability: probability that a segment stays, above 0 and below 1. 0.5 and
        `first_all_visible` are LIME's (Ribeiro et al. 2016; `lime` package 0.2.0.1).
      first_all_visible: coalition 0 keeps every segment.
      first: number of the first coalition.

    Returns:
      bool `[N, S]`.

    Raises:
      ValueError: options out of range, or more coalitions than memory allows.
    """
    num_segments = check_whole("num_segments", num_segments, least=1)
    num_samples = check_whole("num_samples", num_samples, least=1)
    first = check_whole("first", first, least=0)
    check_number("keep_probability", keep_probability, above=0, below=1)
    last = first + num_samples
    # 32 random bits, a float and a bool for each entry
    check_memory(9 * num_segments * last, num_segments, last)

    def draw(count: int) -> jax.Array:
        return jax.random.bernoulli(threefry(key), np.float32(keep_probability), (count,))

    # Entry (i, j) is bit i S + j, of which as many are drawn as few shapes allow.
    flat = np.asarray(draw_rows(draw, first * num_segments, last * num_segments))
    keep = flat.reshape(num_samples, num_segments)
    if not check_flag("first_all_visible", first_all_visible) or first > 0:
        return keep
    return np.concatenate([np.ones_like(keep[:1]), keep[1:]])


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


def _check_keep(keep: ArrayLike, num_segments: int) -> np.ndarray:
    """Returns coalitions as bool `[N, S]`, or raises ValueError."""
    keep = np.asarray(keep)
    if keep.ndim != 2 or keep.shape[1] != num_segments:
        raise ValueError(
            f"keep must be [N, {num_segments}], a column for each segment; got shape {keep.shape}"
        )
    if keep.dtype == bool:
        return keep
    if keep.dtype.kind not in "iuf":
        raise ValueError(f"keep must be bool or numbers, got dtype {keep.dtype}")
    bad = ~((keep == 0) | (keep == 1))
    if bad.any():
        named = ", ".join(f"{value:g}" for value in np.unique(keep[bad])[:5])
        raise ValueError(f"keep must hold only 0 (hidden) and 1 (visible), got {named}")
    return keep.astype(bool)
