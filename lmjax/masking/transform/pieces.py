"""Pools that a network writes as slices of one value, joined by maxima or sums."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from lmjax.masking import layers
from lmjax.masking.transform.elementwise import elementwise
from lmjax.masking.transform.nodes import Node
from lmjax.masking.transform.operation import Operation, rule
from lmjax.masking.transform.origins import Slices, Weight
from lmjax.masking.transform.pointwise import pointwise
from lmjax.masking.transform.pools import pool
from lmjax.masking.transform.symbols import Slide, still
from lmjax.masking.transform.weights import ratio


@rule("max", "min", "add", "add_any")
def _joined(operation: Operation, *operands: Node) -> Node:
    how = operation.name.removesuffix("_any")
    slices = [x.slices for x in operands]
    if how == "add" and _adds_nothing(operands):
        node = elementwise(operation, *operands)
        node.slices = next(s for s in slices if s is not None)
        return node
    if not all(s is not None and s.fits(how) for s in slices):
        return elementwise(operation, *operands)
    one, other = operands
    assert one.slices is not None
    assert other.slices is not None
    if one.slices.source is not other.slices.source or one.axes != other.axes:
        return elementwise(operation, *operands)
    joined = one.slices.joined(other.slices, how)
    node = _pool_of_slices(operation, one, joined)
    node.slices = joined if node.masked else None
    return node


def _adds_nothing(operands: Sequence[Node]) -> bool:
    """Whether slices are added to the 0 from which `sum` in Python begins."""
    zeros = [x for x in operands if x.constant is not None and not x.constant.any()]
    return len(zeros) == 1 and sum(x.slices is not None for x in operands) == 1


@rule("mul", "div")
def _scaled(operation: Operation, *operands: Node) -> Node:
    """Each slice divided before they are joined is the same as their sum divided."""
    node, first = elementwise(operation, *operands), operands[0]
    number = next((x.constant for x in operands if x.constant is not None), None)
    if first.slices is None or number is None or number.size != 1 or not node.masked:
        first = operands[-1]
    if first.slices is None or number is None or number.size != 1 or not node.masked:
        return node
    factor = float(number.reshape(()))
    if factor <= 0 or (operation.name == "div" and first is not operands[0]):
        return node
    node.slices = first.slices.scaled(1 / factor if operation.name == "div" else factor)
    return node


def _pool_of_slices(operation: Operation, like: Node, joined: Slices) -> Node:
    """A pool of slices: as a pool over windows where they fill one."""
    source, factors = joined.source, set(joined.factors)
    window = _filled_window(source, joined.windows)
    if window is None or len(factors) > 1 or len(like.shape) != len(source.shape):
        return _loose_slices(operation, like, joined)
    how = "sum" if joined.how == "add" else str(joined.how)
    node, (factor,) = pool(operation, source, window, how), factors
    if factor == 1:
        return node
    return pointwise(operation.trace, operation.aval, [node], lambda x: x * factor, like=node)


def _filled_window(source: Node, windows: Sequence[Sequence[Slide]]) -> dict[int, Slide] | None:
    """The window along each axis that slices fill together, or None where they fill none."""
    if len(source.grid) != 3:
        return None
    filled = {}
    for axis in range(len(source.shape)):
        own = {w[axis] for w in windows}
        if len(own) == 1 and next(iter(own)) == still(source.shape[axis]):
            continue
        firsts, strides = sorted(w.first for w in own), {w.stride for w in own}
        if len(strides) > 1 or firsts != list(range(firsts[0], firsts[0] + len(firsts))):
            return None
        outputs = {w.outputs for w in own}
        filled[axis] = Slide(len(own), strides.pop(), -firsts[0], 1, outputs.pop())
    size = math.prod(s.size for s in filled.values())
    return filled if size == len(set(windows)) == len(windows) else None


def _loose_slices(operation: Operation, like: Node, joined: Slices) -> Node:
    """Slices that fill no window (yet)."""
    source, shape = joined.source, list(joined.source.grid)
    for axis, window in enumerate(joined.windows[0]):
        if len(source.grid_dims(axis)) == 1:
            shape[source.grid_dims(axis)[0]] = window.outputs
    mask = source.symbol.other(("slices", joined.windows), shape)
    known = {"mask": mask, "axes": like.axes}
    node = operation.trace.masked(
        operation.aval,
        (source,),
        lambda value: _run_slices(operation, joined, layers.full_size(value)),
        channels=like.channels,
        **known,
    )
    if node.masked and joined.how == "add":
        moved = [a for a in range(len(source.shape)) if len({w[a] for w in joined.windows}) > 1]
        pooled = source.symbol.sources(d for a in moved for d in source.grid_dims(a))
        node.weight = Weight(_counts(operation, joined, known), pooled)
    return node


def _counts(operation: Operation, joined: Slices, known: Mapping[str, Any]) -> Node:
    """The node of how many visible positions each sum of slices is over."""
    rank = len(known["mask"].shape)
    axes = tuple(tuple(d for d in own if d < rank) for own in known["axes"])

    def run(value: Any) -> Any:
        mask = layers.full_size(value).mask
        count = sum(
            factor * mask[_grid_index(joined.source, window)].astype(jnp.float32)
            for window, factor in zip(joined.windows, joined.factors)
        )
        return layers.Masked(jnp.asarray(count)[..., None], jnp.asarray(count) > 0)

    return Node(operation.aval, (joined.source,), run, **{**known, "axes": axes}, channels=(1,))


def _run_slices(operation: Operation, slices: Slices, value: layers.Masked) -> layers.Masked:
    (x, mask), inside = value, jnp.ones((1, *value.mask.shape[1:]), bool)
    if slices.source.outside is not None:
        x, mask, inside = _with_nothing_outside(operation, slices, value)
    index = [_grid_index(slices.source, window) for window in slices.windows]
    views, known = [x[i] for i in index], [mask[i][..., None] for i in index]
    visible = functools.reduce(jnp.logical_or, known)
    if slices.how == "add":
        wide = layers.wide_type(x)
        parts = [(jnp.where(k, v, 0).astype(wide), k.astype(wide)) for k, v in zip(known, views)]
        total = sum(f * v for f, (v, _) in zip(slices.factors, parts))
        count = sum(f * k for f, (_, k) in zip(slices.factors, parts))
        everything = sum(
            f * inside[i][..., None].astype(wide) for f, i in zip(slices.factors, index)
        )
        y = (total * ratio(everything, jnp.asarray(count))).astype(x.dtype)
    else:
        join: Callable = jnp.maximum if slices.how == "max" else jnp.minimum
        neutral = -jnp.inf if slices.how == "max" else jnp.inf
        y = functools.reduce(join, [jnp.where(k, v, neutral) for k, v in zip(known, views)])
    return layers.Masked(jnp.where(visible, y, jnp.zeros((), y.dtype)), visible[..., 0])


def _with_nothing_outside(operation: Operation, slices: Slices, value: layers.Masked):
    """Values, mask and what is inside of a padded image, whose padding changes nothing."""
    source, neutral = slices.source, {"add": 0, "max": -np.inf, "min": np.inf}[str(slices.how)]
    assert source.outside is not None
    fill, pads = source.outside.fill.constant, source.outside.pads
    if fill is None or (fill != neutral).any():
        operation.fail("it joins slices of a padded image that fill no window")
    x, mask = jnp.pad(value.x, (*pads, (0, 0))), jnp.pad(value.mask, pads)
    return x, mask, jnp.pad(jnp.ones((1, *value.mask.shape[1:]), bool), pads)


def _grid_index(source: Node, window: Sequence[Slide]) -> tuple[slice, ...]:
    index = [slice(None)] * len(source.grid)
    for axis, s in enumerate(window):
        if len(source.grid_dims(axis)) == 1:
            stop = s.first + (s.outputs - 1) * s.stride + 1
            index[source.grid_dims(axis)[0]] = slice(s.first, stop, s.stride)
    return tuple(index)
