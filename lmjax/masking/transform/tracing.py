"""Tracing a function: every operation becomes nodes, by the rule of its primitive.

Nothing is computed here, except small arrays that do not depend on weights or images (indices,
matrices that resize), whose values rules need to know.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer, eval_context
from jax.extend import core as jex

from lmjax.masking import layers
from lmjax.masking.transform.nodes import LayerMaskError, Node, full_size
from lmjax.masking.transform.operation import CUSTOM_CALLS, PLAIN_CALLS, RULES, Operation
from lmjax.masking.transform.origins import Axes, Outside
from lmjax.masking.transform.plain import ELEMENTWISE, plain_operation
from lmjax.masking.transform.shares import follow_shares
from lmjax.masking.transform.symbols import Symbol
from lmjax.masking.transform.weights import follow

# Arrays of at most this many entries are computed while tracing, where their values are known.
_FOLDED = 1 << 22
# Floating-point constants of more entries are weights: they stay arguments.
_WEIGHTS = 1 << 16
# Operations that an axis of positions and channels passes through, or that end it.
_TAKE_MERGED = (ELEMENTWISE | PLAIN_CALLS | CUSTOM_CALLS) | {
    *("reshape", "transpose", "broadcast_in_dim", "squeeze", "expand_dims"),
    *("dot_general", "reduce_sum", "reduce_max", "reduce_min", "optimization_barrier"),
}


class Trace:
    """Turns the equations of a jaxpr into nodes.

    Attributes:
      padding: what a convolution sees beside the visible region, as in `lmjax.LayerMasking`.
      until: name of the module from which on the network is plain, or None.
      ended: whether that module has been met.
      scopes: the modules met so far, for the error where `until` is none of them.
    """

    def __init__(self, *, padding: str = "neighbor", until: str | None = None):
        self.padding, self.until, self.ended = padding, until, False
        self.scopes: dict[str, None] = {}

    # Nodes.

    def plain(self, aval: Any, inputs: Sequence[Node] = (), run=None, **known: Any) -> Node:
        """Returns a node without hidden positions; its value where all inputs' values are known."""
        node = Node(aval, inputs, run, **known)
        if run is None:
            return node
        foldable = math.prod(node.stored) <= _FOLDED and not jnp.issubdtype(
            node.dtype, jax.dtypes.extended
        )
        if foldable and all(x.constant is not None for x in inputs):
            with eval_context():
                constant = run(*(x.constant for x in inputs))
            node.constant = np.asarray(constant).reshape(node.stored)
            node.inputs, node.run = (), lambda value=node.constant: jnp.asarray(value)
        return node

    def given(self, value: Any) -> Node:
        """Returns a node for a constant of the traced function."""
        node = Node(jax.typeof(value))
        is_weight = math.prod(node.shape) > _WEIGHTS and jnp.issubdtype(node.dtype, jnp.floating)
        is_key = jnp.issubdtype(node.dtype, jax.dtypes.extended)
        if not (isinstance(value, Tracer) or is_weight or is_key):
            node.constant = np.asarray(value)
        return node

    def literal(self, value: Any, aval: Any) -> Node:
        """Returns a node for a number in the jaxpr."""
        number = np.asarray(value, aval.dtype)
        return Node(aval, (), lambda: number, constant=number)

    def masked(
        self,
        aval: Any,
        inputs: Sequence[Node],
        run: Any,
        *,
        mask: Symbol,
        axes: Axes,
        channels: Sequence[int],
        outside: Outside | None = None,
    ) -> Node:
        """Returns a node with positions; a plain one where it has only one and no axis for it."""
        axes = tuple(map(tuple, axes))
        node = Node(aval, inputs, run, mask=mask, axes=axes, channels=channels, outside=outside)
        return self.settled(node)

    def settled(self, node: Node) -> Node:
        """Returns a node, or a plain one where it has one position and no axis for it."""
        return node if self._has_positions(node) else self._without_positions(node)

    @staticmethod
    def _has_positions(node: Node) -> bool:
        return node.symbol.positions > 1 or any(
            node.of_positions(axis) for axis in range(len(node.shape))
        )

    def _without_positions(self, node: Node) -> Node:
        """The only position of each image, 0 where it is hidden."""

        def run(value: Any) -> jax.Array:
            x = full_size(value)
            return _clean(node.array(x), node.mask_array(x.mask))

        aval = jax.ShapeDtypeStruct(node.shape, node.dtype)
        return self.plain(aval, [node], run)

    def full(self, node: Node) -> Node:
        """Returns a plain node held at its full shape."""
        if node.stored == node.shape:
            return node
        aval = jax.ShapeDtypeStruct(node.shape, node.dtype)
        return self.plain(aval, [node], lambda value: jnp.broadcast_to(value, node.shape))

    def array(self, node: Node) -> Node:
        """Returns the traced array of a node with positions, zeros where hidden, as a plain one."""
        node = realised(self, node)

        def run(value: Any) -> jax.Array:
            return node.array(full_size(layers.unmask(value)))

        return node.symbol.once(
            ("array", node),
            lambda: self.plain(jax.ShapeDtypeStruct(node.shape, node.dtype), [node], run),
        )

    # Equations.

    def evaluate(
        self,
        jaxpr: jex.Jaxpr,
        consts: Sequence[Node],
        args: Sequence[Node],
        caller: Operation | None = None,
    ) -> list[Node]:
        """Returns the nodes of a jaxpr's results.

        Args:
          jaxpr: to evaluate.
          consts, args: nodes of its constants and arguments.
          caller: the operation whose function this is, or None.
        """
        nodes: dict[jex.Var, Node] = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args)))

        def read(variable: Any) -> Node:
            if isinstance(variable, jex.Literal):
                return self.literal(variable.val, variable.aval)
            return nodes[variable]

        for equation in _used(jaxpr):
            if _is_empty(equation):
                nodes.update((v, self.plain(v.aval, (), _zeros(v.aval))) for v in equation.outvars)
                continue
            operands = [read(v) for v in equation.invars]
            operation = Operation(self, equation, jaxpr, caller)
            results = self._apply(operation, operands)
            nodes.update(zip(equation.outvars, results))
        return [read(v) for v in jaxpr.outvars]

    def _apply(self, operation: Operation, operands: Sequence[Node]) -> Sequence[Node]:
        self._enter(operation.scope)
        if self.ended:
            operands = [self.array(x) if x.masked else x for x in operands]
        if not any(x.masked for x in operands):
            return plain_operation(operation, operands)
        try:
            _check_merged(operation, operands)
            if operation.name not in RULES:
                operation.fail(
                    "there is no rule for this primitive; give it one with "
                    "lmjax.masking.register_rule, or write the network without it"
                )
            results = RULES[operation.name](operation, *operands)
            results = results if isinstance(results, list) else [results]
            follow(operation, operands, results)
            follow_shares(operation, operands, results)
        except LayerMaskError as error:
            if getattr(error, "explained", False):
                raise
            explained = LayerMaskError(operation.explain(operands, str(error)))
            explained.explained = True  # type: ignore[attr-defined]
            raise explained from None
        return results

    def _enter(self, scope: str) -> None:
        if self.until is None or self.ended:
            return
        self.scopes[scope] = None
        # torch's modules are one name, with dots: "layer3.0" holds "layer3.0.conv1".
        self.ended = f"/{self.until}/" in f"/{scope}/" or f"/{self.until}." in f"/{scope}/"


def _check_merged(operation: Operation, operands: Sequence[Node]) -> None:
    """Refuses what would take the zeros of a flattened image for observed values.

    Sums, means and maxima along an axis of positions and channels take the visible positions alone,
    and a reshape back finds the grid again. A dense layer, whose weights differ between positions,
    finds zeros in the place of hidden ones.
    """
    if operation.name in _TAKE_MERGED or not any(x.masked and x.merged for x in operands):
        return
    operation.fail(
        "it goes along an axis in which positions and channels were merged (a flattened image), "
        "where hidden positions would count as zeros; only dense layers, operations entry by "
        "entry, sums and maxima can follow. Keep the axes apart, or go on behind a dense layer"
    )


def _used(jaxpr: jex.Jaxpr) -> list[jex.JaxprEqn]:
    """Returns the equations that results depend on; what nothing reads needs no rule."""
    read, used = {v for v in jaxpr.outvars if not isinstance(v, jex.Literal)}, []
    for equation in reversed(jaxpr.eqns):
        if equation.effects or not read.isdisjoint(equation.outvars):
            if not _is_empty(equation):  # as the edges of a pad by 0
                read.update(v for v in equation.invars if not isinstance(v, jex.Literal))
            used.append(equation)
    return used[::-1]


def _zeros(aval: Any) -> Callable[[], jax.Array]:
    return lambda: jnp.zeros(aval.shape, aval.dtype)


def _is_empty(equation: jex.JaxprEqn) -> bool:
    return not equation.effects and all(0 in getattr(v.aval, "shape", ()) for v in equation.outvars)


def _clean(array: jax.Array, mask: jax.Array) -> jax.Array:
    return jnp.where(mask, array, jnp.zeros((), array.dtype))


def realised(trace: Trace, node: Node) -> Node:
    """Returns a node whose positions outside the image are positions like others, and known.

    For operations that cannot keep them apart. What meets them there decides what is visible.
    """
    if node.outside is None:
        return node
    return node.symbol.once(("realised", node), lambda: _realised(trace, node))


def _realised(trace: Trace, node: Node) -> Node:
    assert node.outside is not None
    pads = node.outside.pads
    inner = [n - p - q for n, (p, q) in zip(_padded(node), pads)]
    assert tuple(inner) == node.grid
    shape = _padded(node)
    mask = node.symbol.other(("realised", pads), shape)
    result = Node(
        jax.ShapeDtypeStruct(node.shape, node.dtype),
        (node, node.outside.fill),
        mask=mask,
        axes=node.axes,
        channels=node.channels,
    )

    def run(value: Any, fill: jax.Array) -> Any:
        x, known = full_size(value)
        inside = jnp.pad(jnp.ones(node.grid, bool), pads)
        around = result.store(jnp.broadcast_to(fill, node.shape).astype(x.dtype))
        x = jnp.where(inside[..., None], jnp.pad(x, (*pads, (0, 0))), around)
        return layers.Masked(x, jnp.pad(known, pads, constant_values=True))

    result.run = run
    return result


def _padded(node: Node) -> tuple[int, ...]:
    return tuple(n + p + q for n, (p, q) in zip(node.grid, node.pads))
