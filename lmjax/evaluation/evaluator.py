"""Thousands of masked variants of one image through a predictor, in batches of one shape."""

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lmjax._utils import sharding
from lmjax._utils.sizes import power_of_two
from lmjax.evaluation import programs
from lmjax.evaluation.plan import make_plan
from lmjax.evaluation.programs import Job, Static
from lmjax.masking.checks import check_colours, check_image, check_mask
from lmjax.masks.families import MaskFamily, Masks

# Pixels of one batch when batch_size is None. On CPU larger batches fall out of the caches; an
# accelerator needs more of them to be busy.
_CPU_PIXELS = 2**18
_ACCELERATOR_PIXELS = 2**24
# On CPU several batches run in one call, which keeps its working memory: the pages of a fresh one
# cost a tenth of the time (resnet50, 224 x 224, 2 cores).
_CPU_PIXELS_PER_CALL = 2**21

Engine = Literal["auto", "dense", "visible", "shared"]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["predictor"],
    meta_fields=["engine", "batch_size", "mesh", "progress"],
)
@dataclasses.dataclass(frozen=True, eq=False)
class Evaluator:
    """Evaluates masked variants with a predictor; holds how: engine, batch size, devices, progress.

    Attributions and metrics take one in the place of a predictor. A pytree, as its predictor is.

    Attributes:
      predictor: function (image `[H, W, C]`, masks `[N, H, W]`) -> logits `[N, K]`. Arrays of a
        pytree (such as `lmjax.Predictor`) are passed as arguments of the compiled function. A plain
        function works too, but arrays it closes over become constants and are kept as long as the
        compiled program.
      engine: `"dense"` calls the predictor as it is. `"visible"` computes visible positions only
        (`lmjax.masking.sparse.rows`), and packs variants into batches by what they show.
        `"shared"` computes what variants have in common once (`lmjax.masking.sparse.sharing`), and
        goes on in the way that costs less. Same numbers, to rounding. `"auto"` takes the way that
        is expected to be fastest, from the call alone (`lmjax.evaluation.plan`).
      batch_size: variants computed together, on each device. None takes the power of two whose
        batch has about 2^18 pixels on a CPU and 2^24 on an accelerator (4 and 256 variants at
        224 x 224). Never more than a device's share of the variants, rounded up to a power of two.
      mesh: devices that share the variants, whatever the mesh's axes; None takes all of this
        process (or `jax.default_device`, where that is set). Weights are copied to each: over many
        calls, do it once, with `jax.device_put(predictor, NamedSharding(mesh, PartitionSpec()))`.
        With the same `batch_size`, the numbers are those of one device.
      progress: show a progress bar. None shows one on a terminal, when a run of more than one batch
        takes longer than a second.

    Raises:
      ValueError: a predictor that is no function, another engine, or an engine that the predictor
        does not support; a batch size or mesh out of range.
    """

    predictor: Callable
    _: dataclasses.KW_ONLY
    engine: Engine = "auto"
    batch_size: int | None = None
    mesh: Mesh | None = None
    progress: bool | None = None

    def __call__(self, image, masks, *, expected: int | None = None) -> np.ndarray:
        """Evaluates all variants of an image.

        Compiles once for each image shape and batch size, whatever the number of variants.
        Memory depends on the batch size: the masks of a family exist only on the device, a batch
        at a time.

        Args:
          image: `[H, W, C]` floats in [0, 1]. Pixels hidden in every variant may hold anything.
          masks: `[N, H, W]`, 1 = visible, 0 = hidden; or `lmjax.Coalitions`, or another
            `lmjax.masks.MaskFamily`.
          expected: how many variants calls like this one will evaluate in all, which `"auto"`
            weighs against the time that compiling takes; None takes N.

        Returns:
          Logits, float32 `[N, K]`.

        Raises:
          ValueError: shapes that do not match, mask values other than 0 and 1, soft masks for a
            removal that cannot blend, no variant at all, no pixel visible in any variant, colours
            outside [0, 1], NaN or infinity in a visible pixel.
        """
        job = _prepare(self.predictor, image, masks, self.batch_size, self.mesh)
        plan = make_plan(job, self.engine, able="visible" in getattr(self.predictor, "engines", ()))
        logits = None
        with _progress_bar(job, self.progress) as bar:
            for variants, answers in _complete(job, plan.calls(job)):
                answers = np.asarray(answers)
                if logits is None:
                    logits = np.empty((job.num_variants, answers.shape[1]), np.float32)
                real = variants >= 0
                logits[variants[real]] = answers[real]
                bar.update(real.sum())
        return logits

    def images(self, images, masks, *, image_of, expected: int | None = None) -> np.ndarray:
        """Evaluates variants of several images, as one pool.

        Args:
          images: `[M, H, W, C]` floats in [0, 1], or any pytree of arrays with a leading axis M, of
            which the predictor is given what belongs to one image.
          masks: `[N, H, W]`, 1 = visible; or `lmjax.masks.ImageCoalitions`.
          image_of: `[N]` ints from 0 to M - 1, the image of each variant.
          expected: as in a call.

        Returns:
          Logits, float32 `[N, K]`. Variants that hide everything are allowed.

        Raises:
          ValueError: as a call, and images that do not exist.
        """
        from lmjax.evaluation.evaluate_images import evaluate_images

        options = {"batch_size": self.batch_size, "mesh": self.mesh}
        return evaluate_images(self.predictor, images, masks, image_of=image_of, **options)

    def num_classes(self, image, masks) -> int:
        """Returns K of the logits that a call would give, with its checks, without computing them.

        The trace is kept: a call with the same arguments does not trace again.
        """
        return programs.num_classes(
            _prepare(self.predictor, image, masks, self.batch_size, self.mesh)
        )

    @property
    def soft_masks(self) -> bool:
        """Whether masks may hold values between 0 and 1."""
        return getattr(self.predictor, "soft_masks", False)


def as_evaluator(predictor: Callable | Evaluator) -> Evaluator:
    """Returns an evaluator as it is, and one with the default options for a predictor."""
    return predictor if isinstance(predictor, Evaluator) else Evaluator(predictor)


def as_predictor(predictor: Callable | Evaluator) -> Callable:
    """Returns the predictor of an evaluator, and a predictor as it is."""
    return predictor.predictor if isinstance(predictor, Evaluator) else predictor


def evaluate(predictor: Callable, image, masks, **options) -> np.ndarray:
    """Evaluates all variants of an image: `lmjax.Evaluator(predictor, **options)(image, masks)`.

    Args:
      predictor: as in `lmjax.Evaluator`.
      image, masks: as in a call of an evaluator.
      **options: of `lmjax.Evaluator`: `engine`, `batch_size`, `mesh`, `progress`.

    Returns:
      Logits, float32 `[N, K]`.

    Raises:
      ValueError: what an evaluator raises.
    """
    return Evaluator(predictor, **options)(image, masks)


def _complete(job: Job, calls: programs.Calls) -> Iterator[tuple[np.ndarray, jax.Array]]:
    """Numbers of variants and their logits; those that had no room are computed again, dense."""
    missed = []
    for variants, answers, complete in _one_ahead(calls):
        complete = np.repeat(complete, len(variants) // len(complete))
        missed.append(variants[~complete & (variants >= 0)])
        yield np.where(complete, variants, -1), answers
    missed = np.concatenate(missed)
    for variants, answers, _ in _one_ahead(programs.dense_calls(job, missed)):
        yield variants, answers


def _one_ahead(calls: programs.Calls) -> programs.Calls:
    """Starts each call before the one before it is handed out: the device is never idle."""
    last = None
    for call in calls:
        if last is not None:
            yield last
        last = call
    if last is not None:
        yield last


def default_batch_size(spatial_shape: tuple[int, int]) -> int:
    """The batch size that `evaluate` takes by itself for images of (H, W)."""
    pixels = _CPU_PIXELS if jax.default_backend() == "cpu" else _ACCELERATOR_PIXELS
    return 2 ** max((pixels // (spatial_shape[0] * spatial_shape[1])).bit_length() - 1, 0)


def _prepare(
    predictor: Callable, image, masks, batch_size: int | None, mesh: Mesh | None = None
) -> Job:
    check_image(image)
    image = np.asarray(image)
    family = _family(masks, image.shape[:2], predictor)
    _check_visible(image, family.shown())
    arrays, static = split(predictor, family.make)
    mesh = sharding.check_mesh(mesh)
    on_all = arrays, np.asarray(image, np.float32), family.shared
    arrays, image, shared = sharding.replicated(on_all, mesh)
    return Job(
        static=static,
        arrays=arrays,
        image=image,
        shared=shared,
        rows=family.rows,
        num_variants=len(family),
        batch_size=per_device(batch_size, len(family), image.shape[:2], mesh),
        pixels_per_call=_CPU_PIXELS_PER_CALL if jax.default_backend() == "cpu" else 0,
        mesh=mesh,
    )


def _family(masks, shape: tuple[int, int], predictor: Callable) -> MaskFamily:
    if not isinstance(masks, MaskFamily):
        masks = Masks(check_mask(masks, shape))
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


def _check_visible(image: np.ndarray, visible: np.ndarray) -> None:
    if not visible.any():
        raise ValueError(
            "masks leave no visible pixel in any variant; 1 = visible, 0 = hidden: "
            "if yours are the other way round, pass 1 - masks"
        )
    bad = visible & ~np.isfinite(image).all(axis=-1)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise ValueError(
            f"image holds NaN or infinity in {bad.sum()} visible pixels (first at row {row}, "
            f"column {column}); hide them in every variant or fill them in"
        )
    check_colours(np.where(visible[..., None], image, 0))


def per_device(
    batch_size: int | None, num_variants: int, shape: tuple[int, int], mesh: Mesh
) -> int:
    """The batch size of each device, checked."""
    if batch_size is None:
        batch_size = default_batch_size(shape)
    elif isinstance(batch_size, bool) or int(batch_size) != batch_size or batch_size < 1:
        raise ValueError(f"batch_size must be None or a whole number above 0, got {batch_size!r}")
    return min(int(batch_size), power_of_two(-(-num_variants // mesh.size)))


def split(predictor: Callable, make: Callable | None = None) -> tuple[list, Static]:
    """A predictor's arrays, to be arguments of a compiled function, and all that is static of it.

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
    static = Static(tree, others, is_array, make)
    try:
        hash(static)
    except TypeError as error:
        raise ValueError(
            f"predictor holds something that is neither an array nor hashable ({error}); "
            "register it as a pytree, or wrap the predictor in a function"
        ) from error
    return arrays, static


def _is_array(leaf) -> bool:
    if isinstance(leaf, jax.Array):
        return True
    return isinstance(leaf, np.ndarray | np.generic) and (
        leaf.dtype == bool or jnp.issubdtype(leaf.dtype, jnp.number)
    )


def _progress_bar(job: Job, progress: bool | None):
    from tqdm import tqdm

    automatic = progress is None
    if automatic:
        progress = job.num_variants > job.batch_size and sys.stderr.isatty()
    return tqdm(
        total=job.num_variants, unit=" variants", disable=not progress, delay=1 if automatic else 0
    )
