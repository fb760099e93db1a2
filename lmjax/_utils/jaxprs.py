"""Parts of traced functions: functions inside of them, and single operations."""

from collections.abc import Iterator, Sequence
from typing import Any

from jax.extend import core as jex


def inner_jaxprs(equation: Any) -> list[jex.Jaxpr]:
    """Returns the functions that an equation calls: those among its parameters."""
    return list(_among(list(equation.params.values())))


def _among(values: Sequence[Any]) -> Iterator[jex.Jaxpr]:
    for value in values:
        if isinstance(value, jex.ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, jex.Jaxpr):
            yield value
        elif isinstance(value, tuple | list):
            yield from _among(value)


def bind(jaxpr: jex.Jaxpr, equation: jex.JaxprEqn, arrays: Sequence[Any]) -> list[Any]:
    """Runs one operation of a traced function on arrays of the shapes that were traced."""
    values = {v: x for v, x in zip(equation.invars, arrays) if not isinstance(v, jex.Literal)}
    results, info = equation.outvars, jaxpr.debug_info
    alone = jex.Jaxpr((), list(values), results, [equation], debug_info=info)
    return jex.jaxpr_as_fun(jex.ClosedJaxpr(alone, ()))(*values.values())


def primitives(jaxpr: jex.Jaxpr) -> Iterator[str]:
    """Yields the names of the primitives of a function and of those inside of it."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for inner in inner_jaxprs(equation):
            yield from primitives(inner)
