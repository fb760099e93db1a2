"""The protocols of removals: what `lmjax.Predictor` calls, and what may be asked of one."""

from typing import Any, Literal, Protocol, runtime_checkable

import jax

from lmjax._utils.summary import brief

Where = Literal["input", "layers", "tokens"]


@runtime_checkable
class Removal(Protocol):
    """How hidden features are withheld from a network.

    An object with `logits`, frozen and hashable or a pytree. Subclass the protocol for the defaults
    of the properties; a removal that does not declare one has the default too.

    Attributes:
      where: where features are withheld: `"input"` (default) changes the image before any network
        sees it; `"layers"` takes masks through the layers of a convolutional network (such a
        removal has the `padding` and `depth` of `lmjax.LayerMasking`); `"tokens"` drops tokens of
        a transformer.
      soft_masks: whether masks may hold values between 0 and 1; False by default.
      sparse: whether there is a method `logits_on_visible(classifier, image, masks, layout)`, which
        computes the same logits on visible positions only and so runs in the engines `"visible"`
        and `"shared"`; False by default.

    A removal whose logits depend on pixels that masks hide, as under the blur of an image, says so
    by an attribute `reads_hidden = True`: hidden pixels too must be colours then, where under
    others they may be NaN. It is no part of the protocol.
    """

    where: Where = "input"
    soft_masks: bool = False
    sparse: bool = False

    def logits(self, classifier: Any, image: jax.Array, masks: jax.Array) -> jax.Array:
        """Returns the logits `[N, K]` of the variants of one image.

        Pure; runs under `jit` and `vmap`.

        Args:
          classifier: has `normalise(images)`, `apply(images)` and `preprocessing.mean`.
          image: `[H, W, C]` in [0, 1], display colours.
          masks: `[N, H, W]`, 1 = visible.
        """
        ...


@runtime_checkable
class Painting(Removal, Protocol):
    """A removal that paints over hidden pixels, so that the network sees a whole image.

    A subclass defines `paint`, and has `logits` from it.
    """

    def paint(self, image: jax.Array, masks: jax.Array, mean: Any | None = None) -> jax.Array:
        """Returns the variants as images `[N, H, W, C]` in [0, 1].

        Args:
          image: `[H, W, C]` in [0, 1].
          masks: `[N, H, W]`, 1 = visible.
          mean: C floats, the mean colour of the network's preprocessing.
        """
        ...

    def logits(self, classifier: Any, image: jax.Array, masks: jax.Array) -> jax.Array:
        """Returns the plain network's logits `[N, K]` for the painted images.

        Args:
          classifier: has `preprocessing.mean`, `normalise(images)` and `apply(images)`.
          image: `[H, W, C]` in [0, 1].
          masks: `[N, H, W]`, 1 = visible.
        """
        images = self.paint(image, masks, classifier.preprocessing.mean)
        return classifier.apply(classifier.normalise(images))


def declared(removal: Any, name: Literal["where", "soft_masks", "sparse", "reads_hidden"]) -> Any:
    """Returns a property that a removal declares, or its default."""
    return getattr(removal, name, getattr(Removal, name, False))


def check_removal(removal: Any) -> Any:
    """Returns a removal; raises ValueError for what has no method `logits`."""
    if isinstance(removal, type) or not callable(getattr(removal, "logits", None)):
        raise ValueError(
            "removal must be a name, lmjax.LayerMasking(), lmjax.Replace(...) or another "
            f"object with logits(classifier, image, masks); got {brief(removal)}"
        )
    return removal


def is_opaque(function: Any) -> bool:
    """Returns whether a value is a function without arrays that JAX can see, which is static."""
    return callable(function) and jax.tree_util.all_leaves([function])
