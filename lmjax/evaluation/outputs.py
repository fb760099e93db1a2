"""Probabilities and predicted classes of logits."""

import jax
import jax.numpy as jnp
import numpy as np

from lmjax._utils.probabilities import probabilities
from lmjax._utils.sizes import power_of_two

OUTPUTS = ("probability", "logit")


def as_output(logits: jax.Array, output: str) -> jax.Array:
    """Returns logits `[..., K]` as the output to explain, one of `OUTPUTS`."""
    return probabilities(logits) if output == "probability" else logits


def output_values(logits: np.ndarray, output: str) -> np.ndarray:
    """Returns the logits `[N, K]` of variants as the output to explain, on the host."""
    if output == "logit":
        return np.asarray(logits)
    missing = power_of_two(len(logits)) - len(logits)  # few shapes compile
    padded = np.pad(np.asarray(logits), ((0, missing), (0, 0)))
    return np.asarray(probabilities(jnp.asarray(padded)))[: len(logits)]


def check_finite(values: np.ndarray, source: str = "predictor") -> None:
    """Raises ValueError unless the values `[N, ...]` of all variants are finite.

    Args:
      values: `[N, ...]`.
      source: the argument that gave them: "predictor", or "objective".
    """
    finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if not finite.all():
        advice = {
            "predictor": "check its weights, and that its baseline reads no hidden NaN",
            "objective": "classes and entries that the network's output does not have give NaN",
        }
        raise ValueError(
            f"{source} gave NaN or infinity for {(~finite).sum()} of {len(values)} variants; "
            f"{advice[source]}"
        )


def predicted_classes(logits: np.ndarray) -> np.ndarray:
    """Returns the classes of highest logit, int `[N]`.

    Args:
      logits: `[N, K]`.

    Raises:
      ValueError: NaN or infinity, whose highest is no prediction; a single logit, which predicts
        the same class for every image.
    """
    check_finite(np.asarray(logits))
    if np.shape(logits)[-1] == 1:
        raise ValueError(
            "predicted classes need two logits or more; the network has one, so that its class is "
            "always the same: explain its output, or append a logit of 0 for the other class"
        )
    return np.asarray(logits).argmax(axis=-1)
