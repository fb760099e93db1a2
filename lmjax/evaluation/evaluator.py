"""The evaluator: masked variants of images through a predictor, by the fastest engine."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Literal

import jax
import numpy as np
from jax.sharding import Mesh

from lmjax._utils.checks import check_flag, check_whole, set_whole
from lmjax._utils.host import original_errors
from lmjax._utils.interruption import stop_if_noted
from lmjax._utils.progress import description, evaluated, progress_bar
from lmjax._utils.sharding import check_mesh, no_context_mesh
from lmjax.evaluation import programs
from lmjax.evaluation.calls import results
from lmjax.evaluation.jobs import Job, Options, job_of_image, job_of_images
from lmjax.evaluation.plan import check_engine, make_plan

Engine = Literal["auto", "dense", "visible", "shared"]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["predictor"],
    meta_fields=["engine", "batch_size", "mesh", "progress"],
)
@dataclasses.dataclass(frozen=True, eq=False)
class Evaluator:
    """Evaluates masked variants of an image with a chosen engine, batch size and set of devices.

    Attributions and metrics take one in the place of a predictor. A pytree, as its predictor is.

    Example:
      >>> evaluator = lmjax.Evaluator(predictor, batch_size=2)
      >>> evaluator(image, masks).shape
      (5, 2)
      >>> lmjax.attribution.leave_one_out(evaluator, image, segments).num_variants
      5

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
      mesh: devices that share the variants, over all axes of the mesh; None takes all of this
        process (or `jax.default_device`, where that is set). Weights are copied to each: over many
        calls, do it once, with `jax.device_put(predictor, NamedSharding(mesh, PartitionSpec()))`.
        With the same `batch_size`, the numbers are those of one device.
      progress: show a progress bar. None shows one on a terminal and in a notebook, while a run of
        more than one batch takes longer than a second.

    Raises:
      ValueError: another engine, or one that the predictor does not support; other options than
        those above; when called, if the predictor is not a function.
    """

    predictor: Callable
    _: dataclasses.KW_ONLY
    engine: Engine = "auto"
    batch_size: int | None = None
    mesh: Mesh | None = None
    progress: bool | None = None

    @no_context_mesh()
    def __call__(self, image, masks, *, expected: int | None = None) -> np.ndarray:
        """Evaluates all variants of an image.

        Compiles once for each image shape and batch size, for any number of variants.
        Memory depends on the batch size, not on the number of variants: the masks of a family exist
        only on the device, a batch at a time. On a CPU that is one device, two calls run at a
        time, in two threads. Variants that share rows are taken in groups, which the batch size
        does not change: those computed at a time have together at most the pixels of 128 variants
        of 224 x 224.

        Args:
          image: `[H, W, C]` floats in [0, 1]. Pixels hidden in every variant may hold anything,
            unless the removal reads them too, as `"blur"` and `"image_mean"` do.
          masks: `[N, H, W]`, 1 = visible, 0 = hidden, and values between where `soft_masks`; or
            `lmjax.Coalitions`, or another `lmjax.masks.MaskFamily`.
          expected: how many variants calls like this one will evaluate in all, which `"auto"`
            weighs against the time that compiling takes; None takes N.

        Returns:
          Logits, float32 `[N, K]`.

        Raises:
          ValueError: shapes that do not match, mask values other than 0 and 1, soft masks for a
            removal that cannot blend, no variant at all, no pixel visible in any variant, colours
            outside [0, 1], NaN or infinity in a pixel that is read.
        """
        return self._run(job_of_image(self.predictor, image, masks, self._options(expected)))

    @no_context_mesh()
    def images(self, images, masks, *, image_of, expected: int | None = None) -> np.ndarray:
        """Evaluates variants of several images, as one pool.

        Args:
          images: `[M, H, W, C]` floats in [0, 1]; or any other pytree of arrays with a leading axis
            M, of which the predictor is given what belongs to one image.
          masks: `[N, H, W]`, 1 = visible; or `lmjax.masks.ImageCoalitions`, or a family for each
            image, `lmjax.masks.pooled.PooledMasks`.
          image_of: `[N]` ints from 0 to M - 1, the image of each variant.
          expected: as in a call.

        Returns:
          Logits, float32 `[N, K]`. Variants that hide everything are allowed.

        Raises:
          ValueError: as a call, and images that do not exist.
        """
        options = self._options(expected)
        return self._run(job_of_images(self.predictor, images, masks, image_of, options))

    @no_context_mesh()
    def num_classes(self, image, masks, *, image_of=None) -> int:
        """Returns K of the logits that a call would give, with its checks, without computing them.

        The trace is kept: a call with the same arguments does not trace again. With `image_of`, the
        arguments are those of `images`.
        """
        if image_of is None:
            job = job_of_image(self.predictor, image, masks, self._options())
        else:
            job = job_of_images(self.predictor, image, masks, image_of, self._options())
        return programs.num_classes(job)

    @property
    def soft_masks(self) -> bool:
        """Whether the predictor declares that masks may hold values between 0 and 1."""
        return getattr(self.predictor, "soft_masks", False)

    @property
    def engines(self) -> tuple[str, ...]:
        """The engines that the predictor supports besides `"auto"`."""
        return getattr(self.predictor, "engines", ("dense",))

    def __post_init__(self):
        check_engine(self.engine, self.engines)
        if self.mesh is not None:
            check_mesh(self.mesh)
        if self.progress is not None:
            check_flag("progress", self.progress)
        if self.batch_size is not None:
            set_whole(self, "batch_size", least=1, note="or None")

    def _run(self, job: Job) -> np.ndarray:
        plan = make_plan(job, self.engine, engines=self.engines)
        logits = None
        found = results(plan.calls(job), job.threads)
        with original_errors(), contextlib.closing(found), _progress_bar(job, self.progress) as bar:
            for variants, answers in found:
                if logits is None:
                    logits = np.empty((job.num_variants, answers.shape[1]), np.float32)
                stop_if_noted()
                real = variants >= 0
                logits[variants[real]] = answers[real]
                bar.update(int(real.sum()))
                evaluated(int(real.sum()))
        assert logits is not None  # there is at least one variant
        return logits

    def _options(self, expected: int | None = None) -> Options:
        if expected is not None:
            expected = check_whole("expected", expected, least=1)
        return Options(self.batch_size, self.mesh, expected)


def as_evaluator(predictor: Callable | Evaluator) -> Evaluator:
    """Returns an evaluator as it is, and one with the default options for a predictor."""
    return predictor if isinstance(predictor, Evaluator) else Evaluator(predictor)


def as_predictor(predictor: Callable | Evaluator) -> Callable:
    """Returns the predictor of an evaluator, and a predictor as it is."""
    return predictor.predictor if isinstance(predictor, Evaluator) else predictor


def evaluate(predictor: Callable | Evaluator, image, masks, **options) -> np.ndarray:
    """Evaluates all variants of an image: `lmjax.Evaluator(predictor, **options)(image, masks)`.

    Cost: an evaluation of each mask.

    Example:
      >>> lmjax.evaluate(predictor, image, masks).shape
      (5, 2)

    Args:
      predictor: as in `lmjax.Evaluator`; or an evaluator, whose options are the defaults.
      image, masks: as in a call of an evaluator.
      **options: of `lmjax.Evaluator`: `engine`, `batch_size`, `mesh`, `progress`.

    Returns:
      Logits, float32 `[N, K]`.

    Raises:
      ValueError: what an evaluator raises.
    """
    return dataclasses.replace(as_evaluator(predictor), **options)(image, masks)


def _progress_bar(job: Job, progress: bool | None):
    automatic = progress is None
    return progress_bar(
        progress,
        total=job.num_variants,
        unit=" variants",
        desc=description() or None,
        worth_it=job.num_variants > job.batch_size,
        delay=1 if automatic else 0,
        leave=not automatic,
    )
