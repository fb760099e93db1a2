"""Operations that work entry by entry on arrays of one shape: arithmetic, activations, gates."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.masking.transform.grids import grid_axes, meet, placed
from lmjax.masking.transform.merged import in_order, put_back
from lmjax.masking.transform.nodes import LayerMaskError, Node
from lmjax.masking.transform.operation import RULES, Operation, rule
from lmjax.masking.transform.origins import Outside
from lmjax.masking.transform.plain import ELEMENTWISE, bind_alike
from lmjax.masking.transform.pointwise import Pointwise, pointwise
from lmjax.masking.transform.tracing import Trace, realised

_RISKY = frozenset(
    [
        *("acos", "acosh", "asin", "atan2", "atanh", "cbrt", "cosh", "digamma", "div", "erf_inv"),
        *("exp", "exp2", "expm1", "integer_pow", "lgamma", "log", "log1p", "pow", "rem", "rsqrt"),
        *("sinh", "sqrt", "tan"),
    ]
)


def elementwise(operation: Operation, *operands: Node) -> Node:
    """Returns the node of an operation that works entry by entry."""
    node = combine(operation.trace, operation.aval, operands, lambda *a: bind_alike(operation, a))
    if isinstance(node, Pointwise):
        node.risky = _is_risky(operation, operands)
    return node


def _is_risky(operation: Operation, operands: Sequence[Node]) -> bool:
    """Whether the slope may be infinite where operands are 0."""
    if operation.name == "div":
        divisor = operands[1].constant
        return divisor is None or not divisor.all()
    if operation.name == "integer_pow":
        return operation.params["y"] < 1
    return operation.name in _RISKY


def combine(trace: Trace, aval: Any, operands: Sequence[Node], function: Callable) -> Node:
    """Returns the node of a function that works entry by entry on arrays of one shape.

    Args:
      trace: to add it to.
      aval: shape and dtype of the result.
      operands: nodes that broadcast to its shape, at least one with positions.
      function: takes arrays that broadcast to each other.
    """
    operands, outside = around(trace, operands, aval, function)
    operands, orders = in_order(trace, operands)
    operands, target = meet(trace, operands)
    adapted = [target.spread(x) if x.masked else None for x in operands]
    given = [x if x.masked else placed(trace, x, target) for x in operands]

    def run(*arrays: jax.Array) -> jax.Array:
        arrays = tuple(a if f is None else f(a) for f, a in zip(adapted, arrays))
        y = function(*arrays)
        lead = np.broadcast_shapes(*(a.shape[:-1] for a in arrays))
        return jnp.broadcast_to(y, (*lead, math.prod(target.channels)))

    node = pointwise(
        trace,
        aval,
        given,
        run,
        mask=target.mask,
        axes=target.axes,
        channels=target.channels,
        outside=outside,
    )
    if isinstance(node, Pointwise):
        node.of_entries = function
    if node.masked:
        put_back(node, orders)
    return node


def _joint(
    shapes: Sequence[Sequence[int]], full: Sequence[int], along: int | None
) -> tuple[int, ...]:
    """The shape that arrays broadcast to, or have when they are joined along an axis."""
    rest = [[1 if a == along else n for a, n in enumerate(shape)] for shape in shapes]
    return tuple(full[a] if a == along else n for a, n in enumerate(np.broadcast_shapes(*rest)))


def _varies_over(plain: Node, masked: Sequence[Node]) -> bool:
    """Whether a plain array differs between positions of padded operands."""
    axes = {i for x in masked for i in range(len(x.shape)) if x.of_positions(i)}
    return bool(plain.stored) and any(plain.stored[i] > 1 for i in axes)


def around(
    trace: Trace,
    operands: Sequence[Node],
    aval: Any,
    function: Callable,
    *,
    along: int | None = None,
) -> tuple[list[Node], Outside | None]:
    """Operands that agree about what is outside the image, and what is there in the result."""
    masked = [x for x in operands if x.masked]
    if all(x.outside is None for x in masked):
        return list(operands), None
    pads = {x.pads for x in masked}
    if any(not x.masked and _varies_over(x, masked) for x in operands):
        return [realised(trace, x) if x.masked else x for x in operands], None
    if len(pads) > 1 or len({grid_axes(x) for x in masked}) > 1:
        if not any(x.outside is None for x in masked):
            raise LayerMaskError("operands that were padded at different sides")
        return [realised(trace, x) if x.masked else x for x in operands], None
    fills = [x if x.outside is None else x.outside.fill for x in operands]
    stored = _joint([x.stored for x in fills if x.shape], aval.shape, along)
    fill = trace.plain(aval, fills, function, stored=stored)
    return list(operands), Outside(pads.pop(), fill)


def with_constants(operation: Operation, y: Node, around: Node, join: Callable) -> Node:
    """Joins what windows read outside; the result is outside where they read nothing else.

    Args:
      operation: with windows.
      y: its result for an image without anything outside.
      around: its result for what is outside alone, a plain node.
      join: of both.
    """
    if y.outside is None:
        return combine(operation.trace, operation.aval, [y, around], join)
    grid = {d: axis for axis in range(len(y.shape)) for d in y.grid_dims(axis) if d}
    crop = [slice(None)] * len(y.shape)
    for d, axis in grid.items():
        low, high = y.pads[d]
        crop[axis] = slice(low, y.shape[axis] - high)
    inner_shape = [len(range(n)[c]) for n, c in zip(y.shape, crop)]
    stored = [len(range(n)[c]) if n > 1 else n for n, c in zip(around.stored, crop)]
    inner_aval = jax.ShapeDtypeStruct(inner_shape, y.dtype)
    inside = operation.trace.plain(
        inner_aval, [around], lambda value: value[tuple(crop)], stored=stored
    )
    bare = pointwise(operation.trace, inner_aval, [y], lambda a: a, like=y, outside=None)
    total = combine(operation.trace, inner_aval, [bare, inside], join)
    return pointwise(
        operation.trace,
        operation.aval,
        [total],
        lambda a: a,
        like=total,
        outside=Outside(y.pads, around),
    )


@rule("optimization_barrier")
def _barrier(_: Operation, *operands: Node) -> list[Node]:
    """It computes nothing, and its operands need not have one shape."""
    return list(operands)


RULES.update(dict.fromkeys(ELEMENTWISE, elementwise))
