"""Whether a network is in inference mode: no answer may depend on other images, or on luck."""

from collections.abc import Iterator, Sequence
from typing import Any

from jax.extend import core as jex

_RANDOM = ("random_bits", "random_seed", "threefry2x32", "rng_uniform", "rng_bit_generator")


def check_inference_mode(of_two: jex.Jaxpr, of_three: jex.Jaxpr | None) -> None:
    """Raises ValueError for a network that mixes images or draws random numbers.

    Args:
      of_two: the network, traced with two images.
      of_three: traced with three; None where it does not take three, so that mixing is not known.
    """
    drawn = next((e for e in _live(of_two) if e.primitive.name in _RANDOM), None)
    if drawn is not None:
        raise ValueError(
            "apply draws random numbers, as dropout does in training mode, the same in every call: "
            "put the network into inference mode (Flax NNX: net.eval(); Linen: train=False or "
            "deterministic=True; Equinox: eqx.nn.inference_mode(model)), or draw them outside and "
            "pass them among params"
        )
    if of_three is not None and any(map(_mixes, _live(of_two), _live(of_three))):
        raise ValueError(
            "apply mixes the images of a batch, as batch norms do in training mode, so that an "
            "image's logits depend on the others: put the network into inference mode (Flax NNX: "
            "net.eval(); Linen: train=False or use_running_average=True; Equinox: "
            "eqx.nn.inference_mode(model))"
        )


def _mixes(of_two: Any, of_three: Any) -> bool:
    """Returns whether an equation reduces an axis that is longer where there are more images."""
    if not of_two.primitive.name.startswith(("reduce_", "arg")):
        return False
    shapes = [each.invars[0].aval.shape for each in (of_two, of_three)]
    axes = of_two.params.get("axes", ())
    return any(shapes[0][axis] != shapes[1][axis] for axis in axes)


def _live(jaxpr: Any) -> Iterator[Any]:
    """Yields the equations that results depend on, the last first, and those inside of them."""
    needed = {v for v in jaxpr.outvars if isinstance(v, jex.Var)}
    for equation in reversed(jaxpr.eqns):
        if needed.isdisjoint(equation.outvars):
            continue
        needed |= {v for v in equation.invars if isinstance(v, jex.Var)}
        yield equation
        for inner in _inner(list(equation.params.values())):
            yield from _live(inner)


def _inner(values: Sequence[Any]) -> Iterator[jex.Jaxpr]:
    """Yields the functions among an equation's parameters."""
    for value in values:
        if isinstance(value, jex.ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, jex.Jaxpr):
            yield value
        elif isinstance(value, tuple | list):
            yield from _inner(value)
