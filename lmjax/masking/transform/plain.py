"""Operations on plain arrays: weights, constants and what lies behind a global pool.

They run as they stand. Arrays that repeat one entry along an axis are held once, with 1 there: a
bias that is broadcast to the image stays `[1, 1, 1, C]`, so that rows can be given it too.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from lmjax.masking.transform.nodes import Node
from lmjax.masking.transform.operation import Operation

ELEMENTWISE = frozenset(
    [
        *("abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2"),
        *("atanh", "cbrt", "ceil", "clamp", "conj", "convert_element_type", "copy", "copy_p"),
        *("cos", "cosh", "digamma", "div", "eq", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1"),
        *("floor", "ge", "gt", "imag", "integer_pow", "is_finite", "le", "lgamma", "log", "log1p"),
        *("logistic", "lt", "max", "min", "mul", "name", "ne", "neg", "nextafter", "not"),
        *("or", "pow", "real", "reduce_precision", "rem", "round", "rsqrt", "select_n"),
        *("shift_left", "shift_right_arithmetic", "shift_right_logical", "sign", "sin", "sinh"),
        *("sqrt", "square", "stop_gradient", "sub", "tan", "tanh", "xor"),
    ]
)


def plain_operation(operation: Operation, operands: Sequence[Node]) -> list[Node]:
    """Returns the nodes of an operation on plain arrays."""
    if operation.name == "optimization_barrier":
        return list(operands)
    if operation.name == "platform_index":  # known only where the program will run
        return [Node(operation.aval, (), operation.bind)]
    short = _elementwise if operation.name in ELEMENTWISE else _SHORT.get(operation.name)
    result = short(operation, operands) if short else None
    return _in_full(operation, operands) if result is None else [result]


def expanded(node: Node, value: Any) -> Any:
    """Returns a plain node's value at its full shape."""
    return value if node.stored == node.shape else jnp.broadcast_to(value, node.shape)


def _in_full(operation: Operation, operands: Sequence[Node]) -> list[Node]:
    def run(*values):
        return operation.bind(*(expanded(x, v) for x, v in zip(operands, values)))

    outputs, trace = [v.aval for v in operation.equation.outvars], operation.trace
    if not operation.equation.primitive.multiple_results:
        return [trace.plain(outputs[0], operands, run)]
    if all(x.constant is not None for x in operands):
        return [
            trace.plain(aval, operands, lambda *values, i=i: run(*values)[i])
            for i, aval in enumerate(outputs)
        ]
    together = Node(outputs[0], operands, run) if outputs else None
    return [trace.plain(aval, [together], lambda y, i=i: y[i]) for i, aval in enumerate(outputs)]


def _elementwise(operation: Operation, operands: Sequence[Node]) -> Node:
    ranked = [x for x in operands if x.shape]
    stored = np.broadcast_shapes(*(x.stored for x in ranked)) if ranked else ()
    return operation.trace.plain(
        operation.aval,
        operands,
        lambda *values: bind_alike(operation, values),
        stored=stored,
    )


def bind_alike(operation: Operation, values: Sequence[Any]) -> Any:
    """Runs a primitive that works entry by entry on arrays that broadcast to each other."""
    shape = np.broadcast_shapes(*map(np.shape, values))
    values = [v if np.ndim(v) == 0 else jnp.broadcast_to(v, shape) for v in values]
    if operation.name in _SAME_SHAPES:
        values = [jnp.broadcast_to(v, shape) for v in values]
    return operation.bind_anew(*values)


_SAME_SHAPES = frozenset(["select_n", "nextafter", "atan2", "clamp"])


def _broadcast(operation: Operation, operands: Sequence[Node]) -> Node | None:
    x, aval = operands[0], operation.aval
    if len(operands) > 1:
        return None
    stored = [1] * len(aval.shape)
    for axis, size in zip(operation.params["broadcast_dimensions"], x.stored):
        stored[axis] = size
    return operation.trace.plain(aval, [x], lambda value: jnp.reshape(value, stored), stored=stored)


def _transpose(operation: Operation, operands: Sequence[Node]) -> Node:
    (x,), order = operands, operation.params["permutation"]
    stored = [x.stored[i] for i in order]
    run = functools.partial(jnp.transpose, axes=order)
    return operation.trace.plain(operation.aval, [x], run, stored=stored)


def _reduce_window(operation: Operation, operands: Sequence[Node]) -> Node | None:
    """Windows along axes that repeat one entry are not made where they hold one entry."""
    if len(operands) != 1:
        return None
    (x,), params, aval = operands, operation.params, operation.aval
    trivial = [
        size == stride == dilation == 1 and pads == (0, 0)
        for size, stride, pads, dilation in zip(
            params["window_dimensions"],
            params["window_strides"],
            params["padding"],
            params["window_dilation"],
        )
    ]
    narrow = [s if t else n for s, t, n in zip(x.stored, trivial, x.shape)]
    stored = [s if t else n for s, t, n in zip(x.stored, trivial, aval.shape)]

    def run(value):
        return operation.bind_anew(jnp.broadcast_to(value, narrow))

    return operation.trace.plain(aval, [x], run, stored=stored)


_SHORT = {
    "broadcast_in_dim": _broadcast,
    "transpose": _transpose,
    "reduce_window_sum": _reduce_window,
    "reduce_window_max": _reduce_window,
}
