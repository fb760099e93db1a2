"""Probabilities of logits: softmax, or sigmoid of a single logit, whose softmax is always 1."""

import jax
import jax.numpy as jnp


def probabilities(logits: jax.Array) -> jax.Array:
    """Returns the probabilities of logits `[..., K]`."""
    return jax.nn.sigmoid(logits) if logits.shape[-1] == 1 else jax.nn.softmax(logits)


def mean_probability(logits: jax.Array) -> jax.Array:
    """Averages probabilities over the first axis.

    Args:
      logits: `[D, ..., K]`.

    Returns:
      Logits `[..., K]` whose probabilities are the averages.
    """
    if logits.shape[-1] > 1:
        return _log_mean(jax.nn.log_softmax(logits))
    return _log_mean(jax.nn.log_sigmoid(logits)) - _log_mean(jax.nn.log_sigmoid(-logits))


def _log_mean(logarithms: jax.Array) -> jax.Array:
    return jax.nn.logsumexp(logarithms, axis=0) - jnp.log(len(logarithms))
