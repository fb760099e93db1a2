"""How many visible positions a value stands for, where a mean is taken axis by axis.

The mean over columns of means over rows is the mean over all visible positions only if each column
counts as often as it has visible rows. So a sum over some positions carries its counts, through
everything that only moves or scales it, up to the sum over the others.
"""

import math
from collections.abc import Sequence

from lmjax.masking.transform.nodes import Node, Weight
from lmjax.masking.transform.operation import RULES, Operation

_MOVES = frozenset(
    [
        "broadcast_in_dim",
        "concatenate",
        "reshape",
        "slice",
        "squeeze",
        "stack",
        "transpose",
        "expand_dims",
    ]
)
_SCALES = frozenset(["mul", "div", "neg", "convert_element_type", "copy"])


def weigh(operation: Operation, operands: Sequence[Node], results: Node | list[Node]) -> None:
    """Gives the result of an operation the weights of its operands, where it keeps them."""
    masked = [x for x in operands if x.masked]
    if isinstance(results, list) or not results.masked or any(x.weight is None for x in masked):
        return
    if operation.name in _MOVES and len(masked) == len(operands):
        result = RULES[operation.name](operation, *(x.weight.counts for x in operands))
        pooled = frozenset().union(*(x.weight.pooled for x in operands))
        results.weight = Weight(result, pooled) if isinstance(result, Node) else None
    numbers = [x for x in operands if not x.masked]
    if operation.name in _SCALES and len(masked) == 1:
        if all(math.prod(x.stored) == 1 for x in numbers):
            results.weight = masked[0].weight
