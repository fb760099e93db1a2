"""Compares engines layer by layer, to find where one of them goes wrong."""

import contextlib
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lmjax._utils.checks import check_choice, check_number
from lmjax.evaluation.evaluator import Evaluator, as_predictor
from lmjax.masking.checks import check_mask
from lmjax.masking.masked import Masked
from lmjax.masking.sparse.allocation import Allocation
from lmjax.masking.sparse.positions import Cut, Layout
from lmjax.masking.sparse.rows import Rows, at_full_size


class EngineComparison(NamedTuple):
    """Where an engine parts from `"dense"`.

    Attributes:
      layer: path of the first layer whose outputs differ by more than the tolerance, such as
        `"layer1.0/conv2"`; None where all layers agree.
      errors: largest difference of each layer's outputs, in order, as a share of its largest value.
      logits_error: the same of the logits that the engine gives in `lmjax.evaluate`.
    """

    layer: str | None
    errors: dict[str, float]
    logits_error: float


def compare_engines(
    predictor: Callable | Evaluator,
    image: ArrayLike,
    masks: ArrayLike,
    *,
    engine: Literal["visible", "shared"] = "visible",
    tolerance: float = 1e-4,
) -> EngineComparison:
    """Runs an engine and `"dense"` on the same masks and names the first layer where they part.

    For debugging: the outputs of all layers of all variants are held at full size.

    Args:
      predictor: an `lmjax.Predictor` that supports the engine, of a network in Flax Linen.
      image: `[H, W, C]` floats in [0, 1].
      masks: `[N, H, W]` bool, 1 = visible; a few.
      engine: which engine to compare. Under `"shared"`, layers are compared up to the last place
        where the network can be cut, behind which variants share nothing.
      tolerance: largest difference that counts as agreement, as a share of a layer's largest value.

    Raises:
      ValueError: another engine, one that the predictor does not support, or a network that is a
        function, whose layers are not known.
    """
    check_choice("engine", engine, ("visible", "shared"))
    tolerance = check_number("tolerance", tolerance, least=0)
    predictor = as_predictor(predictor)
    evaluate = Evaluator(predictor, engine=engine)  # which checks that it is supported
    masks = np.asarray(check_mask(masks, np.shape(image)[:2]))
    expected = Evaluator(predictor, engine="dense")(image, masks)
    logits_error = _difference(evaluate(image, masks), expected)
    names, dense = _dense_outputs(predictor, image, masks)
    if not names:
        raise ValueError(
            "predictor must be of a network in Flax Linen, whose layers can be compared; of this "
            f"one only the logits can, which differ by {logits_error:.2g} of the largest"
        )
    _, found = _row_outputs(predictor, image, masks, sharing=engine == "shared")
    errors = {
        name if names.count(name) == 1 else f"{name}[{i}]": _difference(one, other)
        for i, (name, one, other) in enumerate(zip(names, found, dense))
    }
    parted = [name for name, error in errors.items() if not error <= tolerance]
    return EngineComparison(parted[0] if parted else None, errors, logits_error)


def _difference(found: ArrayLike, expected: ArrayLike) -> float:
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    largest = np.abs(expected).max(initial=0)
    return float(np.abs(found - expected).max(initial=0) / max(largest, 1e-30))


def _dense_outputs(predictor, image, masks: np.ndarray) -> tuple[list[str], list[jax.Array]]:
    names: list[str] = []

    @jax.jit
    def run(predictor, image, masks):
        with _recorded() as outputs:
            predictor(image, masks)
        names.extend(name for name, _ in outputs)
        return [x for _, x in outputs]

    values = run(predictor, jnp.asarray(image, jnp.float32), masks)
    return names, values


def _row_outputs(
    predictor, image, masks: np.ndarray, *, sharing: bool
) -> tuple[list[str], list[jax.Array]]:
    names: list[str] = []
    image = jnp.asarray(image, jnp.float32)

    def run(predictor, image, masks, layout: Layout):
        with _recorded() as outputs, contextlib.suppress(Cut):
            predictor.on_visible(image, masks, layout)
        layout.forget_arrays()
        names[:] = [name for name, _ in outputs]
        return [x for _, x in outputs]

    def recorded(**options) -> Layout:
        layout = Layout(num_variants=len(masks), **options)
        jax.eval_shape(lambda p, i, m: run(p, i, m, layout), predictor, image, masks)
        return layout

    options = {}
    if sharing:
        options = {"sharing": True, "stop": recorded().seams}
    layout = recorded(**options)
    needed = Allocation(masks, layout).counts().sum(axis=0)
    capacities = tuple(np.maximum(needed, 1).tolist())
    arrays = Allocation(masks, layout, capacities).arrays()

    @jax.jit
    def compute(predictor, image, masks, arrays):
        given = Layout(capacities, arrays, num_variants=len(masks), **options)
        return run(predictor, image, masks, given)

    return names, compute(predictor, image, masks, arrays)


@contextlib.contextmanager
def _recorded():
    """A list of (path, full-size outputs) of all layers that run inside the context."""
    from flax import linen as nn  # predictors of other libraries need none

    outputs: list[tuple[str, jax.Array]] = []

    def keep(proceed, args, kwargs, context):
        output = proceed(*args, **kwargs)
        if context.method_name == "__call__" and isinstance(output, Masked | Rows):
            outputs.append(("/".join(context.module.path), _full(output)))
        return output

    with nn.intercept_methods(keep):
        yield outputs


def _full(output: Masked | Rows) -> jax.Array:
    """Activations `[N, H, W, C]`, zeros where hidden."""
    return at_full_size(output) if isinstance(output, Rows) else output.x
