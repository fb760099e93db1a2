"""A small classifier with the methods that removals and predictors call, for fast tests."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

_STATIC = {"static": True}


class Preprocessing(NamedTuple):
    mean: tuple[float, ...] = (0.5, 0.4, 0.3)
    std: tuple[float, ...] = (0.2, 0.25, 0.3)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SmallClassifier:
    """tanh of a linear map of all normalised visible pixels; `traces` counts calls of `apply`."""

    weights: jax.Array = dataclasses.field(repr=False)  # [H, W, C, K]; records print networks
    traces: list = dataclasses.field(metadata=_STATIC, default_factory=lambda: Counter())
    preprocessing: Preprocessing = dataclasses.field(metadata=_STATIC, default=Preprocessing())

    def normalise(self, images):
        known = self.preprocessing.mean, self.preprocessing.std
        mean, std = (jnp.asarray(each, images.dtype) for each in known)
        shape = (1,) * (images.ndim - 1) + (-1,)
        return (images - mean.reshape(shape)) / std.reshape(shape)

    def apply(self, images, masks=None, *, masking=None):
        self.traces.append(masking)
        if masks is not None:
            images = jnp.where(masks[..., None], images, 0)
        return jnp.tanh(jnp.einsum("nhwc,hwck->nk", images, self.weights))


class Counter(list):
    """A list that is hashable by identity, so that it can be a static field."""

    __hash__ = object.__hash__

    def __eq__(self, other):
        return self is other


def small_classifier(shape=(8, 6, 3), num_classes=4, seed=0) -> SmallClassifier:
    weights = jax.random.normal(jax.random.key(seed), (*shape, num_classes)) / shape[0]
    return SmallClassifier(weights)
