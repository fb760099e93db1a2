"""Functions in the function: evaluated in their place, or kept whole for their derivative."""

import os
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex

from lmjax.masking.transform.elementwise import combine
from lmjax.masking.transform.nodes import Node
from lmjax.masking.transform.operation import CUSTOM_CALLS, PLAIN_CALLS, RULES, Operation
from lmjax.masking.transform.plain import ELEMENTWISE, bind_alike

_CALLS = PLAIN_CALLS | CUSTOM_CALLS
# Where arrays broadcast to each other, these give back what they take.
_GIVE_BACK = frozenset(["broadcast_in_dim", "optimization_barrier"])


def _call(operation: Operation, *operands: Node) -> Node | list[Node]:
    """Returns the nodes of a function in the function, evaluated in its place."""
    closed = inner_jaxpr(operation)
    consts = [operation.trace.given(c) for c in closed.consts]
    return operation.trace.evaluate(closed.jaxpr, consts, operands, operation)


def inner_jaxpr(operation: Operation) -> jex.ClosedJaxpr:
    """Returns the function that a call calls."""
    keys = ("call_jaxpr", "fun_jaxpr", "jaxpr")
    inner = next(operation.params[k] for k in keys if k in operation.params)
    return inner if hasattr(inner, "consts") else jex.ClosedJaxpr(inner, ())


def _custom_call(operation: Operation, *operands: Node) -> Node | list[Node]:
    """Returns the node of a function with its own derivative, which stays if it is elementwise."""
    closed = inner_jaxpr(operation)
    if _is_elementwise(closed):
        function = _with_derivative(operation, closed)
        return [combine(operation.trace, operation.aval, operands, function)]
    if not _of_jax(closed):
        _warn_of_lost(operation)
    return _call(operation, *operands)


def _of_jax(closed: jex.ClosedJaxpr) -> bool:
    """Whether a function is one of JAX's own, whose rules give the derivative of what it computes.

    They only do so with fewer operations, or with less rounding.
    """
    info = getattr(closed.jaxpr, "debug_info", None)
    return str(getattr(info, "func_filename", "")).startswith(os.path.dirname(jax.__file__))


def _warn_of_lost(operation: Operation) -> None:
    warnings.warn(
        "layer_mask keeps a derivative that its author gave only where it and the function work "
        f"entry by entry. The {operation.name} at {operation.where()} does not, so JAX "
        "derives what it computes; results are the same, gradients may differ.",
        stacklevel=2,
    )


def _is_elementwise(closed: jex.ClosedJaxpr) -> bool:
    outputs = closed.jaxpr.outvars
    return len(outputs) == 1 and _are_elementwise(closed, outputs[0].aval.shape)


def _are_elementwise(closed: jex.ClosedJaxpr, shape: tuple[int, ...]) -> bool:
    """Whether all operations work entry by entry, on arrays that broadcast to a shape."""
    if any(np.shape(c) for c in closed.consts):
        return False
    uniform: set[Any] = set()  # variables that repeat one number, of any shape

    def repeats(variable: Any) -> bool:
        return not variable.aval.shape or variable in uniform

    for equation in closed.jaxpr.eqns:
        variables = *equation.invars, *equation.outvars
        if not _works_entry_by_entry(equation, closed.jaxpr, repeats):
            return False
        if all(map(repeats, equation.invars)):
            uniform.update(equation.outvars)
        elif not all(repeats(v) or _fits(v, shape) for v in variables):
            return False
    return True


def _works_entry_by_entry(
    equation: jex.JaxprEqn, jaxpr: jex.Jaxpr, repeats: Callable[[Any], bool]
) -> bool:
    name, given = equation.primitive.name, equation.invars
    if name in _CALLS:
        return _is_elementwise(inner_jaxpr(Operation(None, equation, jaxpr)))
    if name == "broadcast_in_dim":  # of one number, or along axes that stay where they are
        dims = tuple(equation.params["broadcast_dimensions"])
        return repeats(given[0]) or dims == tuple(range(len(equation.params["shape"])))
    return name in ELEMENTWISE or name in _GIVE_BACK


def _fits(variable: Any, full: tuple[int, ...]) -> bool:
    """Whether an array broadcasts to a shape, and its axes stay where they are."""
    shape = variable.aval.shape
    return len(shape) == len(full) and all(n in (1, m) for n, m in zip(shape, full))


def evaluate_alike(closed: jex.ClosedJaxpr, *arrays: Any) -> list[Any]:
    """Evaluates an elementwise function on arrays of another shape than it was traced for."""
    values: dict[Any, Any] = dict(zip(closed.jaxpr.constvars, closed.consts))
    values.update(zip(closed.jaxpr.invars, arrays))

    def read(variable: Any) -> Any:
        return variable.val if isinstance(variable, jex.Literal) else values[variable]

    for equation in closed.jaxpr.eqns:
        operation, given = Operation(None, equation, closed.jaxpr), list(map(read, equation.invars))
        if equation.primitive.name in _GIVE_BACK:
            results = given
        elif equation.primitive.name in _CALLS:
            results = evaluate_alike(inner_jaxpr(operation), *given)
        else:
            results = [bind_alike(operation, given)]
        values.update(zip(equation.outvars, results))
    return [read(v) for v in closed.jaxpr.outvars]


def _with_derivative(operation: Operation, closed: jex.ClosedJaxpr) -> Callable:
    """The function in the call, with the derivative that its author gave it."""

    def forward(*arrays: jax.Array) -> jax.Array:
        return evaluate_alike(closed, *arrays)[0]

    if not jnp.issubdtype(operation.aval.dtype, jnp.inexact):
        return forward
    make = _forward_mode if operation.name == "custom_jvp_call" else _reverse_mode
    derived = make(operation, forward)
    if derived is None:
        _warn_of_lost(operation)
    return derived or forward


def _forward_mode(operation: Operation, function: Callable) -> Callable | None:
    """The function with the tangents of the call; None where they are not elementwise."""
    original, avals, floats = _original(operation)

    def tangent(primals: Any, dots: Any) -> jax.Array:
        given = [np.zeros(a.shape, jax.dtypes.float0) for a in avals]
        for i, dot in zip(floats, dots):
            given[i] = dot
        return jax.jvp(original, primals, given)[1]

    tangents = jax.make_jaxpr(tangent)(avals, [avals[i] for i in floats])
    if not _is_elementwise(tangents):
        return None
    custom = jax.custom_jvp(function)

    @custom.defjvp
    def _(primals: Any, dots: Any) -> Any:
        shape = np.broadcast_shapes(*map(np.shape, primals))
        given = [jnp.broadcast_to(x, shape) for x in (*primals, *(dots[i] for i in floats))]
        (dot,) = evaluate_alike(tangents, *given)
        return custom(*primals), jnp.broadcast_to(dot, shape)

    return custom


def _reverse_mode(operation: Operation, function: Callable) -> Callable | None:
    """The function with the cotangents of the call; None where they are not elementwise."""
    original, avals, floats = _original(operation)

    def pull(primals: Any, cotangent: jax.Array) -> list[jax.Array]:
        given = jax.vjp(original, *primals)[1](cotangent)
        return [given[i] for i in floats]

    aval = jax.ShapeDtypeStruct(operation.aval.shape, operation.aval.dtype)
    cotangents = jax.make_jaxpr(pull)(avals, aval)
    if not _are_elementwise(cotangents, operation.aval.shape):
        return None
    custom = jax.custom_vjp(lambda *arrays: function(*arrays))

    def forward(*arrays: jax.Array) -> Any:
        return function(*arrays), arrays

    def backward(arrays: Any, cotangent: jax.Array) -> Any:
        results = evaluate_alike(cotangents, *arrays, cotangent)
        given: list[Any] = [None] * len(arrays)
        for i, result in zip(floats, results):
            given[i] = jnp.broadcast_to(result, cotangent.shape)
        return tuple(given)

    custom.defvjp(forward, backward)
    return lambda *arrays: custom(*jnp.broadcast_arrays(*arrays))


def _original(operation: Operation) -> tuple[Callable, list[jax.ShapeDtypeStruct], list[int]]:
    """The function as it was traced, shapes of its operands, and which of them have derivatives."""

    def original(*arrays: jax.Array) -> jax.Array:
        return operation.bind(*arrays)[0]

    given: list[Any] = [v.aval for v in operation.equation.invars]
    avals = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in given]
    floats = [i for i, aval in enumerate(avals) if jnp.issubdtype(aval.dtype, jnp.inexact)]
    return original, avals, floats


RULES.update(dict.fromkeys(PLAIN_CALLS, _call))
RULES.update(dict.fromkeys(CUSTOM_CALLS, _custom_call))
