"""Networks of other frameworks: a function of weights and images becomes a classifier."""

import collections
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex

from lmjax._utils.checks import check_whole
from lmjax._utils.code import fingerprint
from lmjax._utils.summary import brief
from lmjax._utils.text import one_line, without_addresses
from lmjax.masking import layers
from lmjax.masking.checks import is_traced
from lmjax.masking.masked import Masked
from lmjax.masking.transform import LayerMasked, layer_mask
from lmjax.models.classifier import Classifier
from lmjax.models.inference_mode import check_inference_mode
from lmjax.models.preprocessing import Preprocessing
from lmjax.removals.masking import LayerMasking, Masking, PartialConvolution

Layout = Literal["NHWC", "NCHW"]
Variables = dict[str, dict[str, jax.Array]]

# Closed-over arrays of more entries are weights, and become arguments.
_LARGE = 1024
_SIZE = 224
# What frameworks call statistics, which training leaves alone: parts of names, last parts of names,
# and the types that hold them.
_STATISTICS = (
    *("batch_stats", "running_mean", "running_var"),
    *("moving_mean", "moving_var", "mean_ema", "var_ema"),
)
_LAST_OF_STATISTICS = ("mean", "var")
_HOLDERS = {("flax", "BatchStat"), ("flax", "RngState"), ("equinox", "State")}


def from_function(
    apply: Callable[[Any, jax.Array], jax.Array],
    params: Any,
    *,
    mean: Sequence[float] = (0.485, 0.456, 0.406),
    std: Sequence[float] = (0.229, 0.224, 0.225),
    class_names: Sequence[str] | None = None,
    layout: Layout = "NHWC",
    image_size: int | None = _SIZE,
    preprocessing: Preprocessing | None = None,
    fixed: Callable[[str], bool] | None = None,
) -> Classifier:
    """Makes a classifier of a network written in any framework on JAX, unmodified.

    Example:
      >>> apply = lambda variables, images: model.apply(variables, images, train=False)  # Flax
      >>> classifier = lmjax.models.from_function(apply, variables, class_names=names)
      >>> apply = lambda model, images: jax.vmap(model)(images)  # Equinox
      >>> classifier = lmjax.models.from_function(apply, model, layout="NCHW")
      >>> predictor = lmjax.Predictor(classifier, lmjax.LayerMasking())

    Args:
      apply: `(params, images) -> logits [N, K]`, pure. It is run as at inference: batch norms use
        their running statistics, dropout is off.
      params: its weights, any pytree. Leaves that are no arrays are passed as they are.
      mean, std: of the training images, one number for each channel, in [0, 1]; ImageNet's by
        default.
      class_names: one for each class, or None.
      layout: of the images that `apply` takes.
      image_size: side of the square images that the network was trained on, in pixels: photographs
        are resized to 8/7 of it, and cropped. None keeps photographs as they are.
      preprocessing: in the place of `mean`, `std` and `image_size`.
      fixed: function of a leaf's name that says what training leaves alone. None takes the
        statistics of batch norms as Flax, Haiku, Equinox, Keras and torch keep them. What is not
        floating point, and arrays that `apply` closes over, are always left alone.

    Returns:
      The classifier. Its weights are `variables["params"]` and, for what is fixed,
      `variables["batch_stats"]`, by names such as `"layer1.conv.kernel"`.

    Raises:
      ValueError: `apply` does not take `(params, images)` of this layout, gives no logits, computes
        statistics over the images of a batch or draws random numbers; class names of another
        number; another layout; `apply` is no function.
    """
    if not callable(apply):
        raise ValueError(f"apply must be a function (params, images) -> logits, got {brief(apply)}")
    if layout not in ("NHWC", "NCHW"):
        raise ValueError(f"layout must be 'NHWC' or 'NCHW', got {brief(layout)}")
    if preprocessing is None:
        if image_size is not None:
            image_size = check_whole("image_size", image_size, least=1, note="side of a square")
        for name, numbers in (("mean", mean), ("std", std)):
            if np.ndim(numbers) != 1:
                raise ValueError(f"{name} must be a number for each channel, got {brief(numbers)}")
        resize = None if image_size is None else image_size * 8 // 7
        preprocessing = Preprocessing(resize, image_size, mean=tuple(mean), std=tuple(std))
    call, variables = _bind(apply, params, fixed)
    size, channels = preprocessing.crop or _SIZE, len(preprocessing.mean)
    traced = call.trace(variables, _shape(size, channels, layout))
    check_inference_mode(traced.jaxpr, _of_three(call, variables, size, channels, layout))
    variables = call.hoist(variables, traced)
    num_classes = _num_classes(call, variables, _shape(size, channels, layout), layout)
    if class_names is not None and len(class_names) != num_classes:
        raise ValueError(
            f"class_names has {len(class_names)} names, and apply gives {num_classes} logits; give "
            "a name for each, in their order, or None"
        )
    one_size = not call.takes(variables, _shape(2 * size, channels, layout))
    module: Any = TracedNetwork(
        call, layout, num_classes, call.fingerprint, image_size=size if one_size else None
    )
    return Classifier(
        variables=variables,
        module=module,
        preprocessing=preprocessing,
        class_names=None if class_names is None else tuple(map(str, class_names)),
    )


def _shape(size: int, channels: int, layout: Layout, *, number: int = 2) -> tuple[int, ...]:
    return (number, size, size, channels) if layout == "NHWC" else (number, channels, size, size)


def _of_three(call: "Call", variables: Variables, *shape: Any) -> jex.Jaxpr | None:
    """Returns the network traced with three images; None where it does not take them."""
    try:
        return call.trace(variables, _shape(*shape, number=3)).jaxpr
    except ValueError:
        return None


class Call:
    """A network's function on named weights; equal only to itself.

    Attributes:
      apply: the function, `(params, images) -> logits`.
      keys: name of each leaf of the parameters that is an array.
      fingerprint: of what is computed, weights apart.
    """

    def __init__(self, apply: Callable, leaves: Sequence[Any], structure: Any, keys: Sequence[str]):
        self.apply, self.keys = apply, tuple(keys)
        self._leaves, self._structure = list(leaves), structure
        self.fingerprint = ""
        self._closed_over: list[Any] = []
        self._masked: dict[tuple, LayerMasked] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_masked": {}}  # traces cannot be copied

    @property
    def __name__(self) -> str:
        return getattr(self.apply, "__name__", type(self.apply).__name__)

    def params(self, variables: Variables) -> Any:
        """Returns the parameters as the function takes them."""
        named = {**variables.get("batch_stats", {}), **variables.get("params", {})}
        keys = iter(self.keys)
        leaves = [named[next(keys)] if leaf is _Array else leaf for leaf in self._leaves]
        return jax.tree.unflatten(self._structure, leaves)

    def __call__(self, variables: Variables, images: jax.Array) -> Any:
        """Runs the network."""
        if not self._closed_over:
            return self._run(variables, images)
        closed, results = jax.make_jaxpr(self._run, return_shape=True)(variables, images)
        consts = [variables["batch_stats"].get(self._name(c), c) for c in closed.consts]
        function = jex.jaxpr_as_fun(jex.ClosedJaxpr(closed.jaxpr, consts))
        outputs = function(*jax.tree.leaves((variables, images)))
        return jax.tree.unflatten(jax.tree.structure(results), outputs)

    def _run(self, variables: Variables, images: jax.Array) -> Any:
        return self.apply(self.params(variables), images)

    def trace(self, variables: Variables, shape: Sequence[int]) -> jex.ClosedJaxpr:
        """Traces the function with images of a shape; raises ValueError where it cannot be."""
        images = jax.ShapeDtypeStruct(tuple(shape), jnp.float32)
        try:
            return jax.make_jaxpr(self._run)(variables, images)
        except Exception as error:
            raise ValueError(_misfit(shape, error)) from error

    def hoist(self, variables: Variables, closed: jex.ClosedJaxpr) -> Variables:
        """Returns the weights with large arrays that the function closes over among them.

        Args:
          variables: the weights that the function is given.
          closed: the function, traced.
        """
        text = without_addresses(str(closed.jaxpr))
        self._closed_over = [c for c in closed.consts if np.size(c) > _LARGE]
        small = [c for c in closed.consts if np.size(c) <= _LARGE]
        self.fingerprint = fingerprint((text, *small))
        found = {self._name(c): jnp.asarray(c) for c in self._closed_over}
        return {**variables, "batch_stats": {**variables.get("batch_stats", {}), **found}}

    def takes(self, variables: Variables, shape: Sequence[int]) -> bool:
        """Returns whether the function runs on images of another shape."""
        try:
            jax.eval_shape(self, variables, jax.ShapeDtypeStruct(tuple(shape), jnp.float32))
        except Exception:
            return False
        return True

    def _name(self, array: Any) -> str:
        """The name of an array that the function closes over; none for any other.

        NumPy arrays become new ones in each trace, so what is not the same object is compared.
        """
        if np.size(array) <= _LARGE:
            return ""
        same = [i for i, known in enumerate(self._closed_over) if known is array]
        equal = same or [i for i, known in enumerate(self._closed_over) if _equal(known, array)]
        return f"closed_over.{equal[0]}" if equal else ""

    def masked(self, masking: LayerMasking | PartialConvolution, layout: Layout) -> LayerMasked:
        """Returns the function under layer masking."""
        key = masking.padding, masking.depth, layout
        if key not in self._masked:
            options: dict[str, Any] = {"padding": masking.padding, "until": masking.depth}
            self._masked[key] = layer_mask(self, layout=layout, **options)
        return self._masked[key]


class _Array:
    """Stands for an array among the leaves; a class, which stays itself where it is copied."""


def _bind(
    apply: Callable, params: Any, fixed: Callable[[str], bool] | None
) -> tuple[Call, Variables]:
    paths, structure = jax.tree_util.tree_flatten_with_path(params)
    names = _names([path for path, _ in paths])
    held = _held_with_statistics(params)
    variables: Variables = {"params": {}, "batch_stats": {}}
    leaves, keys = [], []
    for name, (_, leaf), holds in zip(names, paths, held, strict=True):
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic) or _is_key(leaf):
            leaves.append(leaf)
            continue
        stays = (holds or _is_statistic(name)) if fixed is None else fixed(name)
        trained = jnp.issubdtype(leaf.dtype, jnp.floating) and not stays
        if not isinstance(leaf, jax.Array):
            # A copy of one's own array, whose memory JAX may use. jnp.asarray compiles a program
            # for every shape.
            leaf = jax.device_put(np.array(leaf))
        variables["params" if trained else "batch_stats"][name] = leaf
        leaves.append(_Array)
        keys.append(name)
    return Call(apply, leaves, structure, keys), variables


def _names(paths: Sequence[Any]) -> list[str]:
    """Dotted names of leaves; with the leaf's number where names would be equal."""
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path in paths]
    names = [name.removesuffix(".value") or "weights" for name in names]  # so Flax NNX names leaves
    counts = collections.Counter(names)
    return [n if counts[n] == 1 else f"{n}.{i}" for i, n in enumerate(names)]


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _is_statistic(name: str) -> bool:
    return name.split(".")[-1] in _LAST_OF_STATISTICS or any(part in name for part in _STATISTICS)


def _held_with_statistics(params: Any) -> list[bool]:
    """Whether each leaf is in an object that holds statistics alone."""

    def holds(node: Any) -> bool:
        kinds = {(each.__module__.split(".")[0], each.__name__) for each in type(node).__mro__}
        return bool(kinds & _HOLDERS)

    def marks(node: Any) -> list[bool]:
        return [holds(node)] * len(jax.tree.leaves(node))

    return [mark for node in jax.tree.leaves(params, is_leaf=holds) for mark in marks(node)]


def _equal(one: Any, other: Any) -> bool:
    alike = np.shape(one) == np.shape(other) and one.dtype == other.dtype
    return alike and not is_traced(other) and np.array_equal(one, other)


def _misfit(shape: Sequence[int], error: Exception) -> str:
    reason = one_line(error)[:300]
    return (
        f"apply must take (params, images), images of shape {list(shape)}; it raised "
        f"{type(error).__name__}: {reason}. Check the order of its arguments, `layout` "
        "('NHWC' or 'NCHW') and `image_size`"
    )


def _num_classes(call: Call, variables: Variables, shape: Sequence[int], layout: Layout) -> int:
    images = jax.ShapeDtypeStruct(tuple(shape), jnp.float32)
    result = jax.eval_shape(call, variables, images)
    found = jax.tree.map(lambda x: list(x.shape), result)
    if not hasattr(result, "shape") or len(result.shape) != 2 or result.shape[0] != shape[0]:
        raise ValueError(
            f"apply must return logits [N, K], got {found} for images {list(shape)} ({layout}); "
            "wrap it to pick them: lambda params, images: apply(params, images)['logits']"
        )
    return result.shape[1]


@dataclasses.dataclass(frozen=True, repr=False)
class TracedNetwork:
    """A network that is a function, in the place of a Flax module.

    Attributes:
      call: the function, on named weights.
      layout: of the images that it takes.
      num_classes: number of logits.
      fingerprint: tells it from other functions in the records of studies.
      masking: how masks go through it. Its `depth` is the name of the module from which on the
        network is plain.
      image_size: height and width of the images, where it takes one size only; else None.
      train: for training; the function stays as it is, so batch norms keep their statistics.
    """

    call: Call
    layout: Layout
    num_classes: int
    fingerprint: str
    masking: Masking = dataclasses.field(default_factory=LayerMasking)
    train: bool = False
    image_size: int | None = None
    dtype = jnp.float32

    def __repr__(self) -> str:
        return f"TracedNetwork({self.call.__name__}, {self.fingerprint})"

    def clone(self, **options: Any) -> "TracedNetwork":
        """Returns the network with other settings."""
        dtype = options.pop("dtype", self.dtype)
        if jnp.dtype(dtype) != self.dtype:
            raise ValueError(
                f"dtype must be float32 for a network that is a function, got {jnp.dtype(dtype)}; "
                "convert its weights and images in `apply`"
            )
        return dataclasses.replace(self, **options)

    def apply(self, variables: Variables, inputs: Any, *, mutable: Any = False) -> Any:
        """Returns logits `[N, K]`, float32; with `mutable`, the statistics as well."""
        self._check_size(inputs.x.shape)
        inputs = inputs._replace(x=inputs.x.astype(self.dtype))  # as the function was traced with
        if isinstance(inputs, Masked) and inputs.mask is None:
            images = inputs.x if self.layout == "NHWC" else jnp.moveaxis(inputs.x, -1, 1)
            logits = self.call(variables, images)
        else:
            masked = self.call.masked(self._through_layers(), self.layout)
            logits = masked.run(variables, layers.mask_input(inputs))
        logits = logits.astype(jnp.float32)
        kept = {"batch_stats": variables.get("batch_stats", {})}
        return (logits, kept) if mutable else logits

    def _check_size(self, shape: Sequence[int]) -> None:
        size = self.image_size
        if size is not None and tuple(shape[1:3]) != (size, size):
            raise ValueError(
                f"images must be {size} x {size} pixels, the one size that this network takes; got "
                f"{shape[1]} x {shape[2]}. classifier.preprocessing(photograph) makes them so; for "
                "another size make the classifier again, with image_size= or an example of it"
            )

    def _through_layers(self) -> LayerMasking | PartialConvolution:
        """Its masking, with a depth that it can have."""
        assert isinstance(self.masking, LayerMasking | PartialConvolution)
        if isinstance(self.masking.depth, int):
            raise ValueError(
                f"depth is {self.masking.depth}, a number of blocks; of a network that is a "
                "function give the name of the module from which on it is plain, such as 'layer2'"
            )
        return self.masking
