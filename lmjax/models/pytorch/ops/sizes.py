"""Arithmetic on sizes, which are Python's numbers when a graph runs, and parts of tuples."""

import math
import operator
from collections.abc import Sequence
from typing import Any

from lmjax.models.pytorch.ops.table import rule


@rule("operator.getitem")
def getitem(values: Sequence[Any], index: int) -> Any:
    """Returns one of several results; one that is a function is computed only now."""
    value = values[index]
    return value() if callable(value) else value


@rule("aten.sym_size.int")
def size(x: Any, axis: int) -> int:
    """Returns the size of an axis."""
    return x.shape[axis]


@rule("aten.sym_numel.default")
def count(x: Any) -> int:
    """Returns the number of elements."""
    return math.prod(x.shape)


for _function in (
    *(operator.mul, operator.add, operator.sub, operator.floordiv, operator.truediv, operator.mod),
    *(operator.neg, operator.pow, operator.eq, operator.ne, operator.lt, operator.le, operator.gt),
    *(operator.ge, operator.and_, operator.or_),
):
    rule(f"operator.{_function.__name__}")(_function)

rule("torch.sym_max")(max)
rule("torch.sym_min")(min)
rule("torch.sym_int")(int)
rule("torch.sym_float")(float)
rule("torch.sym_not")(operator.not_)
rule("torch.sym_sum")(sum)
rule("math.floor")(math.floor)
rule("math.ceil")(math.ceil)
rule("math.trunc")(math.trunc)
