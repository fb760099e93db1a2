"""What is explained of logits, and predicted classes."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from lmjax._utils.probabilities import probabilities
from lmjax._utils.sizes import power_of_two

Output = Literal["probability", "logit", "margin"]
OUTPUTS = get_args(Output)


def as_output(logits: jax.Array, output: str) -> jax.Array:
    """Returns logits `[..., K]` as the output to explain, one of `OUTPUTS`, for each class."""
    if output == "logit":
        return logits
    return probabilities(logits) if output == "probability" else margins(logits)


def margins(logits: jax.Array) -> jax.Array:
    """Returns each logit `[..., K]` minus the highest of the others.

    A single logit is compared with 0, as sigmoid does.
    """
    if logits.shape[-1] == 1:
        return logits
    highest, second = jnp.split(jax.lax.top_k(logits, 2)[0], 2, axis=-1)
    is_highest = jax.nn.one_hot(logits.argmax(axis=-1), logits.shape[-1], dtype=bool)
    return logits - jnp.where(is_highest, second, highest)


def output_values(logits: np.ndarray, output: str) -> np.ndarray:
    """Returns the logits `[N, K]` of variants as the output to explain, on the host."""
    if output == "logit":
        return np.asarray(logits)
    missing = power_of_two(len(logits)) - len(logits)  # few shapes compile
    padded = np.pad(np.asarray(logits), ((0, missing), (0, 0)))
    return np.asarray(as_output(jax.device_put(padded), output))[: len(logits)]


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
