"""What is computed, in which order, and how much of it.

Backward over the nodes: which outputs of a convolution does anything later read? Where a residual
sum keeps fewer positions than a convolution gives, the convolution gives those alone, and fewer
rings of neighbor padding are enough. Forward: chains of pointwise operations become one.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lmjax.masking import layers
from lmjax.masking.transform.convolutions import Convolution
from lmjax.masking.transform.nodes import Node
from lmjax.masking.transform.pointwise import Pointwise, apply_pointwise
from lmjax.masking.transform.symbols import Symbol, rings_needed, still, within


class Step(NamedTuple):
    """The computation of a node.

    Attributes:
      node: it.
      inputs: the nodes that it is computed from.
      function: of a pointwise node, composed from a chain of them.
      keeps_zero: whether that function gives 0 where its inputs are hidden and hold 0.
      rings: of neighbor padding, for a convolution.
      keep: a node that has the positions to keep, or None.
      seam: a node that all later steps are computed from, or None.
    """

    node: Node
    inputs: tuple[Node, ...]
    function: Any = None
    keeps_zero: bool = False
    rings: int = 0
    keep: Node | None = None
    seam: Node | None = None


class Plan:
    """The steps that compute some nodes.

    Attributes:
      outputs: the nodes that are wanted.
      steps: in order.
    """

    def __init__(self, outputs: Sequence[Node], given: Sequence[Node], *, shortcuts: bool = True):
        """Makes a plan.

        Args:
          outputs: nodes that are wanted.
          given: nodes whose values are there.
          shortcuts: whether convolutions compute only what is read; False runs the full recipe.
        """
        self.outputs, self._given = tuple(outputs), frozenset(given)
        nodes = _reachable(outputs, self._given)
        needs = _needs(nodes, outputs) if shortcuts else {}
        alike = _by_mask(nodes)
        keeps = {x: _keep(x, needs, alike) for x in nodes if isinstance(x, Convolution)}
        chains = _chains(nodes, [*outputs, *(x for x in keeps.values() if x is not None)])
        steps = [self._step(node, needs, chains, keeps) for node in nodes if node in chains]
        self.steps = _with_seams(_scheduled(steps, outputs), self.outputs, self._given)

    def _step(self, node: Node, needs, chains: Mapping[Node, Any], keeps) -> Step:
        if isinstance(node, Pointwise):
            chain = chains[node]
            return Step(node, chain.inputs, chain.function, _keeps_zero(node, chain))
        if not isinstance(node, Convolution):
            return Step(node, node.inputs)
        if node not in needs:
            rings = max(s.dilation * (s.size - 1) for s in node.slides)
        else:
            rings = rings_needed(node.inputs[0].symbol, needs[node], node.slides)
        return Step(node, node.inputs, rings=rings, keep=keeps[node])

    def run(self, values: dict[Node, Any]) -> list[Any]:
        """Returns the values of the outputs.

        Args:
          values: of the given nodes; the others' are added.
        """
        for step in self.steps:
            values[step.node] = _value(step, values)
            if step.seam is not None:
                values[step.seam] = layers.seam(values[step.seam])
        return [values[node] for node in self.outputs]


def _value(step: Step, values: Mapping[Node, Any]) -> Any:
    inputs = [values[x] for x in step.inputs]
    if step.function is not None:
        return apply_pointwise(step.inputs, step.function, inputs, keeps_zero=step.keeps_zero)
    if not isinstance(step.node, Convolution):
        assert step.node.run is not None
        return step.node.run(*inputs)
    keep = None if step.keep is None else values[step.keep]
    fits = keep is not None and isinstance(keep, type(inputs[0]) if _is_rows(inputs[0]) else object)
    mask = getattr(keep, "mask", None) if fits else None
    if _is_rows(inputs[0]) and isinstance(mask, jax.Array):
        mask = None  # of an image before its first convolution, which has no rows yet
    assert step.node.run is not None
    return step.node.run(*inputs, rings=step.rings, keep=mask)


def _is_rows(value: Any) -> bool:
    return not isinstance(value, layers.Masked)


def _of_points(node: Convolution) -> bool:
    return all(s == still(n) for s, n in zip(node.slides, node.inputs[0].grid))


def _reachable(outputs: Sequence[Node], given: frozenset[Node]) -> list[Node]:
    """Nodes that the outputs need, inputs first."""
    found, left = set(), list(outputs)
    while left:
        node = left.pop()
        if node not in found and node not in given:
            found.add(node)
            left += node.inputs
    return sorted(found, key=lambda node: node.number)


def _needs(nodes: Sequence[Node], outputs: Sequence[Node]) -> dict[Node, Symbol]:
    """Of each node with positions the mask beyond which nothing is read of it."""
    needs = {x: x.symbol for x in outputs if x.masked}
    for node in reversed(nodes):
        for x in node.inputs:
            if x.masked:
                needs[x] = _merged(needs.get(x), _read(node, x, needs), x)
    return needs


def _read(node: Node, x: Node, needs: Mapping[Node, Symbol]) -> Symbol:
    """What a node reads of its input."""
    passes = isinstance(node, Pointwise) or (isinstance(node, Convolution) and _of_points(node))
    if not passes or not node.masked or node not in needs or node.grid != x.grid:
        return x.symbol
    return needs[node]


def _merged(one: Symbol | None, other: Symbol, x: Node) -> Symbol:
    if one is None or within(one, other):
        return other
    return one if within(other, one) else x.symbol


def _by_mask(nodes: Sequence[Node]) -> dict[Symbol, list[Node]]:
    """Nodes over rows and columns, by their masks, in the order in which they were made."""
    found: dict[Symbol, list[Node]] = {}
    for node in nodes:
        if node.masked and len(node.grid) == 3:
            found.setdefault(node.symbol, []).append(node)
    return found


def _keep(
    node: Convolution, needs: Mapping[Node, Symbol], alike: Mapping[Symbol, list[Node]]
) -> Node | None:
    """A node that has the positions which are read of a convolution, where they are fewer.

    The last one before it, which is read by what comes after, else the first one that does not
    follow from it.
    """
    need = needs.get(node)
    if need is None or need is node.mask or len(node.grid) != 3:
        return None
    candidates = alike.get(need, [])
    before = [x for x in candidates if x.number < node.number]
    if before:
        return before[-1]
    return next((x for x in candidates if not _follows(x, node)), None)


def _follows(node: Node, from_: Node) -> bool:
    """Whether a node is computed from another one."""
    seen, left = set(), [node]
    while left:
        x = left.pop()
        if x is from_:
            return True
        if x.number > from_.number and x not in seen:
            seen.add(x)
            left += x.inputs
    return False


class _Chain(NamedTuple):
    """Pointwise nodes in a chain, as one.

    Attributes:
      inputs: of the chain.
      function: of their channels.
      hidden: what it gives where masked inputs hold 0, one entry; None where that is unknown.
    """

    inputs: tuple[Node, ...]
    function: Any
    hidden: np.ndarray | None


def _keeps_zero(node: Node, chain: _Chain) -> bool:
    """Whether a chain gives 0 wherever its result is hidden, without a selection."""
    masks = {x.symbol for x in chain.inputs if x.masked}
    return masks == {node.symbol} and chain.hidden is not None and not chain.hidden


def _where_hidden(node: Node) -> np.ndarray | None:
    """What an input of a chain holds where it is hidden, or everywhere; None where it varies."""
    if node.masked:
        return np.zeros((), node.dtype)
    number = node.constant
    return number.reshape(()) if number is not None and number.size == 1 else None


def _chains(nodes: Sequence[Node], outputs: Sequence[Node]) -> dict[Node, _Chain | None]:
    """Chain of each pointwise node that is computed and no part of another's; None for others."""
    uses: dict[Node, int] = dict.fromkeys(outputs, 2)
    for node in nodes:
        for x in node.inputs:
            uses[x] = uses.get(x, 0) + 1
    chains: dict[Node, _Chain | None] = {}
    for node in nodes:
        if not isinstance(node, Pointwise):
            chains[node] = None
            continue
        parts = []
        for x in node.inputs:
            alone = isinstance(x, Pointwise) and uses[x] == 1 and not node.risky
            own = chains.pop(x, None) if alone and x.grid == node.grid else None
            parts.append(own or _Chain((x,), None, _where_hidden(x)))
        chains[node] = _Chain(
            tuple(x for part in parts for x in part.inputs),
            _composed(node.function, parts),
            node.where_hidden([part.hidden for part in parts]),
        )
    return chains


def _composed(function: Any, parts: Sequence[_Chain]) -> Any:
    if all(part.function is None for part in parts):
        return function

    def run(*arrays: Any) -> Any:
        left, given = list(arrays), []
        for part in parts:
            own, left = left[: len(part.inputs)], left[len(part.inputs) :]
            given.append(own[0] if part.function is None else part.function(*own))
        return function(*given)

    return run


def _scheduled(steps: Sequence[Step], outputs: Sequence[Node]) -> list[Step]:
    """Steps in an order in which positions to keep are there before the convolution that keeps."""
    by_node = {step.node: step for step in steps}
    order: list[Step] = []
    done, open_ = set(), set()
    left = [(node, False) for node in reversed(list(outputs))]
    while left:
        node, entered = left.pop()
        if node in done or node not in by_node:
            continue
        step = by_node[node]
        if entered:
            done.add(node)
            order.append(step)
            continue
        open_.add(node)
        if step.keep in open_ and step.keep not in done:
            by_node[node] = step = step._replace(keep=None)
        before = [*step.inputs, *([step.keep] if step.keep is not None else [])]
        left.append((node, True))
        left += [(x, False) for x in reversed(before) if x not in done]
    return order


def _with_seams(
    steps: Sequence[Step], outputs: Sequence[Node], given: frozenset[Node]
) -> list[Step]:
    """Marks where all that follows is computed from one value with positions."""
    last: dict[Node, int] = {}
    readers: dict[Node, list[Step]] = {}
    for i, step in enumerate(steps):
        for x in (*step.inputs, *([step.keep] if step.keep is not None else [])):
            last[x] = i
            readers.setdefault(x, []).append(step)
    last.update(dict.fromkeys(outputs, len(steps)))
    of_images = {x for x in given if x.masked}
    live, before = set(of_images), None
    marked = []
    for i, step in enumerate(steps):
        if any(x in of_images for x in step.inputs):
            of_images.add(step.node)
            live.add(step.node)
        live = {x for x in live if last.get(x, -1) > i}
        seam = _seam(live, given, readers)
        marked.append(step._replace(seam=None if seam is before else seam))
        before = seam
    return marked


def _seam(live: set[Node], given: frozenset[Node], readers: Mapping[Node, Any]) -> Node | None:
    if len(live) != 1:
        return None
    (node,) = live
    at_image = node in given or not node.masked
    if at_image or len(node.grid) != 3 or node.symbol.positions == 1:
        return None
    if all(step.function is not None for step in readers.get(node, ())):
        return None  # what follows is part of the same layer
    return node
