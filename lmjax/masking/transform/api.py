"""`lmjax.layer_mask`: any network, unmodified, under layer masking."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from lmjax._utils.checks import check_choice, check_flag
from lmjax._utils.sharding import context_mesh
from lmjax._utils.summary import brief
from lmjax.masking import layers
from lmjax.masking.checks import check_mask
from lmjax.masking.masked import Masked
from lmjax.masking.transform import rules
from lmjax.masking.transform.elementwise import elementwise
from lmjax.masking.transform.nodes import LayerMaskError, Node, full_size
from lmjax.masking.transform.operation import Rule
from lmjax.masking.transform.plan import Plan
from lmjax.masking.transform.symbols import Symbol
from lmjax.masking.transform.tracing import Trace, realised

# Shapes for which traces are kept; the oldest goes first.
_MOST_TRACES = 64

Layout = Literal["NHWC", "NCHW"]

_IMAGE_AXES = {"NHWC": ((0,), (1,), (2,), (3,)), "NCHW": ((0,), (3,), (1,), (2,))}


def layer_mask(
    function: Callable[[Any, jax.Array], Any],
    *,
    padding: Literal["neighbor", "none", "partial"] = "neighbor",
    until: str | None = None,
    layout: Layout = "NHWC",
    shortcuts: bool = True,
) -> "LayerMasked":
    """Transforms a network into one that computes with visible positions only.

    The function is traced once for each shape, and every operation is replaced by its masked
    counterpart; the network itself stays as it is.

    Example:
      >>> masked = lmjax.layer_mask(network)
      >>> masked(weights, image[None], object_mask[None]).shape
      (1, 2)

    Args:
      function: `(params, images) -> logits`, pure; any pytree of parameters, written in any
        framework on JAX. Batch norms and dropout must be those of inference.
      padding: what a convolution sees beside the visible region, `"neighbor"`, `"none"` or
        `"partial"`, as in `lmjax.LayerMasking` and `lmjax.PartialConvolution`.
      until: name of a module (as in `jax.named_scope`, which Flax, Haiku and Equinox set) from
        which on the network is plain: the `depth` of `lmjax.LayerMasking`. None masks all the way.
      layout: of the images that the function takes.
      shortcuts: whether convolutions compute only what later layers read, which is exact. False
        runs the authors' full recipe, for tests.

    Returns:
      `masked(params, images, masks)`; see `LayerMasked`.

    Raises:
      ValueError: an option that is not one of those above.
    """
    if not callable(function):
        raise ValueError(f"function must be callable as (params, images), got {brief(function)}")
    if until is not None and not isinstance(until, str):
        raise ValueError(f"until must be the name of a module, or None; got {brief(until)}")
    check_choice("padding", padding, ("neighbor", "none", "partial"))
    check_choice("layout", layout, _IMAGE_AXES)
    return LayerMasked(function, padding, until, layout, check_flag("shortcuts", shortcuts))


def register_rule(primitive: str, rule: Rule | Literal["elementwise"]) -> None:
    """Gives a primitive its masked counterpart.

    Args:
      primitive: its name, as in `jax.make_jaxpr`.
      rule: `"elementwise"` for one that works entry by entry; else a function of an
        `lmjax.masking.transform.operation.Operation` and a node for each operand, which returns a
        node, or a list of them. `operation.instead(function, *nodes)` masks a function of arrays in
        the primitive's place; the rules of `lmjax.masking.transform` show what else there is.

    Raises:
      ValueError: `rule` is neither.

    Example: a kernel of one's own that computes `jax.nn.silu`.

      >>> register_rule("fused_silu", lambda operation, x: operation.instead(jax.nn.silu, x))
    """
    if rule != "elementwise" and not callable(rule):
        raise ValueError(f"rule must be a function or 'elementwise', got {brief(rule)}")
    rules.RULES[primitive] = elementwise if isinstance(rule, str) else rule


class _Traced(NamedTuple):
    """A traced function.

    Attributes:
      plan: computes its results.
      outputs: nodes of the results.
      image: node of the images.
      given: nodes of the parameters and of constants, in order.
      constants: values of the latter.
      structure: of the results.
    """

    plan: Plan
    outputs: tuple[Node, ...]
    image: Node
    given: tuple[Node, ...]
    constants: tuple[Any, ...]
    structure: Any


class LayerMasked:
    """A network under layer masking, made by `lmjax.layer_mask`.

    Attributes:
      function: the network, `(params, images) -> logits`.
      padding, until, layout, shortcuts: as in `layer_mask`.
    """

    def __init__(
        self, function: Callable, padding: str, until: str | None, layout: Layout, shortcuts: bool
    ):
        self.function, self.padding, self.until = function, padding, until
        self.layout, self.shortcuts = layout, shortcuts
        self._traced: dict[Any, _Traced] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_traced": {}}  # traces cannot be copied

    def __repr__(self) -> str:
        name = getattr(self.function, "__name__", type(self.function).__name__)
        return f"LayerMasked({name}, padding={self.padding!r}, until={self.until!r})"

    def __call__(self, params: Any, images: jax.Array, masks: jax.Array) -> Any:
        """Returns the results of the network, each image under its mask.

        Args:
          params: as the network takes them.
          images: `[N, H, W, C]`, or `[N, C, H, W]` under `layout="NCHW"`. Hidden pixels are never
            read.
          masks: `[N, H, W]`, 1 = visible.

        Returns:
          What the network returns; where results have positions (a segmentation map), hidden ones
          are 0.

        Raises:
          LayerMaskError: the network does something that has no rule; names the operation, and the
            line in the network.
          ValueError: images or masks of another shape.
        """
        images = self._check_images(images)
        if self.layout == "NCHW":
            images = jnp.moveaxis(images, 1, -1)
        checked: Any = check_mask(masks, images.shape[:3])
        return self.run(params, layers.mask_input(Masked(images, jnp.asarray(checked))))

    def run(self, params: Any, inputs: Any) -> Any:
        """Returns the results for masked images, full-size (`Masked`) or on rows (`Pixels`).

        Args:
          params: as the network takes them.
          inputs: images `[N, H, W, C]` with masks, channels last.
        """
        try:
            traced = self.trace(params, inputs.x)
        except LayerMaskError as error:
            return self._run_alone(params, inputs, error)
        leaves = jax.tree.leaves(params)
        values = dict(zip(traced.given, (*leaves, *traced.constants)))
        results = traced.plan.run({**values, traced.image: inputs})
        arrays = [_result(*pair) for pair in zip(traced.outputs, results)]
        return jax.tree.unflatten(traced.structure, arrays)

    def _run_alone(self, params: Any, inputs: Any, error: LayerMaskError) -> Any:
        """Returns the results for one image as the first of two, or raises the error.

        `jnp.matmul` drops a batch of one, which no rule can follow.
        """
        if len(inputs.x) != 1 or not isinstance(inputs, Masked):
            raise error
        given: Any = inputs
        twice = Masked(*(jnp.concatenate([each, each]) for each in given))
        try:
            self.trace(params, twice.x)
        except LayerMaskError:
            raise error from None
        return jax.tree.map(lambda result: result[:1], self.run(params, twice))

    def trace(self, params: Any, images: Any) -> _Traced:
        """Returns the traced network, for parameters and images `[N, H, W, C]` of some shape."""
        leaves, structure = jax.tree.flatten(params)
        for leaf in leaves:
            if isinstance(leaf, str | bytes):
                raise ValueError(f"params must be arrays, in any pytree; got {brief(leaf)}")
        avals = tuple((jnp.shape(x), jnp.result_type(x), _is_weak(x)) for x in leaves)
        # The mesh of the context is part of the types in a trace, the precision of its products.
        precision = getattr(jax.config, "jax_default_matmul_precision")  # noqa: B009 - no stub
        key = structure, avals, tuple(images.shape), images.dtype, context_mesh(), precision
        if key in self._traced:
            return self._traced[key]
        traced = self._trace(params, images)
        if not any(isinstance(c, Tracer) for c in traced.constants):
            if len(self._traced) >= _MOST_TRACES:
                del self._traced[next(iter(self._traced))]
            self._traced[key] = traced
        return traced

    def _trace(self, params: Any, images: Any) -> _Traced:
        n, height, width, channels = images.shape
        shape = images.shape if self.layout == "NHWC" else (n, channels, height, width)
        aval = jax.ShapeDtypeStruct(shape, images.dtype)
        closed, results = self._jaxpr(params, aval)
        trace = Trace(padding=self.padding, until=self.until)
        image = Node(
            aval,
            mask=Symbol((n, height, width)),
            axes=_IMAGE_AXES[self.layout],
            channels=(channels,),
        )
        weights = [Node(v.aval) for v in closed.jaxpr.invars[:-1]]
        constants = [trace.given(c) for c in closed.consts]
        outputs = trace.evaluate(closed.jaxpr, constants, [*weights, image])
        self._check_until(trace)
        given = (*weights, *constants)
        outputs = tuple(realised(trace, x) if x.masked else x for x in outputs)
        plan = Plan(outputs, [*given, image], shortcuts=self.shortcuts)
        structure = jax.tree.structure(results)
        return _Traced(plan, outputs, image, given, tuple(closed.consts), structure)

    def _jaxpr(self, params: Any, images: Any) -> Any:
        try:
            return jax.make_jaxpr(self.function, return_shape=True)(params, images)
        except Exception as error:
            error.add_note(
                "layer_mask: function must take (params, images); it was called with images of "
                f"shape {images.shape}, {self.layout}, and parameters of structure "
                f"{_shown(jax.tree.structure(params))}"
            )
            raise

    def _check_until(self, trace: Trace) -> None:
        if self.until is None or trace.ended:
            return
        names = dict.fromkeys(part for scope in trace.scopes for part in scope.split("/") if part)
        raise ValueError(
            f"until must be the name of a module of the network, got {brief(self.until)}; "
            f"it has {', '.join(list(names)[:40]) or 'no named modules'}"
        )

    def _check_images(self, images: Any) -> jax.Array:
        given = getattr(images, "shape", None)
        if given is None or len(given) != 4:
            what = type(images).__name__ if given is None else f"shape {given}"
            raise ValueError(
                f"images must be {self.layout}, an array of 4 axes, got {what}; the arguments are "
                "(params, images, masks)"
            )
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise ValueError(
                f"images must be floating point and normalised, got dtype {images.dtype}"
            )
        return jnp.asarray(images)


def _is_weak(leaf: Any) -> bool:
    """Returns whether a parameter takes the type of what it meets, as Python's numbers do."""
    return getattr(leaf, "weak_type", type(leaf) in (bool, int, float, complex))


def _shown(structure: Any) -> str:
    text = str(structure)
    return text if len(text) < 200 else f"{text[:200]}..."


def _result(node: Node, value: Any) -> Any:
    if not node.masked:
        return value if node.stored == node.shape else jnp.broadcast_to(value, node.shape)
    return node.array(full_size(value))
