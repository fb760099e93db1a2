"""Masked variants of many images through a predictor, in batches of one shape.

`lmjax.evaluate` takes one image; a study has hundreds with few variants each. Here a batch holds
variants of whatever images come next.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lmjax._utils import sharding
from lmjax._utils.sizes import power_of_two
from lmjax.evaluation import dealing, programs
from lmjax.evaluation.evaluator import _CPU_PIXELS_PER_CALL, _one_ahead, per_device, split
from lmjax.masking.checks import check_mask
from lmjax.masks.coalitions import _paint
from lmjax.masks.families import Masks

# Fewer images are filled up to so many, so that the last few of a study compile nothing.
_LEAST_IMAGES = 16


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

    def __len__(self) -> int:
        return len(self.keep)


def evaluate_images(
    predictor: Callable,
    images,
    masks,
    *,
    image_of,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
) -> np.ndarray:
    """Logits of variants of several images.

    Compiles once for each shape of images and masks and each batch size; the numbers of images and
    of variants are filled up, to a power of two (16 or more) and to whole batches.

    Args:
      predictor: as in `lmjax.evaluate`: function (image, masks `[1, H, W]`) -> logits `[1, K]`.
        It is mapped over the variants of a batch.
      images: `[M, H, W, C]`, or any pytree of arrays with a leading axis M, of which the predictor
        is given what belongs to one image.
      masks: `[N, H, W]`, 1 = visible; or `ImageCoalitions`, whose masks are made on the device.
      image_of: `[N]` ints from 0 to M - 1, the image of each variant.
      batch_size: variants computed together; None and limits as in `lmjax.evaluate`.
      mesh: as in `lmjax.evaluate`.

    Returns:
      float32 `[N, K]`. Variants that hide everything are allowed.

    Raises:
      ValueError: shapes that do not match, images that do not exist, mask values other than 0 and
        1, no variant at all, a mesh with devices of other processes.
    """
    mesh = sharding.check_mesh(mesh)
    family, shared, make, shape = _masks(masks)
    image_of = _check_image_of(image_of, len(family), _number_of(images, shared))
    arrays, static = split(predictor, make)
    images, shared = jax.tree.map(_filled_up, (images, shared))
    arrays, images, shared = sharding.replicated((arrays, images, shared), mesh)
    size = per_device(batch_size, len(image_of), shape, mesh)
    pixels = _CPU_PIXELS_PER_CALL if jax.default_backend() == "cpu" else 0
    per_call = max(pixels // (size * shape[0] * shape[1]), 1)
    batches = [np.arange(i, min(i + size, len(family))) for i in range(0, len(family), size)]

    def calls() -> Iterator[tuple[np.ndarray, jax.Array]]:
        dealt = dealing.deal(batches, per_call=per_call, length=size, devices=mesh.size)
        for numbers, used in dealt:
            rows = image_of[np.maximum(numbers, 0)], family[np.maximum(numbers, 0)]
            mine = sharding.divided((rows, used), mesh)
            logits = _call(arrays, images, shared, *mine, static=static, mesh=mesh)
            yield numbers.reshape(-1), logits

    logits = None
    for variants, answers in _one_ahead(calls()):
        answers = np.asarray(answers)
        if logits is None:
            logits = np.empty((len(family), answers.shape[1]), np.float32)
        real = variants >= 0
        logits[variants[real]] = answers[real]
    return logits


@functools.partial(jax.jit, static_argnames=("static", "mesh"))
def _call(arrays, images, shared, rows, used, *, static, mesh):
    """Logits `[D * G * B, K]` of (image numbers, mask rows), each `[D * G, B, ...]`."""
    run = functools.partial(_batches, static=static)
    return dealing.side_by_side(run, mesh, parts=2)(arrays, images, shared, rows, used)


def _batches(arrays, images, shared, rows, used, *, static):
    """Logits `[G * B, K]` of one device's batches."""
    predictor = static.predictor(arrays)

    def variant(image, shared, row):
        logits = predictor(image, static.make(shared, row[None]))
        shape = getattr(logits, "shape", None)
        if shape is None or len(shape) != 2 or shape[0] != 1:
            got = type(logits).__name__ if shape is None else f"shape {shape}"
            raise ValueError(f"predictor must return logits [N, K], got {got} for N = 1")
        return logits[0].astype(jnp.float32)

    def batch(rows):
        image_of, rows = rows
        image, own = jax.tree.map(lambda x: x[image_of], (images, shared))
        return jax.vmap(variant)(image, own, rows)

    return programs.one_by_one(batch, rows, used[0])


def _masks(masks) -> tuple[np.ndarray, np.ndarray | None, Callable, tuple[int, int]]:
    """Rows `[N, ...]`, what an image's variants share `[M, ...]`, how masks are made, (H, W)."""
    if isinstance(masks, ImageCoalitions):
        family = masks.keep, masks.segments, _paint, masks.segments.shape[1:]
    else:
        masks = Masks(np.asarray(check_mask(masks, np.shape(masks)[1:])))
        family = masks.array, None, masks.make, masks.spatial_shape
    if len(family[0]) == 0:
        raise ValueError("masks must hold at least one variant, got none")
    return family


def _number_of(images, shared) -> int:
    numbers = {np.shape(x)[:1] for x in jax.tree.leaves((images, shared))}
    if len(numbers) != 1 or numbers <= {(), (0,)}:
        raise ValueError(
            "images and segments must have the same leading axis, one entry for each image; got "
            f"lengths {sorted(numbers)}"
        )
    return numbers.pop()[0]


def _check_image_of(image_of, variants: int, images: int) -> np.ndarray:
    image_of = np.asarray(image_of)
    if image_of.shape != (variants,) or image_of.dtype.kind not in "iu":
        raise ValueError(
            f"image_of must be ints [{variants}], an image for each variant; got "
            f"{image_of.dtype} {image_of.shape}"
        )
    if image_of.min() < 0 or image_of.max() >= images:
        raise ValueError(
            f"image_of must be from 0 to {images - 1}, got {image_of.min()} to {image_of.max()}"
        )
    return image_of.astype(np.int32)


def _filled_up(x):
    """`[M, ...]`, M filled up to 16 or another power of two with copies of the last."""
    number = len(x)
    filled = max(power_of_two(number), _LEAST_IMAGES)
    return x[np.minimum(np.arange(filled), number - 1)]
