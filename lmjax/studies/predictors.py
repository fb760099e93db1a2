"""Predictors of studies: whole images, removals made for each image, penultimate features."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import linen as nn

from lmjax import removals
from lmjax.evaluation import Predictor
from lmjax.masking import layers
from lmjax.masking.masked import Masked
from lmjax.models.layers import Conv
from lmjax.removals import registry
from lmjax.removals.calibration import uncalibrated


class KeyedImage(NamedTuple):
    """An image and what a removal may need to be made for it.

    Attributes:
      image: `[H, W, C]` in [0, 1].
      key: random key, for noise.
      segments: `[H, W]` ints, or None where masks are not made of segments.
    """

    image: Any
    key: Any
    segments: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class WholeImage:
    """A classifier evaluated on whole images; masks are ignored."""

    classifier: Any

    def __call__(self, image: jax.Array, masks: jax.Array) -> jax.Array:
        """Returns logits `[1, K]`."""
        return self.classifier.apply(self.classifier.normalise(image[None]))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class ImageRemoval:
    """A classifier and a removal that is made anew for each image.

    Attributes:
      classifier: see `lmjax.Predictor`.
      make: function of `key` or `segments` or both that makes the removal. It is static: another
        function is another program, even where both are registered under one name.
      setting: depth or file of the removal, or None.
      file_sha256: of the file: another content is another program.
    """

    classifier: Any
    make: Callable = dataclasses.field(metadata={"static": True})
    setting: int | str | None = dataclasses.field(default=None, metadata={"static": True})
    file_sha256: str | None = dataclasses.field(default=None, metadata={"static": True})

    def __call__(self, shown: KeyedImage, masks: jax.Array) -> jax.Array:
        """Returns logits `[N, K]` of the image under masks `[N, H, W]`."""
        removal = registry.made(self.make, self.setting, key=shown.key, segments=shown.segments)
        return _predictor(self.classifier, removal)(shown.image, masks)


def under_removal(classifier: Any, name: str) -> Predictor | ImageRemoval:
    """Returns the predictor of a classifier under a removal.

    It is a `Predictor` where the removal is the same for all images; an `ImageRemoval`, which takes
    a `KeyedImage`, where its maker takes a key or segments. A calibration maps logits, so features
    (`Penultimate`) are those under the removal without it.
    """
    base, setting = removals.check_name(name)
    make = registry.REGISTRY.get(base)
    if {"key", "segments"} & inspect.signature(make).parameters.keys():
        return ImageRemoval(classifier, make, setting, registry.file_sha256(name))
    return _predictor(classifier, removals.make(name))


def _predictor(classifier: Any, removal: Any) -> Predictor:
    features = isinstance(classifier, Penultimate)
    return Predictor(classifier, uncalibrated(removal) if features else removal)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Penultimate:
    """A classifier that returns features instead of logits, under any removal.

    Features are the input of the last dense or convolutional layer: for most networks the pooled
    activations. Where it is a convolution (SqueezeNet) they are averaged over visible positions.

    Attributes:
      classifier: of `lmjax.models`, or a Flax network with the methods of one.
    """

    classifier: Any

    gives_features = True  # removals that average over draws average them as they are

    @property
    def preprocessing(self) -> Any:
        """The classifier's."""
        return self.classifier.preprocessing

    @property
    def masking(self) -> Any:
        """The classifier's."""
        return self.classifier.masking

    @property
    def where(self) -> str:
        """The classifier's."""
        return self.classifier.where

    def normalise(self, images: jax.Array) -> jax.Array:
        """Normalises images as the classifier does."""
        return self.classifier.normalise(images)

    def apply(
        self, images: jax.Array, masks: jax.Array | None = None, *, masking: Any = None
    ) -> jax.Array:
        """Returns features `[N, D]`; arguments as in `lmjax.models.classifier.Classifier.apply`.

        Raises:
          ValueError: a network without such a layer; besides the classifier's own errors.
        """
        inputs = []

        def keep(proceed, args, kwargs, context):
            if context.method_name == "__call__" and isinstance(context.module, nn.Dense | Conv):
                inputs.append(args[0])
            return proceed(*args, **kwargs)

        with nn.intercept_methods(keep):
            self.classifier.apply(images, masks, masking=masking)
        if not inputs:
            raise ValueError(
                "features need a network whose last layer is a Flax Dense or an "
                f"lmjax.models.layers.Conv; {type(self.classifier).__name__} has neither"
            )
        last = inputs[-1]
        return layers.global_average_pool(last) if isinstance(last, Masked) else last
