"""Samples: the removal that paints other images over hidden pixels, several in turn."""

import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lmjax._utils import array_file
from lmjax._utils.checks import set_whole
from lmjax._utils.keys import check_key
from lmjax._utils.photographs import find
from lmjax._utils.summary import brief
from lmjax.removals.average import ReplaceAverage, check_images
from lmjax.removals.removal import Painting
from lmjax.removals.replace import Replace

PHOTOGRAPHS = ("china.jpg", "flower.jpg")
"""What `Samples` crops without images of its own."""

_CROPS = 16  # of each
KIND = "samples"


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True, eq=False)
class Samples(Painting):
    """Replaces hidden pixels by those of images drawn from a set, and averages the answers.

    The marginal expectation, estimated from draws, with which SHAP's samplers and prediction
    difference analysis start: `ReplaceAverage` with images drawn from a larger set. All variants
    share the draws. Takes binary masks.

    Example:
      >>> source = lmjax.data.open_source("digit-scenes,split=train", length=100)
      >>> images = np.stack([classifier.preprocessing(example.image) for example in source])
      >>> predictor = lmjax.Predictor(classifier, lmjax.Samples(images, key=jax.random.key(0)))

    Attributes:
      images: `[M, H, W, C]` in [0, 1], of the picture's size and none of them the one explained;
        those the network was trained on, say. None takes crops of two photographs that lmjax
        ships, `"photograph:china"` and `"photograph:flower"` of `lmjax.explain`, at the size of the
        picture (a stand-in for want of a set).
      key: of the draws.
      draws: how many images of the set are drawn, without replacement.

    Raises:
      ValueError: another shape or range, something that is not a random key, or more draws than
        images.

    References:
      Zintgraf, Cohen, Adel & Welling 2017 (arXiv 1702.04595), marginal sampling; Lundberg & Lee
      2017 (arXiv 1705.07874), the background set.
    """

    images: jax.Array | np.ndarray | None = None
    _: dataclasses.KW_ONLY
    key: jax.Array
    draws: int = 8

    def __post_init__(self):
        check_key(self.key)
        set_whole(self, "draws", least=1)
        if self.images is not None:
            object.__setattr__(self, "images", check_images(self.images, "images"))
        set_whole(self, "draws", most=self.population, note="the images there are to draw from")

    @property
    def population(self) -> int:
        """How many images there are to draw from, without replacement."""
        return len(PHOTOGRAPHS) * _CROPS if self.images is None else len(self.images)

    def paint(
        self, image: jax.Array, masks: jax.Array, mean: Sequence[float] | None = None
    ) -> jax.Array:
        """Returns the variants as pictures, with the first image that is drawn.

        Args:
          image: `[H, W, C]` in [0, 1].
          masks: `[N, H, W]`, 1 = visible.
          mean: ignored.

        Returns:
          `[N, H, W, C]`.
        """
        return Replace(self._drawn(image)[0]).paint(image, masks)

    def logits(self, classifier: Any, image: jax.Array, masks: jax.Array) -> jax.Array:
        """Returns averaged logits `[N, K]`; see `ReplaceAverage`.

        Args:
          classifier, image, masks: as in `ReplaceAverage.logits`.
        """
        return ReplaceAverage.of(self._drawn(image)).logits(classifier, image, masks)

    def answers(self, classifier: Any, image: jax.Array, masks: jax.Array) -> jax.Array:
        """Returns the logits of each draw, `[D, N, K]`; arguments as in `logits`."""
        return ReplaceAverage.of(self._drawn(image)).answers(classifier, image, masks)

    def _drawn(self, image: jax.Array) -> jax.Array:
        shape = jnp.shape(image)
        images = photographs(shape) if self.images is None else self.images
        if images.shape[1:] != shape:
            raise ValueError(
                f"images must have shape {('M', *shape)} to match the image, got {images.shape}; "
                "classifier.preprocessing(...) makes them so, and `lmjax data samples --model`"
            )
        chosen = jax.random.choice(self.key, len(images), (self.draws,), replace=False)
        return jnp.asarray(images)[chosen]

    def __repr__(self) -> str:
        images = "" if self.images is None else f"{brief(self.images)}, "
        return f"Samples({images}key={brief(self.key)}, draws={self.draws})"

    def tree_flatten(self) -> tuple:
        return (self.images, self.key), self.draws

    @classmethod
    def tree_unflatten(cls, draws: int, leaves: tuple) -> "Samples":
        samples = object.__new__(cls)  # no checks: leaves may be tracers or placeholders
        for name, value in zip(("images", "key", "draws"), (*leaves, draws)):
            object.__setattr__(samples, name, value)
        return samples


class Origin(NamedTuple):
    """Where the images of a file come from.

    Attributes:
      source: `version` of their source.
      hashes: of the images as the source gives them, so that none of them is judged.
    """

    source: str
    hashes: tuple[str, ...] = ()


def write_images(path: str | os.PathLike, images: Any, *, origin: Origin) -> None:
    """Writes images for the removal `"samples@PATH"`.

    Args:
      path: ends in `.npz`; a file of such images is replaced, and no other.
      images: as in `Samples`.
      origin: where they come from, for the record.

    Raises:
      ValueError: another suffix, a file there that holds something else, or no images.
      OSError: the file cannot be written.
    """
    images = np.asarray(check_images(images, "images"))
    array_file.write(path, KIND, origin._asdict(), {"images": images})


def read_images(path: str | os.PathLike) -> np.ndarray:
    """Reads the images of a file that `write_images` has made, float32 `[M, H, W, C]`.

    Raises:
      ValueError: another file.
      OSError: the file cannot be read.
    """
    return _read(path)[1]


def origin_of(path: str | os.PathLike) -> Origin:
    """Returns where the images of a file come from; raises as `read_images`."""
    return _read(path)[0]


def _read(path: str | os.PathLike) -> tuple[Origin, np.ndarray]:
    header, arrays = array_file.read(path, KIND)
    try:
        hashes = tuple(map(str, header.get("hashes", ())))  # files before 0.3 have none
        return Origin(str(header["source"]), hashes), arrays["images"]
    except (KeyError, TypeError) as error:
        raise array_file.damaged(path, KIND, error) from error


@functools.lru_cache(maxsize=2)
def photographs(shape: tuple[int, int, int]) -> np.ndarray:
    """Crops photographs, float32 `[M, H, W, C]`: windows as large as fit, at random places."""
    from PIL.Image import Resampling

    height, width, channels = shape
    if channels not in (1, 3):
        raise ValueError(
            f"images must be given for a picture of {channels} channels: lmjax.Samples(images, ...)"
        )
    rng, crops = np.random.default_rng(0), []
    for name in PHOTOGRAPHS:
        photograph = open_photograph(name, "RGB" if channels == 3 else "L")
        for _ in range(_CROPS):
            scale = rng.uniform(0.5, 1) * min(photograph.width / width, photograph.height / height)
            wide, high = scale * width, scale * height
            left, top = rng.uniform(0, (photograph.width - wide, photograph.height - high))
            box = (left, top, left + wide, top + high)
            crop = photograph.resize((width, height), Resampling.BILINEAR, box=box)
            crops.append(np.asarray(crop, np.float32).reshape(shape) / 255)
    return np.stack(crops)


def open_photograph(name: str, mode: str) -> Any:
    """Opens one of `PHOTOGRAPHS` as a picture of Pillow in a mode, "RGB" or "L"."""
    from PIL import Image

    with Image.open(find(name), formats=["JPEG"]) as opened:
        return opened.convert(mode)
