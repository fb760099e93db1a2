"""Loops and branches: loops of known length are unrolled, branches are computed and chosen from."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core as jex

from lmjax.masking.transform.elementwise import combine
from lmjax.masking.transform.joining import concatenated, with_axis
from lmjax.masking.transform.nodes import Node
from lmjax.masking.transform.operation import Operation, rule

# Loops of more steps are not unrolled.
_LONGEST = 1000


@rule("scan")
def _scan(operation: Operation, *operands: Node) -> list[Node]:
    params, trace = operation.params, operation.trace
    consts, carried = _counts(params)
    length, jaxpr = params["length"], params["jaxpr"]
    if length > _LONGEST:
        operation.fail(f"a loop of {length} steps; up to {_LONGEST} are unrolled")
    fixed, carry = operands[:consts], list(operands[consts : consts + carried])
    over = operands[consts + carried :]
    if any(x.masked for x in over):
        operation.fail("it loops over an array with positions")
    steps: list[list[Node]] = []
    order = range(length - 1, -1, -1) if params["reverse"] else range(length)
    inner = [trace.given(c) for c in jaxpr.consts]
    for i in order:
        given = [*fixed, *carry, *(_entry(operation, x, i) for x in over)]
        results = trace.evaluate(jaxpr.jaxpr, inner, given, operation)
        carry = results[:carried]
        steps.append(results[carried:])
    if params["reverse"]:
        steps.reverse()
    stacked = [
        _stacked(operation, v.aval, [step[k] for step in steps])
        for k, v in enumerate(operation.equation.outvars[carried:])
    ]
    return [*carry, *stacked]


def _counts(params: Mapping[str, Any]) -> tuple[int, int]:
    """Returns how many operands of a loop stay as they are, and how many it carries."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    consts, carried, _ = params["ft_in"].unpack()  # as of JAX 0.12
    return len(list(consts.vals)), len(list(carried.vals))


def _entry(operation: Operation, x: Node, i: int) -> Node:
    aval = jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
    at = i if x.stored[0] > 1 else 0
    return operation.trace.plain(aval, [x], lambda v: v[at], stored=x.stored[1:])


def _stacked(operation: Operation, aval: Any, entries: list[Node]) -> Node:
    trace = operation.trace
    if not any(x.masked for x in entries):

        def run(*values: Any) -> Any:
            return jnp.stack([jnp.broadcast_to(v, x.shape) for v, x in zip(values, entries)])

        return trace.plain(aval, entries, run)
    one = jax.ShapeDtypeStruct((1, *aval.shape[1:]), aval.dtype)
    wide = [with_axis(trace, x, one, 0) for x in entries]
    return concatenated(operation, aval, wide, 0)


@rule("cond")
def _cond(operation: Operation, which: Node, *operands: Node) -> list[Node]:
    trace, branches = operation.trace, operation.params["branches"]
    platforms = operation.params.get("branches_platforms")
    if which.masked:
        operation.fail("which branch is taken depends on positions")

    def evaluate(branch: jex.ClosedJaxpr) -> list[Node]:
        consts = [trace.given(c) for c in branch.consts]
        return trace.evaluate(branch.jaxpr, consts, operands, operation)

    if platforms:  # several ways to compute the same: the one for any platform
        return evaluate(branches[platforms.index(None) if None in platforms else 0])
    if which.constant is not None:
        index = min(max(int(which.constant), 0), len(branches) - 1)
        return evaluate(branches[index])
    results = [evaluate(branch) for branch in branches]
    return [
        _chosen(operation, which, v.aval, alternatives)
        for v, alternatives in zip(operation.equation.outvars, zip(*results))
    ]


def _chosen(operation: Operation, which: Node, aval: Any, nodes: Any) -> Node:
    """All branches are computed, and one is taken; their masks must be the same."""
    if len({id(x.mask) for x in nodes}) > 1:
        operation.fail("its branches give values whose masks differ")

    def choose(index: Any, *arrays: Any) -> Any:
        alike = jnp.broadcast_arrays(*arrays)
        index = jnp.clip(index, 0, len(alike) - 1)
        result = alike[0]
        for i, array in enumerate(alike[1:], start=1):
            result = jnp.where(index == i, array, result)
        return result

    if nodes[0].masked:
        return combine(operation.trace, aval, [which, *nodes], choose)
    full = [lambda v, x=x: jnp.broadcast_to(v, x.shape) for x in nodes]

    def run(index: Any, *arrays: Any) -> Any:
        return choose(index, *(f(a) for f, a in zip(full, arrays)))

    return operation.trace.plain(aval, [which, *nodes], run)


@rule("while")
def _while(operation: Operation, *operands: Node) -> list[Node]:
    """A loop whose condition is known while tracing is unrolled."""
    params, trace = operation.params, operation.trace
    of_cond, of_body = params["cond_nconsts"], params["body_nconsts"]
    cond, body = params["cond_jaxpr"], params["body_jaxpr"]
    tested = operands[:of_cond]
    fixed, carry = operands[of_cond : of_cond + of_body], list(operands[of_cond + of_body :])
    consts = [[trace.given(c) for c in jaxpr.consts] for jaxpr in (cond, body)]
    for _ in range(_LONGEST):
        (go_on,) = trace.evaluate(cond.jaxpr, consts[0], [*tested, *carry], operation)
        if go_on.masked or go_on.constant is None:
            operation.fail("how often it loops is not known while tracing")
        if not bool(go_on.constant):
            return carry
        carry = trace.evaluate(body.jaxpr, consts[1], [*fixed, *carry], operation)
    return operation.fail(f"a loop of more than {_LONGEST} steps")
