"""Functions in the function: evaluated in their place, or kept whole for their derivative."""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex

from lmjax._utils.jaxprs import inner_jaxprs
from lmjax.masking.transform.elementwise import combine
from lmjax.masking.transform.nodes import Node
from lmjax.masking.transform.operation import RULES, Operation
from lmjax.masking.transform.plain import ELEMENTWISE, bind_alike


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
    if not _is_elementwise(closed):
        if operation.name.startswith("custom_vjp"):
            _warn_of_lost(operation)
        return _call(operation, *operands)
    return [combine(operation.trace, operation.aval, operands, _with_derivative(operation, closed))]


def _warn_of_lost(operation: Operation) -> None:
    warnings.warn(
        "layer_mask keeps a derivative that its author gave only where it and the function work "
        f"entry by entry. The {operation.name} at {operation.where()} does not, so JAX "
        "derives what it computes; results are the same, gradients may differ.",
        stacklevel=2,
    )


def _is_elementwise(closed: jex.ClosedJaxpr) -> bool:
    return len(closed.jaxpr.outvars) == 1 and _are_elementwise(closed)


def _are_elementwise(closed: jex.ClosedJaxpr) -> bool:
    shape = closed.jaxpr.outvars[0].aval.shape
    for equation in closed.jaxpr.eqns:
        if any(v.aval.shape not in (shape, ()) for v in (*equation.invars, *equation.outvars)):
            return False
        name = equation.primitive.name
        scalar = name == "broadcast_in_dim" and not equation.invars[0].aval.shape
        inner = inner_jaxprs(equation)
        if inner:
            if not all(_is_elementwise(jex.ClosedJaxpr(x, ())) for x in inner):
                return False
        elif name not in ELEMENTWISE and not scalar:
            return False
    return True


def evaluate_alike(closed: jex.ClosedJaxpr, *arrays: Any) -> list[Any]:
    """Evaluates an elementwise function on arrays of another shape than it was traced for."""
    values: dict[Any, Any] = dict(zip(closed.jaxpr.constvars, closed.consts))
    values.update(zip(closed.jaxpr.invars, arrays))

    def read(variable: Any) -> Any:
        return variable.val if isinstance(variable, jex.Literal) else values[variable]

    for equation in closed.jaxpr.eqns:
        operation, given = Operation(None, equation, closed.jaxpr), list(map(read, equation.invars))
        if equation.primitive.name == "broadcast_in_dim":
            results = given
        elif inner_jaxprs(equation):
            results = evaluate_alike(inner_jaxpr(operation), *given)
        else:
            results = [bind_alike(operation, given)]
        values.update(zip(equation.outvars, results))
    return [read(v) for v in closed.jaxpr.outvars]


def _with_derivative(operation: Operation, closed: jex.ClosedJaxpr) -> Callable:
    """The function in the call, with the derivative that its author gave it."""
    given: list[Any] = [v.aval for v in operation.equation.invars]
    avals = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in given]

    def forward(*arrays: jax.Array) -> jax.Array:
        return evaluate_alike(closed, *arrays)[0]

    def original(*arrays: jax.Array) -> jax.Array:
        return operation.bind(*arrays)[0]

    if operation.name == "custom_jvp_call":
        tangent = jax.make_jaxpr(lambda p, t: jax.jvp(original, p, t)[1])(avals, avals)
        return _forward_mode(forward, tangent) if _is_elementwise(tangent) else forward
    if not all(jnp.issubdtype(a.dtype, jnp.floating) for a in avals):
        return forward
    cotangents = jax.make_jaxpr(lambda p, ct: jax.vjp(original, *p)[1](ct))(avals, avals[0])
    if _are_elementwise(cotangents):
        return _reverse_mode(forward, cotangents)
    _warn_of_lost(operation)
    return forward


def _forward_mode(function: Callable, tangent: jex.ClosedJaxpr) -> Callable:
    custom = jax.custom_jvp(function)

    @custom.defjvp
    def _(primals: Any, dots: Any) -> Any:
        shape = np.broadcast_shapes(*map(np.shape, primals))
        given = [jnp.broadcast_to(x, shape) for x in (*primals, *dots)]
        (dot,) = evaluate_alike(tangent, *given)
        return custom(*primals), jnp.broadcast_to(dot, shape)

    return custom


def _reverse_mode(function: Callable, cotangents: jex.ClosedJaxpr) -> Callable:
    custom = jax.custom_vjp(lambda *arrays: function(*arrays))

    def forward(*arrays: jax.Array) -> Any:
        shape = np.broadcast_shapes(*map(np.shape, arrays))
        arrays = tuple(jnp.broadcast_to(x, shape) for x in arrays)
        return function(*arrays), arrays

    def backward(arrays: Any, cotangent: jax.Array) -> Any:
        results = evaluate_alike(cotangents, *arrays, cotangent)
        return tuple(jnp.broadcast_to(x, cotangent.shape) for x in results)

    custom.defvjp(forward, backward)
    return lambda *arrays: custom(*jnp.broadcast_arrays(*arrays))


RULES.update(dict.fromkeys(("jit", "pjit", "closed_call", "core_call", "remat2"), _call))
RULES.update(dict.fromkeys(("remat", "checkpoint", "custom_lin"), _call))
RULES.update(
    dict.fromkeys(("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"), _custom_call)
)
