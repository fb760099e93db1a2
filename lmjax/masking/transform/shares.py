"""How much each position counts in a sum, where a network weighs positions by known numbers.

A round crop, `where(circle, x, 0).sum() / circle.sum()`, is a mean over part of the image. Scaled
by all over visible positions it would be wrong wherever the mask does not cut the circle as it cuts
the image, and no identity would tell. So the numbers travel with the product, as far as operations
leave it a product, and a sum over positions is scaled by all of them over those of the visible.
"""

import math
import warnings
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import core

from lmjax.masking.transform.nodes import Node, inverse
from lmjax.masking.transform.operation import CUSTOM_CALLS, Operation
from lmjax.masking.transform.origins import Share

_MOVES = frozenset(["broadcast_in_dim", "reshape", "slice", "squeeze", "transpose"])
_MOVES |= {"expand_dims", "rev"}
# What sums over channels, each position by itself.
_OVER_CHANNELS = frozenset(["dot_general", "conv_general_dilated", "reduce_sum"])
# What is a product with a number still is one after these, if the number is 0 or 1.
_KEEP_ZERO = frozenset(["abs", "sign", "sqrt", "square", "integer_pow"])
_LINEAR = frozenset(["neg", "convert_element_type", "copy", "stop_gradient"])
_LOSE = frozenset(["add", "sub", "max", "min", "exp", "tanh", "logistic", "pow", "log", "erf"])
_LOSE |= CUSTOM_CALLS | {"clamp"}


def follow_shares(operation: Operation, operands: Sequence[Node], results: Sequence[Node]) -> None:
    """Says of an operation's result how much its positions count, where that is known to differ."""
    if len(results) != 1 or not results[0].masked or results[0].share is not None:
        return
    shared = [x for x in operands if x.masked and x.share is not None]
    made = _weighed(operation, operands)
    if made is None and not shared:
        return
    results[0].share = _share(operation, operands, shared, made, results[0])


def _share(
    operation: Operation, operands, shared: Sequence[Node], made: np.ndarray | None, result: Node
) -> Share | None:
    shares = [x.share.numbers for x in shared if x.share is not None]
    known = [numbers for numbers in shares if numbers is not None]
    if len(known) < len(shares):
        return Share(None)
    if made is not None or operation.name in ("mul", "div"):
        alike = all(np.array_equal(known[0], k) for k in known[1:])
        if not alike or (operation.name == "div" and shared and operands[0] is not shared[0]):
            return Share(None)
        numbers = np.ones(()) if made is None else made
        numbers = numbers * known[0] if known else numbers
        return Share(np.broadcast_to(numbers, operation.aval.shape))
    if operation.name in _LINEAR:
        return shared[0].share
    if operation.name in _KEEP_ZERO or _keeps_zero(operands, result):
        return shared[0].share if np.isin(known[0], (0, 1)).all() else Share(None)
    if operation.name in _MOVES:
        with core.eval_context():
            return Share(np.asarray(operation.bind(jnp.asarray(known[0], operation.aval.dtype))))
    if operation.name in _OVER_CHANNELS:
        return _over_channels(operation, operands, known[0])
    if operation.name == "concatenate":
        numbers = [np.ones(x.shape) if x.share is None else x.share.numbers for x in operands]
        return Share(np.concatenate(numbers, operation.params["dimension"]))
    if operation.name == "pad":
        return _padded(operation, known[0])
    if operation.name in ("add", "add_any", "sub") and len(known) == len(operands):
        return shared[0].share if np.array_equal(known[0], known[-1]) else Share(None)
    return Share(None) if operation.name in _LOSE else None


def _keeps_zero(operands: Sequence[Node], result: Node) -> bool:
    """Whether an operation gives 0 where its operands with positions are 0, as relu does."""
    entries = [np.zeros(1, x.dtype) if x.masked else x.constant for x in operands]
    if not hasattr(result, "where_hidden") or any(e is None or e.size != 1 for e in entries):
        return False
    found = result.where_hidden([np.reshape(entry, ()) for entry in entries])  # pyright: ignore
    return found is not None and not found.any()


def _over_channels(operation: Operation, operands: Sequence[Node], numbers) -> Share | None:
    """The share of sums over channels; None where they are over positions, too."""
    kept = _kept(operation, operands)
    if kept is None:
        return None
    gone = [axis for axis in range(numbers.ndim) if axis not in kept.values()]
    first = numbers
    for axis in gone:
        first = np.take(first, [0], axis)
    if (first != numbers).any():
        return Share(None)
    shape = [1] * len(operation.aval.shape)
    for to, axis in kept.items():
        shape[to] = numbers.shape[axis]
    order = [kept[to] for to in sorted(kept)]
    moved = np.transpose(first, (*order, *gone)).reshape(shape)
    return Share(np.broadcast_to(moved, operation.aval.shape))


def _kept(operation: Operation, operands: Sequence[Node]) -> dict[int, int] | None:
    """The axes of the result -> those of the operand with positions, of a sum over channels."""
    params, masked = operation.params, [x for x in operands if x.masked]
    if len(masked) > 1:  # attention
        return None
    (x,) = masked
    if operation.name == "reduce_sum":
        kept = dict(enumerate(a for a in range(len(x.shape)) if a not in params["axes"]))
    elif operation.name == "dot_general":
        (contracted, batch), which = params["dimension_numbers"], operands.index(x)
        free = [
            [a for a in range(len(each.shape)) if a not in (*contracted[i], *batch[i])]
            for i, each in enumerate(operands)
        ]
        start = len(batch[0]) + (len(free[0]) if which else 0)
        kept = dict(enumerate(batch[which])) | dict(enumerate(free[which], start))
    else:
        numbers = params["dimension_numbers"]
        alone = all(operands[1].shape[a] == 1 for a in numbers.rhs_spec[2:])
        moved = any(n != 1 for n in params["window_strides"]) or any(map(any, params["padding"]))
        if x is not operands[0] or not alone or moved:
            return None
        kept = dict(zip(numbers.out_spec, numbers.lhs_spec))
        del kept[numbers.out_spec[1]]
    gone = set(range(len(x.shape))) - set(kept.values())
    return None if any(x.of_positions(axis) for axis in gone) else kept


def _padded(operation: Operation, numbers: np.ndarray) -> Share:
    widths = operation.params["padding_config"]
    if any(low < 0 or high < 0 or between for low, high, between in widths):
        return Share(None)
    return Share(np.pad(numbers, [(low, high) for low, high, _ in widths]))


def _weighed(operation: Operation, operands: Sequence[Node]) -> np.ndarray | None:
    """The numbers by which an operation multiplies positions, or None."""
    if operation.name == "mul" and sum(x.masked for x in operands) == 1:
        (plain,) = (x for x in operands if not x.masked)
        (x,) = (x for x in operands if x.masked)
        numbers = plain.constant if x.weight is None else None
    elif operation.name == "select_n" and len(operands) == 3 and not operands[0].masked:
        which, off, on = operands
        numbers, x = which.constant, on if on.masked else off
        plain = off if on.masked else on
        if plain.masked or plain.constant is None or plain.constant.any():
            return None
        numbers = numbers if numbers is None or on.masked else ~numbers.astype(bool)
    else:
        return None
    if numbers is None or numbers.ndim != len(x.shape) or (numbers < 0).any():
        return None
    varies = any(n > 1 and x.of_positions(axis) for axis, n in enumerate(numbers.shape))
    return numbers.astype(np.float64) if varies else None


def numbers_of(x: Node, where: str) -> np.ndarray | None:
    """Returns how much the positions of a node count in a sum, `[N, *positions, 1]`, or None."""
    if x.share is None:
        return None
    numbers = x.share.numbers
    if numbers is None:
        _warn(where)
        return None
    for axis, n in enumerate(x.shape):
        if n > 1 and not x.grid_dims(axis):  # channels: those of the first count for all
            first = np.take(numbers, [0], axis)
            if (numbers != first).any():
                _warn(where)
                return None
            numbers = first
    groups = [x.grid_dims(axis) for axis in range(len(x.shape))]
    if x.merged:
        _warn(where)
        return None
    order = [d for own in groups for d in own]
    numbers = numbers.reshape([x.grid[d] for d in order])
    missing = [d for d in range(len(x.grid)) if d not in order]
    numbers = numbers.reshape((*numbers.shape, *(1 for _ in missing)))
    numbers = np.transpose(numbers, inverse([*order, *missing]))
    if not math.prod(x.grid):
        return None
    numbers = np.broadcast_to(numbers, x.grid)
    warn_of_maps(numbers.reshape(len(numbers), -1), where)
    return numbers[..., None]


def warn_of_maps(numbers: np.ndarray, where: str) -> None:
    """Warns where numbers `[n, positions]` that positions are multiplied by may be coordinates.

    A region is 0 and another number, and weights of a mean sum to 1; both are scaled rightly.
    """
    rows = np.unique(numbers, axis=0)
    if all(len(np.unique(row[row > 0])) < 2 or np.isclose(row.sum(), 1, 1e-3) for row in rows):
        return
    warnings.warn(
        "layer_mask: a sum over positions of what was multiplied by a known map, at "
        f"{where}. It is taken for a mean weighted by the map, and scaled by the part of the map "
        "that is visible. If the map holds coordinates (a centre of mass, a soft argmax), that is "
        "wrong: write (x * coordinates).sum(...) with coordinates about 0, some of them negative.",
        stacklevel=2,
    )


def as_traced(numbers: np.ndarray, x: Node) -> np.ndarray:
    """Returns numbers `[*grid]` in the layout of a traced array."""
    groups = [x.grid_dims(axis) for axis in range(len(x.shape))]
    order = [d for own in groups for d in own]
    unused = tuple(d for d in range(len(x.grid)) if d not in order)
    numbers = np.transpose(numbers, (*order, *unused))
    sizes = [math.prod(x.grid[d] for d in own) for own in groups]
    return np.broadcast_to(numbers.reshape(*sizes), x.shape)


def _warn(where: str) -> None:
    warnings.warn(
        "layer_mask: a sum over positions of what was multiplied by numbers that differ between "
        f"positions, at {where}. Each visible position counts alike in it, without those numbers; "
        "weigh with a product right before the sum to have them count.",
        stacklevel=2,
    )
