"""Operations that treat every position by itself: arithmetic, and all that works on channels."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex

from lmjax.masking import layers
from lmjax.masking.transform.nodes import LayerMaskError, Node
from lmjax.masking.transform.operation import RULES, Operation
from lmjax.masking.transform.origins import Axes, Outside
from lmjax.masking.transform.plain import ELEMENTWISE, bind_alike
from lmjax.masking.transform.symbols import Symbol
from lmjax.masking.transform.tracing import Trace, realised


class Pointwise(Node):
    """A function of each position's channels, and of plain arrays that broadcast to them.

    Attributes:
      function: takes one array `[*lead, C]` for each input, where `lead` is the grid, or rows; and
        `[..., 1]` where an input repeats one entry. Chains of these nodes are composed.
    """

    kind = "pointwise"

    def __init__(self, aval: Any, inputs: Sequence[Node], function: Callable, **known: Any):
        super().__init__(aval, inputs, **known)
        self.function, self.risky = function, False


def apply_pointwise(inputs: Sequence[Node], function: Callable, values: Sequence[Any]) -> Any:
    """Runs a function of channels on stored values and arrays, in the order of the inputs."""
    first = next(i for i, x in enumerate(inputs) if x.masked)
    order = [first, *(i for i in range(len(inputs)) if i != first)]

    def in_order(*arrays: jax.Array) -> jax.Array:
        placed = dict(zip(order, arrays))
        return function(*(placed[i] for i in range(len(inputs))))

    return layers.pointwise(values[first], in_order, *(values[i] for i in order[1:]))


def pointwise(
    trace: Trace,
    aval: Any,
    inputs: Sequence[Node],
    function: Callable,
    *,
    like: Node | None = None,
    **known: Any,
) -> Node:
    """Returns a node for a function of channels; `like` gives what `known` does not say."""
    if like is not None:
        base = {"mask": like.mask, "axes": like.axes, "channels": like.channels}
        known = {**base, "outside": like.outside, **known}
    return trace.settled(Pointwise(aval, inputs, function, **known))


# Channels.


def on_channels(node: Node, function: Callable) -> Callable:
    """Returns a function of `[*lead, C]` from one of `[*lead, *channels]`."""

    def run(x: jax.Array) -> jax.Array:
        lead = x.shape[:-1]
        y = function(x.reshape(*lead, *node.channels))
        return y.reshape(*lead, math.prod(y.shape[len(lead) :]))

    return run


def normal(trace: Trace, node: Node) -> Node:
    """Returns a node with at most one channel dimension for each axis, in the order of axes."""
    order = [d for axis in range(len(node.shape)) for d in node.channel_dims(axis)]
    order += [d for d in range(len(node.channels)) if d not in order]  # of one entry
    groups = [node.channel_dims(axis) for axis in range(len(node.shape))]
    sizes = [math.prod(node.channels[d] for d in dims) for dims in groups if dims]
    if order == list(range(len(order))) and sizes == list(node.channels):
        return node
    rank, number, axes = len(node.grid), iter(range(len(sizes))), []
    for axis, dims in enumerate(groups):
        _check_order(node, axis)
        axes.append(node.grid_dims(axis) + ((rank + next(number),) if dims else ()))

    def make() -> Node:
        permute = functools.partial(_permuted, order=order)
        return pointwise(
            trace,
            jax.ShapeDtypeStruct(node.shape, node.dtype),
            [node],
            on_channels(node, permute),
            like=node,
            axes=tuple(axes),
            channels=sizes,
        )

    return node.symbol.once(("normal", node), make)


def _permuted(x: jax.Array, order: Sequence[int]) -> jax.Array:
    lead = x.ndim - len(order)
    return jnp.transpose(x, (*range(lead), *(lead + d for d in order)))


def _check_order(node: Node, axis: int) -> None:
    grid, channels = node.grid_dims(axis), node.channel_dims(axis)
    if grid and channels and node.axes[axis] != (*grid, *(len(node.grid) + d for d in channels)):
        raise LayerMaskError(f"axis {axis} holds channels in front of positions or of the batch")


def channel_of(node: Node, axis: int) -> int:
    """Returns the number, from behind, of the channel dimension of an axis (of a normal node)."""
    (dim,) = node.channel_dims(axis)
    return dim - len(node.channels)


# Operands of several shapes.


class Target:
    """Where the operands of an operation meet: a grid, and channels for axes of the array."""

    def __init__(self, mask: Symbol, axes: Axes, channels: Sequence[int]):
        self.mask, self.axes, self.channels = mask, axes, tuple(channels)

    @property
    def grid(self) -> tuple[int, ...]:
        """Shape of the grid."""
        return self.mask.shape

    def spread(self, node: Node) -> Callable:
        """Returns a function that gives a masked operand's `[*lead, c]` all channels, or one."""
        own = [1] * len(self.channels)
        for axis in range(len(node.shape)):
            for dim, mine in zip(self._channel_dims(axis), node.channel_dims(axis)):
                own[dim] = node.channels[mine]
        if tuple(own) == self.channels or math.prod(own) == 1:
            return lambda x: x

        def run(x: jax.Array) -> jax.Array:
            lead = x.shape[:-1]
            x = jnp.broadcast_to(x.reshape(*lead, *own), (*lead, *self.channels))
            return x.reshape(*lead, math.prod(self.channels))

        return run

    def _channel_dims(self, axis: int) -> list[int]:
        return [d - len(self.grid) for d in self.axes[axis] if d >= len(self.grid)]

    def place(self, node: Node) -> Callable:
        """Returns a function that turns a plain array into `[*grid, C]`, with ones where it can."""
        sizes, rank = (*self.grid, *self.channels), len(self.grid)
        if not node.stored:
            return lambda value: jnp.reshape(value, (1,) * (rank + 1))
        order = [d for dims in self.axes for d in dims]
        split: list[int] = []
        for size, dims in zip(node.stored, self.axes):
            split += [1] * len(dims) if size == 1 else [sizes[d] for d in dims]
        missing = [d for d in range(len(sizes)) if d not in order]
        where = np.argsort([*order, *missing])
        wide = [*split, *(1 for _ in missing)]
        lead, own = [wide[i] for i in where][:rank], [wide[i] for i in where][rank:]
        channels = own if math.prod(own) == 1 else self.channels

        def run(value: Any) -> jax.Array:
            x = jnp.transpose(jnp.reshape(value, wide), where)
            return jnp.broadcast_to(x, (*lead, *channels)).reshape(*lead, math.prod(channels))

        return run


def meet(trace: Trace, operands: Sequence[Node]) -> tuple[list[Node], Target]:
    """Returns operands of one grid (plain ones as they are), and where they meet."""
    operands = [normal(trace, x) if x.masked else x for x in operands]
    masked = [x for x in operands if x.masked]
    lead = max(masked, key=lambda x: sum(len(x.grid_dims(i)) for i in range(len(x.shape))))
    if any(grid_axes(x) != grid_axes(lead) or x.grid != lead.grid for x in masked):
        axes, shape = union(masked, lead)
        operands = [on_grid(trace, x, axes, shape) if x.masked else x for x in operands]
        masked = [x for x in operands if x.masked]
        lead = masked[0]
    mask = functools.reduce(Symbol.both, [x.symbol for x in masked])
    axes, channels, rank = [], [], len(mask.shape)
    for axis in range(len(lead.shape)):
        dims, size = lead.grid_dims(axis), max(x.shape[axis] for x in operands if x.shape)
        rest = size // math.prod((n for n in _sizes(lead, dims)), start=1)
        varies = any(x.channel_dims(axis) for x in masked)
        plain = any(x.stored and x.stored[axis] > 1 for x in operands if not x.masked)
        if rest > 1 and (varies or (plain and not dims)):
            axes.append((*dims, rank + len(channels)))
            channels.append(rest)
        else:
            axes.append(dims)
    return operands, Target(mask, tuple(axes), channels or [1])


def _sizes(node: Node, dims: Sequence[int]):
    return (node.grid[d] + sum(node.pads[d]) for d in dims)


def grid_axes(node: Node) -> Axes:
    return tuple(node.grid_dims(axis) for axis in range(len(node.shape)))


def union(masked: Sequence[Node], lead: Node) -> tuple[Axes, tuple[int, ...]]:
    """Dimensions that all operands fit into: those of the lead, then what others add."""
    axes, shape = list(grid_axes(lead)), list(lead.grid)
    for node in masked:
        for axis, dims in enumerate(grid_axes(node)):
            if dims and not axes[axis] and not (dims == (0,)):
                axes[axis] = tuple(range(len(shape), len(shape) + len(dims)))
                shape += [node.grid[d] for d in dims]
            elif dims and not axes[axis]:
                axes[axis] = (0,)
    return tuple(axes), tuple(shape)


def on_grid(trace: Trace, node: Node, axes: Axes, shape: tuple[int, ...]) -> Node:
    """Returns a node on a grid with more dimensions, or with the same ones in another order."""
    if grid_axes(node) == axes and node.grid == shape:
        return node
    if node.outside is not None:
        node = realised(trace, node)
    source: list[int | None] = [None] * len(shape)
    for mine, theirs in zip(grid_axes(node), axes):
        if mine and (len(mine) != len(theirs)):
            raise LayerMaskError("positions are merged into one axis in one operand alone")
        for d, to in zip(mine, theirs):
            source[to] = d
    used = {d for d in source if d is not None}
    if any(n > 1 for d, n in enumerate(node.grid) if d not in used):
        raise LayerMaskError("operands whose positions do not correspond")
    if 0 not in used:
        raise LayerMaskError("an operand without a batch axis that has positions")
    order = [d for d in source if d is not None]
    new = tuple(i for i, d in enumerate(source) if d is None)
    squeezed = tuple(d for d in range(len(node.grid)) if d not in used)
    order = [d - sum(s < d for s in squeezed) for d in order]

    def arrange(x: jax.Array, rank: int) -> jax.Array:
        rest = tuple(range(len(order), rank - len(squeezed)))
        x = jnp.transpose(jnp.squeeze(x, squeezed), (*order, *rest))
        x = jnp.expand_dims(x, new)
        return jnp.broadcast_to(x, (*shape, *x.shape[len(shape) :]))

    def run(value: Any) -> Any:
        x, mask = layers.full_size(value)
        return layers.Masked(arrange(x, x.ndim), arrange(mask, mask.ndim))

    rank, number = len(shape), len(node.grid)
    own = tuple(
        theirs + tuple(rank + d - number for d in node.axes[axis] if d >= number)
        if node.grid_dims(axis)
        else tuple(rank + d - number for d in node.axes[axis])
        for axis, theirs in enumerate(axes)
    )
    return Node(
        jax.ShapeDtypeStruct(node.shape, node.dtype),
        [node],
        run,
        mask=node.symbol.other(
            ("arranged", tuple(source)),
            shape,
            [frozenset() if d is None else node.symbol.of[d] for d in source],
        ),
        axes=own,
        channels=node.channels,
    )


# Rules.

_RISKY = frozenset(
    [
        "acos",
        "acosh",
        "asin",
        "atan2",
        "atanh",
        "cbrt",
        "cosh",
        "digamma",
        "div",
        "erf_inv",
        "exp",
        "exp2",
        "expm1",
        "integer_pow",
        "lgamma",
        "log",
        "log1p",
        "pow",
        "rem",
        "rsqrt",
        "sinh",
        "sqrt",
        "tan",
    ]
)


def elementwise(operation: Operation, *operands: Node) -> Node:
    """Returns the node of an operation that works entry by entry."""
    node = combine(operation.trace, operation.aval, operands, functools.partial(_bind, operation))
    if isinstance(node, Pointwise):
        node.risky = operation.name in _RISKY
    return node


def _bind(operation: Operation, *arrays: Any) -> jax.Array:
    return bind_alike(operation, arrays)


def combine(trace: Trace, aval: Any, operands: Sequence[Node], function: Callable) -> Node:
    """Returns the node of a function that works entry by entry on arrays of one shape.

    Args:
      trace: to add it to.
      aval: shape and dtype of the result.
      operands: nodes that broadcast to its shape, at least one with positions.
      function: takes arrays that broadcast to each other.
    """
    operands, outside = around(trace, operands, aval, function)
    operands, target = meet(trace, operands)
    adapted = [target.spread(x) if x.masked else None for x in operands]
    given = [x if x.masked else placed(trace, x, target) for x in operands]

    def run(*arrays: jax.Array) -> jax.Array:
        arrays = tuple(a if f is None else f(a) for f, a in zip(adapted, arrays))
        y = function(*arrays)
        lead = np.broadcast_shapes(*(a.shape[:-1] for a in arrays))
        return jnp.broadcast_to(y, (*lead, math.prod(target.channels)))

    return pointwise(
        trace,
        aval,
        given,
        run,
        mask=target.mask,
        axes=target.axes,
        channels=target.channels,
        outside=outside,
    )


def _joint(
    shapes: Sequence[Sequence[int]], full: Sequence[int], along: int | None
) -> tuple[int, ...]:
    """The shape that arrays broadcast to, or have when they are joined along an axis."""
    rest = [[1 if a == along else n for a, n in enumerate(shape)] for shape in shapes]
    return tuple(full[a] if a == along else n for a, n in enumerate(np.broadcast_shapes(*rest)))


def _varies_over(plain: Node, masked: Sequence[Node]) -> bool:
    """Whether a plain array differs between positions of padded operands."""
    axes = {i for x in masked for i in range(len(x.shape)) if x.of_positions(i)}
    return bool(plain.stored) and any(plain.stored[i] > 1 for i in axes)


def placed(trace: Trace, node: Node, target: Target) -> Node:
    """A plain operand as `[*grid, C]`; 1 where it repeats one entry."""
    place = target.place(node)
    shape = jax.eval_shape(place, jax.ShapeDtypeStruct(node.stored, node.dtype))
    return trace.plain(shape, [node], place)


def around(
    trace: Trace,
    operands: Sequence[Node],
    aval: Any,
    function: Callable,
    *,
    along: int | None = None,
) -> tuple[list[Node], Outside | None]:
    """Operands that agree about what is outside the image, and what is there in the result."""
    masked = [x for x in operands if x.masked]
    if all(x.outside is None for x in masked):
        return list(operands), None
    pads = {x.pads for x in masked}
    if any(not x.masked and _varies_over(x, masked) for x in operands):
        return [realised(trace, x) if x.masked else x for x in operands], None
    if len(pads) > 1 or len({grid_axes(x) for x in masked}) > 1:
        if not any(x.outside is None for x in masked):
            raise LayerMaskError("operands that were padded at different sides")
        return [realised(trace, x) if x.masked else x for x in operands], None
    fills = [x.outside.fill if x.masked else x for x in operands]
    stored = _joint([x.stored for x in fills if x.shape], aval.shape, along)
    fill = trace.plain(aval, fills, function, stored=stored)
    return list(operands), Outside(pads.pop(), fill)


def _call(operation: Operation, *operands: Node) -> Node | list[Node]:
    """Returns the nodes of a function in the function, evaluated in its place."""
    closed = inner_jaxpr(operation)
    consts = [operation.trace.given(c) for c in closed.consts]
    return operation.trace.evaluate(closed.jaxpr, consts, operands, operation.scope)


def inner_jaxpr(operation: Operation) -> jex.ClosedJaxpr:
    """Returns the function that a call calls."""
    keys = ("call_jaxpr", "fun_jaxpr", "jaxpr")
    inner = next(operation.params[k] for k in keys if k in operation.params)
    return inner if hasattr(inner, "consts") else jex.ClosedJaxpr(inner, ())


def _custom_call(operation: Operation, *operands: Node) -> Node | list[Node]:
    """Returns the node of a function with its own derivative, which stays if it is elementwise."""
    closed = inner_jaxpr(operation)
    if not _is_elementwise(closed):
        return _call(operation, *operands)
    return [combine(operation.trace, operation.aval, operands, _with_derivative(operation, closed))]


def _is_elementwise(closed: jex.ClosedJaxpr) -> bool:
    return len(closed.jaxpr.outvars) == 1 and _are_elementwise(closed)


def _are_elementwise(closed: jex.ClosedJaxpr) -> bool:
    shape = closed.jaxpr.outvars[0].aval.shape
    for equation in closed.jaxpr.eqns:
        if any(v.aval.shape not in (shape, ()) for v in (*equation.invars, *equation.outvars)):
            return False
        name = equation.primitive.name
        scalar = name == "broadcast_in_dim" and not equation.invars[0].aval.shape
        inner = [x for x in jex.jaxprs_in_params(equation.params)]
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
        elif list(jex.jaxprs_in_params(equation.params)):
            results = evaluate_alike(inner_jaxpr(operation), *given)
        else:
            results = [bind_alike(operation, given)]
        values.update(zip(equation.outvars, results))
    return [read(v) for v in closed.jaxpr.outvars]


def _with_derivative(operation: Operation, closed: jex.ClosedJaxpr) -> Callable:
    """The function in the call, with the derivative that its author gave it."""
    avals = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in operation.equation.invars]

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
    return _reverse_mode(forward, cotangents) if _are_elementwise(cotangents) else forward


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


RULES.update(dict.fromkeys(ELEMENTWISE, elementwise))
RULES.update(dict.fromkeys(("jit", "pjit", "closed_call", "core_call", "remat2"), _call))
RULES.update(dict.fromkeys(("remat", "checkpoint", "custom_lin"), _call))
RULES.update(
    dict.fromkeys(("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"), _custom_call)
)
