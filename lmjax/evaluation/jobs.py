"""Checked arguments of an evaluation: of one image, or of several."""

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lmjax._utils import sharding
from lmjax._utils.bounded import bounded_jit
from lmjax._utils.processes import check_not_forked
from lmjax._utils.sizes import power_of_two
from lmjax.evaluation import batches as batching
from lmjax.evaluation.calls import threads_of
from lmjax.evaluation.lapack import without_hanging
from lmjax.masking.checks import check_colours, check_image
from lmjax.masks.coalitions import ImageCoalitions
from lmjax.masks.families import MaskFamily, Masks, masks_of
from lmjax.masks.pooled import PooledMasks

# Pixels of one batch when batch_size is None. On CPU larger batches fall out of the caches; an
# accelerator needs more of them to be busy.
_CPU_PIXELS = 2**18
_ACCELERATOR_PIXELS = 2**24
# On CPU several batches run in one call, which keeps its working memory: the pages of a fresh one
# cost a tenth of the time (resnet50, 224 x 224, 2 cores).
_CPU_PIXELS_PER_CALL = 2**21
# Fewer images are filled up to this number, so that the last few of a study compile nothing.
_LEAST_IMAGES = 16


class Options(NamedTuple):
    """Options of an evaluation: how it is divided.

    Attributes:
      batch_size: variants computed together on a device, or None.
      mesh: of the devices, or None.
      expected: how many variants calls like this one evaluate in all, or None.
    """

    batch_size: int | None = None
    mesh: Mesh | None = None
    expected: int | None = None


class Static(NamedTuple):
    """The static part of a job, which programs are compiled for beside shapes.

    Attributes:
      tree: the predictor's structure.
      leaves: its leaves, None where an array belongs.
      is_array: which leaves are arrays.
      make: of the mask family.
      many: whether there are several images.
      types: of the nodes in the structure, which JAX does not compare: a subclass with its parent's
        fields has an equal structure, and may compute something else.
    """

    tree: Any
    leaves: tuple
    is_array: tuple[bool, ...]
    make: Callable | None
    many: bool = False
    types: tuple[type, ...] = ()

    def predictor(self, arrays: Sequence[Any]) -> Callable:
        """Returns the predictor with its arrays put back."""
        left = iter(arrays)
        leaves = [
            next(left) if array else leaf
            for leaf, array in zip(self.leaves, self.is_array, strict=True)
        ]
        return jax.tree.unflatten(self.tree, leaves)


class Job(NamedTuple):
    """Checked arguments of an evaluation, arrays on the device.

    Attributes:
      static: what programs are compiled for.
      arrays: of the predictor.
      images: `[H, W, C]`, or of several images any pytree with a leading axis M.
      shared: of the mask family, with the same leading axis.
      rows: of the mask family, on the host; of several images (image of each variant, rows).
      spatial_shape: (H, W).
      num_variants: N.
      expected: how many variants calls like this one evaluate in all.
      batch_size: variants of a dense batch.
      pixels_per_call: how many pixels of variants a call takes on a device at most, if it has
        several batches.
      mesh: of the devices.
      threads: how many calls run at a time.
    """

    static: Static
    arrays: list[jax.Array]
    images: Any
    shared: Any
    rows: Any
    spatial_shape: tuple[int, int]
    num_variants: int
    expected: int
    batch_size: int
    pixels_per_call: int
    mesh: Mesh
    threads: int

    def batches_per_call(self, variants_per_batch: float) -> int:
        """Returns how many batches a call takes on each device."""
        pixels = variants_per_batch * self.spatial_shape[0] * self.spatial_shape[1]
        return max(int(self.pixels_per_call / pixels), 1)

    def take(self, variants: np.ndarray) -> Any:
        """Returns rows of some variants, in the shape of `variants`; any row where that is -1."""
        return jax.tree.map(lambda x: x[np.maximum(variants, 0)], self.rows)

    def masks(self, variants: np.ndarray) -> np.ndarray:
        """Returns masks of some variants, `[..., H, W]` bool; nothing is visible where it is -1."""
        (masks,) = self.masks_ahead([variants])
        return masks

    def masks_ahead(self, parts: Iterable[np.ndarray], *, ahead: int = 1) -> Iterator[np.ndarray]:
        """Yields the masks of each part, having asked the device for those of the next ones.

        The device makes masks. Asked for behind a call that it computes, they would come after it,
        and the host, which makes index arrays of them, would wait.

        Args:
          parts: numbers of variants, as in `masks`.
          ahead: how many parts are asked for before one is handed out.
        """
        asked: collections.deque = collections.deque()
        for variants in parts:
            flat = variants.reshape(-1)
            made = _make_masks(self.shared, self.take(flat), static=self.static)
            asked.append((variants, made))
            if len(asked) > ahead:
                yield self._fetched(*asked.popleft())
        while asked:
            yield self._fetched(*asked.popleft())

    def _fetched(self, variants: np.ndarray, made: jax.Array) -> np.ndarray:
        shown = (np.asarray(made) != 0) & (variants.reshape(-1) >= 0)[:, None, None]
        return shown.reshape(*variants.shape, *self.spatial_shape)

    def image_of(self, variants: np.ndarray) -> np.ndarray | None:
        """Returns the image of some variants; None where there is one image."""
        return self.rows[0][np.maximum(variants, 0)] if self.static.many else None

    def distribute(self, batches: Sequence[np.ndarray], per_call: int, length: int):
        """Yields batches as `batching.distribute` does, for the devices of this job."""
        options = {"devices": self.mesh.size, "calls": self.threads}
        return batching.distribute(batches, per_call=per_call, length=length, **options)


def job_of_image(predictor: Callable, image, masks, options: Options) -> Job:
    """Returns the job for variants of one image; arguments as in `lmjax.Evaluator`."""
    check_not_forked()
    image, family = check_variants(predictor, image, masks)
    arrays, static = split(predictor, family.make)
    placed = arrays, image, family.shared
    return _job(static, placed, family.rows, image.shape[:2], len(family), options)


def job_of_images(predictor: Callable, images, masks, image_of, options: Options) -> Job:
    """Returns the job for variants of several images; as in `lmjax.Evaluator.images`."""
    check_not_forked()
    if not isinstance(masks, ImageCoalitions | PooledMasks):
        masks = masks.array if isinstance(masks, Masks) else masks
        masks = masks_of(masks, np.shape(masks)[1:], soft=_blends(predictor))
    count, shape = len(masks), masks.spatial_shape
    if count == 0:
        raise ValueError("masks must hold at least one variant, got none")
    if 0 in shape:
        raise ValueError(f"masks must be of images with pixels, got height and width {shape}")
    listed = images if isinstance(images, list | tuple) else ()
    if {getattr(x, "shape", ())[:-1] for x in listed} == {shape}:
        raise ValueError(
            f"images must be one array [M, H, W, C], got a list of {len(listed)} images; pass "
            "np.stack(images)"
        )
    image_of = _check_image_of(image_of, count, _number_of(images, masks.shared))
    _check_shown(images, masks, image_of, hidden_too=_reads_hidden(predictor))
    if isinstance(images, np.ndarray | jax.Array) and jnp.issubdtype(images.dtype, jnp.floating):
        images = images.astype(np.float32)
    images, shared = jax.tree.map(_filled_up, (images, masks.shared))
    arrays, static = split(predictor, masks.make, many=True)
    return _job(static, (arrays, images, shared), (image_of, masks.rows), shape, count, options)


def check_variants(predictor: Callable, image, masks) -> tuple[np.ndarray, MaskFamily]:
    """Returns an image, float32, and its masks as a family; raises ValueError as an evaluator."""
    check_image(image)
    image = np.asarray(image)
    shape = image.shape[0], image.shape[1]
    family = _family(predictor, masks, shape)
    shown = family.shown()
    if not shown.any():
        raise ValueError(
            "masks leave no visible pixel in any variant; 1 = visible, 0 = hidden: "
            "if yours are the other way round, pass 1 - masks"
        )
    _check_read("image", image, shown, hidden_too=_reads_hidden(predictor))
    return np.asarray(image, np.float32), family


def _job(static: Static, placed: tuple, rows, shape, count: int, options: Options) -> Job:
    """The job, with (arrays of the predictor, images, shared) on the devices."""
    arrays, images, _ = placed
    mesh = without_hanging(sharding.check_mesh(options.mesh), static, arrays, images, shape)
    arrays, images, shared = sharding.replicated(placed, mesh)
    return Job(
        static=static,
        arrays=arrays,
        images=images,
        shared=shared,
        rows=rows,
        spatial_shape=shape,
        num_variants=count,
        expected=max(options.expected or 0, count),
        batch_size=_per_device(options.batch_size, count, shape, mesh),
        pixels_per_call=_CPU_PIXELS_PER_CALL if jax.default_backend() == "cpu" else 0,
        mesh=mesh,
        threads=threads_of(mesh),
    )


@bounded_jit(static_argnames="static")
def _make_masks(shared, rows, *, static):
    if not static.many:
        return static.make(shared, rows)
    image_of, rows = rows
    own = jax.tree.map(lambda x: x[image_of], shared)
    rows = jax.tree.map(lambda x: x[:, None], rows)
    return jax.vmap(lambda shared, row: static.make(shared, row)[0])(own, rows)


def default_batch_size(spatial_shape: tuple[int, int]) -> int:
    """Returns the batch size that an evaluator takes by itself for images of (H, W)."""
    pixels = _CPU_PIXELS if jax.default_backend() == "cpu" else _ACCELERATOR_PIXELS
    return 2 ** max((pixels // (spatial_shape[0] * spatial_shape[1])).bit_length() - 1, 0)


def _blends(predictor: Callable) -> bool:
    """Returns whether a predictor declares that it takes soft masks."""
    return getattr(predictor, "soft_masks", False)


def _reads_hidden(predictor: Callable) -> bool:
    """Returns whether a predictor declares that it reads hidden pixels."""
    return getattr(predictor, "reads_hidden", False)


def _family(predictor: Callable, masks, shape: tuple[int, int]) -> MaskFamily:
    if not isinstance(masks, MaskFamily):
        masks = masks_of(masks, shape, soft=_blends(predictor))
    elif masks.spatial_shape != shape:
        raise ValueError(
            f"masks have shape {masks.spatial_shape}, the image {shape}; make them for this image"
        )
    if len(masks) == 0:
        raise ValueError("masks must hold at least one variant, got none")
    if masks.soft and not getattr(predictor, "soft_masks", True):
        raise ValueError(
            "masks hold values between 0 and 1, and the predictor's removal takes only 0 and 1; "
            "blend with lmjax.Replace(...), or make the masks binary"
        )
    return masks


def _check_shown(images: Any, masks: Any, image_of: np.ndarray, *, hidden_too: bool) -> None:
    """Checks the pixels of images `[M, H, W, C]` that are read, as `_check_read` does.

    Other pytrees of images are for predictors that know what they mean.
    """
    if not isinstance(images, np.ndarray | jax.Array) or images.ndim != 4:
        return
    if images.shape[1:3] != masks.spatial_shape:
        return
    for i, image in enumerate(np.asarray(images)):
        variants = image_of == i
        if variants.any() and not _are_colours(image):
            shown = _shown_of(masks, i, variants)
            _check_read(f"images[{i}]", image, shown, hidden_too=hidden_too)


def _are_colours(image: np.ndarray) -> bool:
    return image.size == 0 or bool(image.min() >= 0 and image.max() <= 1)  # False for NaN


def _check_read(name: str, image: np.ndarray, shown: np.ndarray, *, hidden_too: bool) -> None:
    """Raises ValueError unless the pixels that are read are colours.

    Args:
      name: of the image, for the error.
      image: `[H, W, C]`.
      shown: which pixels any variant shows, bool `[H, W]`.
      hidden_too: whether the predictor reads pixels that masks hide.
    """
    read = shown | hidden_too
    bad = read & ~np.isfinite(image).all(axis=-1)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        why = ", and this removal reads hidden ones too" if hidden_too else ""
        remedy = "fill them in" if hidden_too else "hide them in every variant or fill them in"
        which = "pixels" if hidden_too else "visible pixels"
        raise ValueError(
            f"{name} holds NaN or infinity in {bad.sum()} {which} (first at row {row}, "
            f"column {column}){why}; {remedy}"
        )
    check_colours(np.where(read[..., None], image, 0), name)


def _shown_of(masks: Any, image: int, variants: np.ndarray) -> np.ndarray:
    """Returns which pixels of an image any of its variants shows, bool `[H, W]`."""
    if isinstance(masks, PooledMasks):
        return masks.families[image].shown()
    if isinstance(masks, ImageCoalitions):
        return np.asarray(masks.keep[variants].any(axis=0))[masks.segments[image]]
    return np.any(masks.array[variants] > 0, axis=0)


def _per_device(
    batch_size: int | None, num_variants: int, shape: tuple[int, int], mesh: Mesh
) -> int:
    """The batch size of each device."""
    size = default_batch_size(shape) if batch_size is None else int(batch_size)
    return min(size, power_of_two(-(-num_variants // mesh.size)))


def split(
    predictor: Callable, make: Callable | None = None, *, many: bool = False
) -> tuple[list, Static]:
    """Splits a predictor into arrays, arguments of a compiled function, and all that is static.

    Args:
      predictor: as in `evaluate`.
      make: of the mask family, where there is one.
    """
    if not callable(predictor):
        raise ValueError(
            "predictor must be a function (image, masks) -> logits, such as "
            f"lmjax.Predictor(classifier); got {type(predictor).__name__}"
        )
    leaves, tree = jax.tree.flatten(predictor)
    is_array = tuple(map(_is_array, leaves))
    arrays = [leaf for leaf, array in zip(leaves, is_array, strict=True) if array]
    others = tuple(None if array else leaf for leaf, array in zip(leaves, is_array, strict=True))
    # Of leaves too: 1, 1.0 and True are equal, and a function may tell them apart.
    types = *_types(tree), *map(type, others)
    static = Static(tree, others, is_array, make, many, types)
    try:
        hash(static)
    except TypeError as error:
        raise ValueError(
            f"predictor holds something that is neither an array nor hashable ({error}); "
            "register it as a pytree, or wrap the predictor in a function"
        ) from error
    return arrays, static


def _types(tree: Any) -> tuple[type, ...]:
    """Returns the types of all nodes of a structure, outermost first."""
    node = tree.node_data()
    if node is None:  # a leaf
        return ()
    return node[0], *(each for child in tree.children() for each in _types(child))


def _is_array(leaf) -> bool:
    if isinstance(leaf, jax.Array):
        return True
    return isinstance(leaf, np.ndarray | np.generic) and (
        leaf.dtype == bool or jnp.issubdtype(leaf.dtype, jnp.number)
    )


def _number_of(images, shared) -> int:
    for leaf in jax.tree.leaves(images):
        dtype = getattr(leaf, "dtype", None)
        if isinstance(dtype, np.dtype) and dtype.kind in "OUS":  # random keys have other dtypes
            raise ValueError(f"images must hold numbers, got {leaf.dtype}")
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
