"""One operation of a traced function, as rules see it, and the registry of rules."""

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import jax
from jax.extend import core as jex
from jax.extend import source_info_util

from lmjax._utils.jaxprs import bind
from lmjax.masking.transform.nodes import LayerMaskError, Node, describe

Rule = Callable[..., Node | list[Node]]

_SHOWN = ("dimension_numbers", "padding", "lhs_dilation", "axes", "axis", "dimension", "new_sizes")

RULES: dict[str, Rule] = {}

PLAIN_CALLS = frozenset(
    ["jit", "pjit", "closed_call", "core_call", "remat2", "remat", "checkpoint", "custom_lin"]
)
CUSTOM_CALLS = frozenset(["custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"])
"""Calls of functions that have a derivative of their own."""


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Registers a function as the rule of primitives."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


class Operation:
    """An equation of a traced function.

    Attributes:
      trace: the trace it belongs to.
      equation: of the jaxpr.
      jaxpr: which the equation belongs to.
      scope: names of the modules it is in, outermost first, joined by `/`.
      caller: the call that it is a part of, or None.
    """

    def __init__(
        self,
        trace: Any,
        equation: jex.JaxprEqn,
        jaxpr: jex.Jaxpr,
        caller: "Operation | None" = None,
    ):
        self.trace, self.equation, self.jaxpr, self.caller = trace, equation, jaxpr, caller
        names = (caller.scope if caller else "", str(equation.source_info.name_stack))
        self.scope = "/".join(filter(None, names))

    @property
    def name(self) -> str:
        """Name of the primitive."""
        return self.equation.primitive.name

    @property
    def params(self) -> dict[str, Any]:
        """Parameters of the primitive."""
        return self.equation.params

    @property
    def aval(self) -> Any:
        """Shape and dtype of the (first) result."""
        return self.equation.outvars[0].aval

    def bind(self, *arrays: jax.Array) -> Any:
        """Runs the primitive on arrays of the shapes that were traced."""
        results = bind(self.jaxpr, self.equation, arrays)
        return results if self.equation.primitive.multiple_results else results[0]

    def bind_anew(self, *arrays: jax.Array) -> jax.Array:
        """Runs a primitive that works entry by entry on arrays of other shapes."""
        return self.equation.primitive.bind(*arrays, **self.params)

    def instead(self, function: Callable[..., Any], *operands: Node) -> list[Node]:
        """Masks a function of arrays in the operation's place.

        Args:
          function: computes the results from arrays of the operands' shapes.
          operands: its arguments.
        """
        avals = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in operands]
        closed = jax.make_jaxpr(function)(*avals)
        constants = [self.trace.given(c) for c in closed.consts]
        return self.trace.evaluate(closed.jaxpr, constants, operands, self)

    def fail(self, reason: str) -> NoReturn:
        """Raises LayerMaskError with a reason; the trace adds where it happened."""
        raise LayerMaskError(reason)

    def where(self) -> str:
        """Returns the line of the traced function, and the modules it is in."""
        line = source_info_util.summarize(self.equation.source_info)
        if self.caller is not None and ":" not in line:  # compiled before, without lines
            return self.caller.where()
        return f"{line} (in {self.scope})" if self.scope else line

    def explain(self, operands: Sequence[Node], reason: str) -> str:
        """Returns the text of an error: primitive, reason, operands and the user's line."""
        shown = {key: value for key, value in self.params.items() if key in _SHOWN}
        return (
            f"layer_mask cannot go through {self.name!r}: {reason}\n"
            f"  operands: {'; '.join(map(describe, operands))}\n"
            + (f"  parameters: {shown}\n" if shown else "")
            + f"  at {self.where()}"
        )
