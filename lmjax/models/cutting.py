"""Networks that are functions, cut in two where one value leads on to the logits.

The function is traced, and a cut is the number of the operation whose result is that value: the
first part stops there, the second puts activations in its place and what comes before it, which
nothing reads, is never compiled.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core as jex

from lmjax._utils.jaxprs import bind
from lmjax._utils.summary import brief


class Cut(NamedTuple):
    """Where a network is cut.

    Attributes:
      operation: the number of the operation, in the order in which they run.
      channel_axis: of its result `[1, ...]`.
      image_size: height and width of the images that it was traced with.
    """

    operation: int
    channel_axis: int
    image_size: int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class TracedFeatures:
    """The part of a traced network up to a cut; see `lmjax.models.Classifier.cut`."""

    classifier: Any
    cut: Cut = dataclasses.field(metadata={"static": True})

    def __call__(self, image: jax.Array) -> jax.Array:
        """Returns the activations `[h, w, D]` of an image `[H, W, C]` in [0, 1]."""
        size = self.cut.image_size
        if image.shape[:2] != (size, size):
            raise ValueError(
                f"image must be {size} x {size} pixels, the size for which this network, which is "
                f"a function, was cut; got {image.shape[0]} x {image.shape[1]}"
            )
        found = []

        def keep(number: int, results: list[Any]) -> list[Any]:
            if number == self.cut.operation:
                found.extend(results)
            return results

        _run(self.classifier, self.classifier.normalise(image)[None], keep)
        return jnp.moveaxis(found[0], self.cut.channel_axis, -1)[0]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class TracedHead:
    """The part of a traced network behind a cut; see `lmjax.models.Classifier.cut`."""

    classifier: Any
    cut: Cut = dataclasses.field(metadata={"static": True})

    def __call__(self, activations: jax.Array) -> jax.Array:
        """Returns the logits `[K]` of activations `[h, w, D]`."""
        given = jnp.moveaxis(activations[None], -1, self.cut.channel_axis)

        def put_in(number: int, results: list[Any]) -> list[Any]:
            if number != self.cut.operation:
                return results
            if given.shape != results[0].shape:
                raise ValueError(
                    f"activations must be those of this cut, {list(results[0].shape)} as the "
                    f"network has them; got {list(given.shape)}"
                )
            return [given.astype(results[0].dtype)]

        channels, size = len(self.classifier.preprocessing.mean), self.cut.image_size
        return _run(self.classifier, jnp.zeros((1, size, size, channels), jnp.float32), put_in)[0]


def cut_traced(classifier: Any, layer: str | None, image_size: int) -> Cut:
    """Finds where to cut a classifier of a function.

    Args:
      classifier: whose module is a `TracedNetwork`.
      layer: name of a module behind whose last result to cut; None takes the last place.
      image_size: height and width of the images.

    Raises:
      ValueError: no such module, or no value there from which alone the logits are computed.
    """
    channels = len(classifier.preprocessing.mean)
    closed = _traced(classifier, jax.ShapeDtypeStruct((1, image_size, image_size, channels), "f4"))
    images = closed.jaxpr.invars[-1]
    operations = list(_operations(closed.jaxpr, {images: -1}, "", iter(range(10**9))))
    found = [op for op in _bottlenecks(operations) if _has_positions(op.shape)]
    if layer is not None:
        scopes = [op.scope for op in operations]
        if not any(_within(scope, layer) for scope in scopes):
            names = dict.fromkeys(part for scope in scopes for part in scope.split("/") if part)
            raise ValueError(
                f"layer must be a module of the network, got {brief(layer)}; it has "
                f"{', '.join(list(names)[:40]) or 'no named modules'}"
            )
        found = [op for op in found if _within(op.scope, layer)]
    if not found:
        where = "the network" if layer is None else f"layer {layer!r}"
        raise ValueError(
            f"{where} has no value [h, w, D] from which alone the logits are computed, so that it "
            "cannot be cut there; take the end of a block, or write the two parts yourself"
        )
    shape = found[-1].shape
    first = 1 if classifier.module.layout == "NCHW" else 3
    square = shape[2] == shape[3] if first == 1 else shape[1] == shape[2]
    # A square image has a square grid, which tells how a network holds it inside.
    return Cut(found[-1].number, first if square else 4 - first, image_size)


class _Operation(NamedTuple):
    """An operation that depends on the images.

    Attributes:
      number: in the order in which operations run, the others counted too.
      reads: numbers of the operations whose results it reads; -1 are the images.
      scope: names of the modules that it is in, joined by `/`.
      shape: of its first result.
    """

    number: int
    reads: tuple[int, ...]
    scope: str
    shape: tuple[int, ...]


def _bottlenecks(operations: Sequence[_Operation]) -> Iterator[_Operation]:
    """Yields the operations whose result alone is read by what comes later."""
    last_read = {op.number: op.number for op in operations}
    for op in operations:
        last_read |= dict.fromkeys(op.reads, op.number)
    last_read[operations[-1].number] = operations[-1].number + 1  # the logits
    alive: set[int] = {-1}
    for op in operations:
        alive = {number for number in alive if last_read[number] > op.number}
        alive |= {op.number} if last_read[op.number] > op.number else set()
        if alive == {op.number}:
            yield op


def _operations(
    jaxpr: jex.Jaxpr, made_by: dict[Any, int], scope: str, numbers: Iterator[int]
) -> Iterator[_Operation]:
    """Yields the operations that depend on the images; fills in which made which variable."""
    for equation in jaxpr.eqns:
        own = "/".join(filter(None, (scope, str(equation.source_info.name_stack))))
        inner = _inlined(equation)
        given = [None if isinstance(v, jex.Literal) else made_by.get(v) for v in equation.invars]
        if inner is not None:
            pairs = zip(inner.jaxpr.invars, given, strict=True)
            inside = {v: number for v, number in pairs if number is not None}
            yield from _operations(inner.jaxpr, inside, own, numbers)
            for result, variable in zip(inner.jaxpr.outvars, equation.outvars, strict=True):
                if not isinstance(result, jex.Literal) and result in inside:
                    made_by[variable] = inside[result]
            continue
        number = next(numbers)
        reads = tuple(dict.fromkeys(n for n in given if n is not None))
        if reads:
            made_by |= dict.fromkeys(equation.outvars, number)
            result: Any = equation.outvars[0].aval
            yield _Operation(number, reads, own, tuple(result.shape))


def _has_positions(shape: Sequence[int]) -> bool:
    """Whether a result can be a map of several positions, of one image."""
    return len(shape) == 4 and shape[0] == 1 and sum(n > 1 for n in shape[1:]) >= 2


def _within(scope: str, layer: str) -> bool:
    """Whether a scope is in a module; torch's names hold dots, `layer3.0` in `layer3`."""
    return f"/{layer}/" in f"/{scope}/" or f"/{layer}." in f"/{scope}/"


def _inlined(equation: jex.JaxprEqn) -> jex.ClosedJaxpr | None:
    """Returns the function that an equation does nothing but call."""
    called = equation.params.get("jaxpr") if equation.primitive.name in ("jit", "pjit") else None
    return called if isinstance(called, jex.ClosedJaxpr) else None


def _traced(classifier: Any, images: Any) -> jex.ClosedJaxpr:
    """Traces the plain network, from normalised images `[1, H, W, C]`."""

    def network(variables: Any, images: jax.Array) -> jax.Array:
        return dataclasses.replace(classifier, variables=variables).apply(images)

    return jax.make_jaxpr(network)(classifier.variables, images)


def _run(
    classifier: Any, images: jax.Array, visit: Callable[[int, list[Any]], list[Any]]
) -> jax.Array:
    """Returns the logits of the plain network; `visit` may replace results of operations."""
    images = images.astype(jnp.float32)  # as the network was cut
    closed = _traced(classifier, images)
    arguments = *jax.tree.leaves(classifier.variables), images
    (logits,) = _evaluate(closed, arguments, visit, iter(range(10**9)))
    return logits


def _evaluate(
    closed: jex.ClosedJaxpr,
    arguments: Sequence[Any],
    visit: Callable[[int, list[Any]], list[Any]],
    numbers: Iterator[int],
) -> list[Any]:
    """Runs a traced function, operation by operation."""
    jaxpr = closed.jaxpr
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*closed.consts, *arguments), strict=True))

    def read(variable: Any) -> Any:
        return variable.val if isinstance(variable, jex.Literal) else values[variable]

    for equation in jaxpr.eqns:
        given, inner = [read(v) for v in equation.invars], _inlined(equation)
        if inner is not None:
            results = _evaluate(inner, given, visit, numbers)
        else:
            results = visit(next(numbers), bind(jaxpr, equation, given))
        values |= dict(zip(equation.outvars, results, strict=True))
    return [read(v) for v in jaxpr.outvars]
