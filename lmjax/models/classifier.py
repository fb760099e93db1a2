"""The classifier: a network with its weights, preprocessing and class names, as one pytree."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import ArrayLike

from lmjax._utils.bounded import bounded_jit
from lmjax._utils.summary import brief
from lmjax.masking.checks import check_colours, check_mask, is_traced
from lmjax.masking.masked import Masked
from lmjax.masking.sparse.positions import Layout
from lmjax.masking.sparse.rows import Pixels
from lmjax.models import checkpoints
from lmjax.models.biases import Biases
from lmjax.models.checkpoints import count_parameters
from lmjax.models.cutting import TracedFeatures, TracedHead, cut_traced
from lmjax.models.preprocessing import Preprocessing
from lmjax.removals.masking import Masking, check_masking
from lmjax.removals.removal import Where

_ANY_SIZE = (224, 224)  # no network is too deep for it


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Classifier:
    """A network with its weights, preprocessing and class names.

    A pytree: `variables` are leaves, everything else is static. So a classifier passes through
    `jit` and `vmap` as an argument, and its weights never become constants of a compiled program.

    Attributes:
      variables: `{"params": ..., "batch_stats": ...}`, float32.
      module: the Flax module; its `masking` is the default of `apply`.
      preprocessing: from a photograph to the network's input.
      class_names: a name for each class, or None.
    """

    variables: dict[str, Any]
    module: nn.Module = dataclasses.field(metadata={"static": True})
    preprocessing: Preprocessing = dataclasses.field(metadata={"static": True})
    class_names: tuple[str, ...] | None = dataclasses.field(default=None, metadata={"static": True})

    @property
    def masking(self) -> Masking:
        """How masks go through the network unless `apply` is told otherwise."""
        return self.module.masking

    @property
    def where(self) -> Where:
        """Where masks travel: through layers, or in a transformer as dropped tokens."""
        return self.masking.where

    @property
    def patch_size(self) -> int | None:
        """Side of a transformer's patches in pixels, of which each is a token; else None."""
        return getattr(self.module, "patch_size", None)

    @property
    def sparse(self) -> bool:
        """Whether `apply_on_visible` is there."""
        return self.masking.sparse

    def normalise(self, images: jax.Array) -> jax.Array:
        """Takes display colours `[..., H, W, C]` in [0, 1] to the network's input range."""
        return self.preprocessing.normalise(images)

    def logits(
        self,
        images: ArrayLike,
        masks: ArrayLike | None = None,
        *,
        masking: Masking | None = None,
    ) -> jax.Array:
        """Returns the logits of images in display colours, each under its mask.

        Compiled, once for each shape; within `jit` it is part of what is compiled there. Flax's
        interceptors see `apply`, not this.

        Args:
          images: `[N, H, W, C]` in [0, 1], of the size that the network takes, as
            `preprocessing(photograph)` gives it. Hidden pixels are never read.
          masks, masking: as in `apply`.

        Returns:
          Logits `[N, K]`, float32.

        Raises:
          ValueError: colours outside [0, 1], and all that `apply` raises.
        """
        images = self._check_images(images, normalised=False)
        checked: Any = None if masks is None else check_mask(masks, images.shape[:3])
        if masking is not None:
            check_masking(masking, self.masking)
        if not is_traced(images) and not is_traced(checked):
            shown = images
            if checked is not None:
                shown = np.where(np.asarray(checked)[..., None], images, 0)
            check_colours(shown, "images")
        return _logits.alone(self, images, checked, masking=masking)

    def apply(
        self,
        images: ArrayLike,
        masks: ArrayLike | None = None,
        *,
        masking: Masking | None = None,
    ) -> jax.Array:
        """Returns the logits of normalised images, each under its mask.

        Takes what `normalise` gives; `logits` takes display colours.

        Args:
          images: `[N, H, W, C]`, normalised. Hidden pixels are never read.
          masks: `[N, H, W]`, 1 = visible, 0 = hidden, bool or numbers. None runs the plain network.
          masking: how to mask; None takes the classifier's own, which `lmjax.models.load` sets.

        Returns:
          Logits `[N, K]`, float32. Where nothing is visible they are the last layer's bias, or a
          transformer's answer to its class token alone.

        Raises:
          ValueError: images of another shape or not floating point, masks of another shape, values
            other than 0 and 1, or a `masking` that does not fit the network.
        """
        images = self._check_images(images)
        checked: Any = None if masks is None else check_mask(masks, images.shape[:3])
        return self._run(Masked(images, checked), masking)

    def apply_on_visible(
        self,
        images: jax.Array,
        masks: jax.Array,
        layout: Layout,
        *,
        masking: Masking | None = None,
    ) -> jax.Array:
        """Returns the same logits, computed on visible positions only.

        Args:
          images, masks, masking: as in `apply`; masks are required.
          layout: gives positions their rows; see `lmjax.masking.sparse.positions`.
        """
        images = self._check_images(images)
        masks = jnp.asarray(check_mask(masks, images.shape[:3]))
        return self._run(Pixels(images, masks, layout), masking)

    def with_weights(self, path: str | os.PathLike) -> "Classifier":
        """Returns the classifier with the weights of a file, such as training leaves it.

        Args:
          path: a file that `lmjax.models.load` reads, with the keys of this network.

        Raises:
          ValueError: keys or shapes that do not fit; all of them are named.
        """
        state = checkpoints.read_state_dict(path)
        variables = checkpoints.to_variables(state, self.variables, source=path)
        return dataclasses.replace(self, variables=jax.device_put(variables))

    def cut(self, layer: str | None = None) -> tuple[Callable, Callable]:
        """Cuts the plain network behind a layer, in two functions; see `lmjax.attribution.gradcam`.

        Args:
          layer: a submodule of the network whose output everything behind it is computed from, such
            as a residual block: `"layer4.1"` is the last one of ResNet-18. None takes the last
            before the classifier whose output has positions. Of a network that is a function, a
            module of its own framework; it is cut for images of the size that it was trained on.

        Returns:
          features: image `[H, W, C]` in [0, 1] -> activations `[h, w, D]`.
          head: activations -> logits `[K]`.

        Raises:
          ValueError: no such layer; a transformer, whose class token stands beside positions; a
            function that computes logits from no such layer alone.
        """
        if not isinstance(self.module, nn.Module):
            size = self.module.image_size or self.preprocessing.crop or _ANY_SIZE[0]
            found = cut_traced(self, layer, size)
            return TracedFeatures(self, found), TracedHead(self, found)
        if self.where == "tokens":
            raise ValueError(
                "a transformer cannot be cut: behind its blocks the class token alone is read, and "
                "no map of positions leads to the logits; Grad-CAM takes convolutional networks"
            )
        layers = self.variables["params"]
        layer = _last_with_positions(self) if layer is None else layer
        if layer not in layers:
            raise ValueError(f"layer must be one of {', '.join(layers)}; got {brief(layer)}")
        return Features(self, layer), Head(self, layer)

    def biases(self) -> Biases:
        """Returns the plain network with its biases as arguments; see `lmjax.attribution.fullgrad`.

        Raises:
          ValueError: a network that is a function, in which layers cannot be found, or a
            transformer, whose layers are not of positions alone.
        """
        if not isinstance(self.module, nn.Module):
            raise ValueError(
                "the biases of a network that is a function cannot be had, as nothing says which "
                "of its numbers they are; FullGrad takes the networks of lmjax.models.names()"
            )
        if self.where == "tokens":
            raise ValueError(
                "the biases of a transformer make no maps, as the class token has some too; "
                "FullGrad takes convolutional networks"
            )
        return Biases(self)

    def __repr__(self) -> str:
        names, crop = self.class_names, self.preprocessing.crop
        # A module of one's own need not have this field.
        classes = getattr(self.module, "num_classes", "?" if names is None else len(names))
        size = "any size" if crop is None else f"{crop} x {crop} pixels"
        return (
            f"Classifier({type(self.module).__name__}, {count_parameters(self.variables):,} "
            f"parameters, {classes} classes, {self.masking!r}, {size})"
        )

    def _run(self, inputs: Masked | Pixels, masking) -> jax.Array:
        module = self.module
        if masking is not None:
            check_masking(masking, module.masking)
            module = module.clone(masking=masking)
        logits: Any = module.apply(self.variables, inputs)
        return logits

    def _check_images(self, images, *, normalised: bool = True) -> jax.Array:
        images, channels = jnp.asarray(images), len(self.preprocessing.mean)
        if images.ndim != 4 or images.shape[-1] != channels:
            raise ValueError(
                f"images must be [N, H, W, {channels}], got shape {images.shape}; "
                "add a leading axis to a single image: image[None]"
            )
        if not jnp.issubdtype(images.dtype, jnp.floating):
            wanted, take = "floats in [0, 1]", "images / 255"
            if normalised:
                wanted, take = "floats, normalised", f"classifier.normalise({take})"
            raise ValueError(
                f"images must be {wanted}; got dtype {images.dtype}; from 0..255: {take}"
            )
        return images


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """The part of a classifier up to a layer; see `Classifier.cut`."""

    classifier: Classifier
    layer: str = dataclasses.field(metadata={"static": True})

    def __call__(self, image: jax.Array) -> jax.Array:
        outputs = []

        def keep(proceed, args, kwargs, context):
            output = proceed(*args, **kwargs)
            if _is_layer(context, self.layer):
                outputs.append(output)
            return output

        with nn.intercept_methods(keep):
            self.classifier.apply(self.classifier.normalise(image)[None])
        return outputs[-1].x[0]  # a layer that calls its parent class is met twice, itself last


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Head:
    """The part of a classifier behind a layer; see `Classifier.cut`."""

    classifier: Classifier
    layer: str = dataclasses.field(metadata={"static": True})

    def __call__(self, activations: jax.Array) -> jax.Array:
        def put_in(proceed, args, kwargs, context):
            if _is_layer(context, self.layer):
                return Masked(activations[None])
            return proceed(*args, **kwargs)

        # What comes before the layer runs on any image, and its results are dropped.
        shape = 1, *_ANY_SIZE, len(self.classifier.preprocessing.mean)
        anything = jnp.zeros(shape, jnp.float32)
        with nn.intercept_methods(put_in):
            return self.classifier.apply(anything)[0]


def check_classifier(name: str, value: Any, *, instead: str = "") -> None:
    """Raises ValueError unless a value has what explanations and studies take of a classifier.

    Args:
      name: of the argument.
      value: the argument.
      instead: what else is allowed, as in "the name of a network, or ".
    """
    if not hasattr(value, "apply") or not hasattr(value, "preprocessing"):
        raise ValueError(
            f"{name} must be {instead}a classifier such as lmjax.models.load returns; got "
            f"{brief(value)}"
        )


@bounded_jit(static_argnames="masking")
def _logits(classifier: Classifier, images, masks, *, masking: Masking | None) -> jax.Array:
    return classifier.apply(classifier.normalise(images), masks, masking=masking)


def _last_with_positions(classifier: Classifier) -> str:
    """The last layer that gives more than one position; layers named `classifier...` are behind."""
    found = []

    def note(proceed, args, kwargs, context):
        output = proceed(*args, **kwargs)
        several = isinstance(output, Masked) and output.x.shape[1] * output.x.shape[2] > 1
        if several and len(context.module.path) == 1 and context.method_name == "__call__":
            found.extend(context.module.path)
        return output

    def run(variables, image):  # a new function is traced anew, where others' traces are cached
        with nn.intercept_methods(note):
            return classifier.module.apply(variables, Masked(image))

    shape = 1, *_ANY_SIZE, len(classifier.preprocessing.mean)
    jax.eval_shape(run, classifier.variables, jax.ShapeDtypeStruct(shape, jnp.float32))
    return next(name for name in reversed(found) if not name.startswith("classifier"))


def _is_layer(context: nn.module.InterceptorContext, layer: str) -> bool:
    return context.module.path == (layer,) and context.method_name == "__call__"
