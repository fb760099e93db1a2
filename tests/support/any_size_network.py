"""A classifier of a few weights that takes images of any size, for tests of explanations."""

import dataclasses

import jax
import jax.numpy as jnp

from lmjax.models.preprocessing import Preprocessing

_STATIC = {"static": True}
NAMES = ("German short-haired pointer", "tiger cat", "Egyptian cat", "espresso")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AnySizeNetwork:
    """Logits are a linear map of the mean colour of all visible pixels."""

    weights: jax.Array  # [3, K]
    preprocessing: Preprocessing = dataclasses.field(
        metadata=_STATIC,
        default=Preprocessing(resize=36, crop=32, mean=(0.5,) * 3, std=(0.5,) * 3),
    )
    class_names: tuple[str, ...] | None = dataclasses.field(metadata=_STATIC, default=NAMES)

    @property
    def variables(self):
        return {"weights": self.weights}

    def normalise(self, images):
        return self.preprocessing.normalise(images)

    def apply(self, images, masks=None, *, masking=None):
        if masks is not None:
            images = jnp.where(masks[..., None], images, 0)
        return images.mean((1, 2)) @ self.weights


def any_size_network(seed=0) -> AnySizeNetwork:
    return AnySizeNetwork(3 * jax.random.normal(jax.random.key(seed), (3, len(NAMES))))
