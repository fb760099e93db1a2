"""Networks that know of segments only, so that the right scores are known."""

import jax.numpy as jnp
import numpy as np


def shares(segments, masks):
    """How much of each segment is visible: `[N, S]` from `[N, H, W]`."""
    one_hot = np.eye(segments.max() + 1, dtype=np.float32)[segments]
    return jnp.einsum("nhw,hws->ns", masks.astype(jnp.float32), one_hot / one_hot.sum((0, 1)))


def linear(segments, effects, bias=0.5):
    """Logits `[N, K]` that are a bias plus, for each segment, its `effects` `[S, K]`."""
    effects = np.asarray(effects, np.float32)

    def predict(image, masks):
        return bias + jnp.matmul(shares(segments, masks), effects, precision="highest")

    return predict


def reads_one(segments, segment):
    """Class 0 of two is likely if `segment` is visible and bright, and nothing else counts."""

    def predict(image, masks):
        visible = image.mean(axis=-1)[None] * masks
        brightness = jnp.where(segments == segment, visible, 0).sum(axis=(1, 2))
        value = 4 * jnp.tanh(4 * brightness / (segments == segment).sum())
        return jnp.stack([value, jnp.ones_like(value)], axis=1)

    return predict
