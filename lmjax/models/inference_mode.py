"""Whether a network is in inference mode: dropout draws nothing, no statistics are of the batch."""

from collections.abc import Iterator
from typing import Any

from jax.extend import core as jex
from jax.extend import source_info_util
from jax.interpreters.partial_eval import dce_jaxpr

from lmjax._utils.jaxprs import inner_jaxprs

_RANDOM = ("random_bits", "random_gamma", "threefry2x32", "rng_uniform", "rng_bit_generator")
# Statistics are sums, products or extremes; `any` and `all` are of checks. Those of a batch axis
# with a name, under `vmap`, are the collective ones.
_STATISTICS = (
    *("reduce_sum", "reduce_prod", "reduce_max", "reduce_min", "argmax", "argmin"),
    *("psum", "pmax", "pmin"),
)


def check_inference_mode(of_two: jex.Jaxpr, of_three: jex.Jaxpr | None) -> None:
    """Raises ValueError for a network that draws random numbers or has statistics of the batch.

    Args:
      of_two: the network, traced with two images.
      of_three: traced with three; None where it does not take three.
    """
    equations = list(_live(of_two))
    draws = [place for each, place in equations if each.primitive.name in _RANDOM]
    if draws:
        raise ValueError(
            f"apply draws random numbers at {draws[0]}, as dropout does in training mode, "
            "the same in every call: put the network into inference mode (Flax NNX: net.eval(); "
            "Linen: train=False or deterministic=True; Equinox: eqx.nn.inference_mode(model)), or "
            "draw them outside and pass them among params"
        )
    others = [] if of_three is None else list(_live(of_three))
    if [_kind(each) for each, _ in equations] != [_kind(each) for each, _ in others]:
        return  # another computation for three images, such as a loop over them
    pairs = zip(equations, others)
    mixing = [place for (each, place), (other, _) in pairs if _is_over_images(each, other)]
    if mixing:
        raise ValueError(
            f"apply computes statistics over the images of a batch at {mixing[0]}, as "
            "batch norms do in training mode, so that an image's logits depend on the others: put "
            "the network into inference mode (Flax NNX: net.eval(); Linen: train=False or "
            "use_running_average=True; Equinox: eqx.nn.inference_mode(model))"
        )


def _place(equation: Any, caller: str) -> str:
    """Returns the line of the network, and the module where one is named.

    Args:
      equation: of the trace.
      caller: the place of the function around it, which may have been compiled without lines.
    """
    module = str(equation.source_info.name_stack)
    line = source_info_util.summarize(equation.source_info)
    if ":" not in line:
        return caller
    return f"{line} (in {module})" if module else line


def _kind(equation: Any) -> tuple[str, tuple[int, ...]]:
    """Returns the primitive and the ranks of its operands."""
    return equation.primitive.name, tuple(len(v.aval.shape) for v in equation.invars)


def _is_over_images(of_two: Any, of_three: Any) -> bool:
    """Returns whether a statistic goes over an axis that is longer where there are more images."""
    if of_two.primitive.name not in _STATISTICS:
        return False
    shapes = [each.invars[0].aval.shape for each in (of_two, of_three)]
    axes = [axis for axis in of_two.params["axes"] if isinstance(axis, int)]
    return any(shapes[0][axis] != shapes[1][axis] for axis in axes)


def _live(jaxpr: jex.Jaxpr) -> Iterator[tuple[Any, str]]:
    """Yields the equations that results depend on, and those inside of them, with their places."""
    used, _ = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return _all(used, "a line that is not known")


def _all(jaxpr: jex.Jaxpr, caller: str) -> Iterator[tuple[Any, str]]:
    for equation in jaxpr.eqns:
        place = _place(equation, caller)
        yield equation, place
        for inner in inner_jaxprs(equation):
            yield from _all(inner, place)
