"""Networks and other functions that are not JAX, in the place of a classifier."""

import dataclasses
import threading
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lmjax._utils import host
from lmjax._utils.summary import brief
from lmjax.models.preprocessing import Preprocessing


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, repr=False)
class BlackBox:
    """A function that is not JAX, with what `lmjax.Predictor` asks of a classifier.

    Made by `black_box`. A pytree without leaves.

    Attributes:
      function: of NumPy arrays `[N, ...]` to results `[N, ...]`.
      preprocessing: from a photograph to the image that the function is given, and the colour of
        `"grey"`.
      class_names: a name for each class, or None.
      where: `"input"`: no mask goes into it, so that only removals that paint apply.
      sparse: False: it runs in the engine `"dense"`.
    """

    function: Callable
    preprocessing: Preprocessing = dataclasses.field(
        default=Preprocessing(resize=None, crop=None), kw_only=True
    )
    class_names: tuple[str, ...] | None = dataclasses.field(default=None, kw_only=True)
    _kept: "_Kept" = dataclasses.field(
        default_factory=lambda: _Kept(), init=False, compare=False, hash=False
    )

    where = "input"
    sparse = False

    def normalise(self, images: jax.Array) -> jax.Array:
        """Returns images as they are: the function takes display colours."""
        return images

    def apply(
        self, images: jax.Array, masks: jax.Array | None = None, *, masking: Any = None
    ) -> jax.Array:
        """Returns the function's logits `[N, K]`.

        Args:
          images: `[N, H, W, C]` in [0, 1].
          masks, masking: must be None.

        Raises:
          ValueError: masks, which cannot go into a function that JAX does not see; results of
            another shape.
        """
        if masks is not None:
            raise ValueError(
                f"removal must be one that paints, such as 'grey' or lmjax.Fill(...): masks cannot "
                f"go into {self!r}, whose layers JAX does not see; got {brief(masking)}"
            )
        shape = self._shape_of_result(images)
        if len(shape) != 1:
            raise ValueError(f"{self!r} must return logits [N, K], got {[1, *shape]} for N = 1")
        return host.call_batch(self._call, shape, images)

    def __call__(self, *arguments: jax.Array | None) -> jax.Array:
        """Returns the function's result for one example, such as an image, a mask and a key.

        Under `vmap` all examples are one batch. So a black box is the function of `lmjax.Fill`,
        which calls it with images `[N, H, W, C]`, masks `[N, H, W]` and raw keys, uint32
        `[N, 2]`; without a key, with images and masks alone.

        Args:
          *arguments: arrays without the leading axis that the function sees; None is left out.
        """
        batch = [_raw(each)[None] for each in arguments if each is not None]
        return host.call_batch(self._call, self._shape_of_result(*batch), *batch)[0]

    @property
    def _call(self) -> "_Call":
        return _Call(self)

    def _shape_of_result(self, *arrays: jax.Array) -> tuple[int, ...]:
        """The shape of one result, from a call with ones, made once for each shape."""
        key = tuple((x.shape[1:], np.dtype(x.dtype)) for x in arrays)
        if key not in self._kept.shapes:
            ones = [np.ones((1, *shape), dtype) for shape, dtype in key]
            self._kept.shapes[key] = self._run(*ones).shape[1:]
        return self._kept.shapes[key]

    def _run(self, *arrays: np.ndarray) -> np.ndarray:
        """The function's results, float32; by one thread at a time."""
        try:
            with self._kept.lock:
                results = np.asarray(self.function(*arrays), np.float32)
        except Exception as error:
            shapes = ", ".join(str(list(each.shape)) for each in arrays)
            raise ValueError(
                f"{self!r} raised {type(error).__name__} for arrays of shape {shapes}: {error}"
            ) from error
        if results.shape[:1] != (len(arrays[0]),):
            raise ValueError(
                f"{self!r} must return an array with a row for each of its "
                f"{len(arrays[0])} inputs, got shape {results.shape}"
            )
        return results

    def __repr__(self) -> str:
        return f"BlackBox({brief(self.function)})"


class _Kept:
    """State that is no part of what a black box is."""

    def __init__(self) -> None:
        self.shapes: dict[tuple, tuple[int, ...]] = {}
        self.lock = threading.RLock()

    def __reduce__(self) -> tuple:
        return _Kept, ()  # a copy learns anew: locks cannot be copied


@dataclasses.dataclass(frozen=True)
class _Call:
    """The host function of a black box, equal where the boxes are, so that programs are reused."""

    box: BlackBox

    def __call__(self, *arrays: np.ndarray) -> np.ndarray:
        return self.box._run(*arrays)


def black_box(
    function: Callable,
    *,
    preprocessing: Preprocessing | None = None,
    class_names: Sequence[str] | None = None,
) -> BlackBox:
    """Makes a function that is not JAX, such as a network in torch, usable in `lmjax.Predictor`.

    The function is called on the host, with whole batches of NumPy arrays. It must give the same
    results for the same arguments, and must not call JAX itself, since a compiled program waits for
    it. Gradients do not pass through it.

    Example:
      >>> def network(images):  # [N, H, W, 3] float32 in [0, 1] -> [N, K]
      ...     x = torch.from_numpy(images).permute(0, 3, 1, 2)
      ...     with torch.inference_mode():
      ...         return model(normalise(x)).numpy()
      >>> predictor = lmjax.Predictor(lmjax.black_box(network), "grey")
      >>> logits = lmjax.evaluate(predictor, image, masks)

    Args:
      function: as a network, images `[N, H, W, C]` in [0, 1], float32, to logits `[N, K]`; it
        normalises them itself. As the function of `lmjax.Fill`, (images `[N, H, W, C]`, masks
        bool `[N, H, W]`, keys uint32 `[N, 2]` unless the fill has none) to images
        `[N, H, W, C]`. It is called once with ones to find out the shape of its results.
      preprocessing: resize and crop from photographs to its images, and the mean colour, which is
        that of `"grey"`. None leaves the size and takes ImageNet's mean.
      class_names: one for each class, or None.

    Raises:
      ValueError: not a function.
    """
    if not callable(function):
        raise ValueError(f"function must be callable, got {type(function).__name__}")
    return BlackBox(
        function,
        preprocessing=preprocessing or Preprocessing(resize=None, crop=None),
        class_names=None if class_names is None else tuple(class_names),
    )


def _raw(array: Any) -> jax.Array:
    array = jnp.asarray(array)
    is_key = jnp.issubdtype(array.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(array) if is_key else array
