"""A few images of a study, and what networks see in them and answer about them.

A study asks about one block of images at a time. Whatever it draws is keyed by an image's index, so
that answers are the same however images are divided into blocks.
"""

import dataclasses
import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from lmjax import attribution
from lmjax._utils.sizes import power_of_two
from lmjax.data.source import check_sizes
from lmjax.evaluation import Predictor
from lmjax.evaluation.evaluate_images import ImageCoalitions, evaluate_images
from lmjax.masks import segments as segmenters
from lmjax.masks.orders import random_orders
from lmjax.removals import registry as by_name
from lmjax.studies.experiments.penultimate import Penultimate

SEGMENTERS = ("grid", "slic", "quickshift", "felzenszwalb")
# Of each call, when only the cost is to be told: whole batches.
_SAMPLED_VARIANTS = 256


def segmenter_options(segmenter: str, *, grid_size: int, n_segments: int) -> dict[str, int]:
    """Of these settings, those that a segmenter takes."""
    options = {"grid": {"size": grid_size}, "slic": {"n_segments": n_segments}}
    return options.get(segmenter, {})


def random_order(count: int, key: jax.Array) -> np.ndarray:
    """`count` segments in random order.

    Few shapes compile: it is an order of a power of two segments, of which `count` are there.
    """
    (order,) = random_orders(power_of_two(count), 1, key=key)
    return order[order < count]


class Sample(NamedTuple):
    """An image of a source.

    Attributes:
      index: in the source.
      id: as the source names it, or its index.
      image: uint8 `[H, W, C]`.
      label: the true class, where known.
      object_mask: `[H, W]` bool, where known.
      tight_mask: `[H, W]` bool, the object without a soft edge, where known.
      saliency: `[H, W]`, where people or a method look, where known.
    """

    index: int
    id: str
    image: np.ndarray
    label: int | None = None
    object_mask: np.ndarray | None = None
    tight_mask: np.ndarray | None = None
    saliency: np.ndarray | None = None


def read(source: Sequence, index: int) -> Sample:
    """Item `index` of a source, an object or a mapping: see `lmjax.studies.run`.

    Raises:
      ValueError: a mask or saliency that is not of its image's size; and what the source raises.
    """
    item = source[index]
    get = item.get if isinstance(item, Mapping) else functools.partial(_get, item)
    label, name = get("label", None), get("id", None)
    maps = {kind: get(kind, None) for kind in ("object_mask", "tight_mask", "saliency")}
    sample = Sample(
        index=index,
        id=str(index if name is None else name),
        image=np.asarray(get("image")),
        label=None if label is None else int(label),
        **{kind: None if each is None else np.asarray(each) for kind, each in maps.items()},
    )
    return check_sizes(sample, {})


def _get(item, name: str, *default):
    return getattr(item, name, *default)


class Block:
    """Images and the networks to ask about them; what was seen and answered once is kept.

    Attributes:
      samples: M images.
      networks: by name, as `lmjax.models.load` gives them.
      evaluations: how many variants networks have been asked about.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        networks: Mapping[str, Any],
        *,
        key: jax.Array,
        mesh: Mesh | None = None,
    ):
        self.samples, self.networks = tuple(samples), networks
        self._key, self._mesh = key, mesh
        self.evaluations = 0
        self._kept = {}

    @property
    def keys(self) -> jax.Array:
        """`[M]`, a random key for each image, for what a study draws."""
        return self._two_keys()[:, 0]

    def images(self, network: str) -> np.ndarray:
        """float32 `[M, H, W, C]` in [0, 1], as a network sees them."""
        preprocessing = self.networks[network].preprocessing
        return self._once(
            ("images", geometry(preprocessing)),
            lambda: _stack([preprocessing(sample.image) for sample in self.samples]),
        )

    def object_masks(self, network: str, *, tight: bool = False) -> np.ndarray:
        """bool `[M, H, W]`, in the images as a network sees them.

        Args:
          network: its name.
          tight: `tight_mask` of samples, not `object_mask`.

        Raises:
          ValueError: an image without such a mask, or with nothing of the object in sight.
        """
        name = "tight_mask" if tight else "object_mask"
        masks = self._all(name)
        preprocessing = self.networks[network].preprocessing
        seen = self._once(
            (name, geometry(preprocessing)),
            lambda: np.stack([preprocessing.for_mask(mask) for mask in masks]),
        )
        for sample, mask in zip(self.samples, seen):
            if not mask.any():
                raise ValueError(
                    f"image {sample.id}: none of its {name} is in the part that networks see"
                )
        return seen

    def saliency(self, network: str) -> np.ndarray:
        """float32 `[M, H, W]`: the source's own heatmaps, in the images as a network sees them.

        Raises:
          ValueError: an image without saliency.
        """
        maps = self._all("saliency")
        preprocessing = self.networks[network].preprocessing
        return self._once(
            ("saliency", geometry(preprocessing)),
            lambda: np.stack([preprocessing.for_heatmap(each) for each in maps]),
        )

    def segments(self, network: str, segmenter: str, **options) -> np.ndarray:
        """int32 `[M, H, W]`, the label map of each image as a network sees it.

        Args:
          network: its name.
          segmenter: one of `SEGMENTERS`.
          options: of the segmenter.
        """
        segment = functools.partial(getattr(segmenters, segmenter), **options)
        seen_as = geometry(self.networks[network].preprocessing)
        return self._once(
            ("segments", seen_as, segmenter, tuple(options.items())),
            lambda: np.stack([segment(image) for image in self.images(network)]),
        )

    def gradients(self, network: str, of: str) -> np.ndarray:
        """float32 `[M, H, W]`: `lmjax.attribution.gradient` for the class that `of` predicts.

        Args:
          network: whose images they are.
          of: the network whose gradients they are.
        """
        predictor = Predictor(self.networks[of])
        seen_as = geometry(self.networks[network].preprocessing)
        return self._once(
            ("gradients", seen_as, of),
            lambda: np.stack(
                [attribution.gradient(predictor, image).heatmap for image in self.images(network)]
            ),
        )

    def whole(self, network: str) -> np.ndarray:
        """Logits `[M, K]` of the whole images."""

        def ask():
            images = self.images(network)
            masks = np.ones(images.shape[:3], bool)
            return self._ask(network, _Whole(self.networks[network]), images, masks, None)

        return self._once(("whole", network), ask)

    def logits(
        self, network: str, removal: str, masks: np.ndarray | ImageCoalitions, image_of: np.ndarray
    ) -> np.ndarray:
        """Logits `[N, K]` of variants.

        Args:
          network: its name.
          removal: one of `lmjax.removals.names()`.
          masks: bool `[N, H, W]`, or coalitions of the images' segments.
          image_of: `[N]`, which of the block's images each variant shows.
        """
        predictor = _Removing(self.networks[network], removal)
        return self._ask(network, predictor, self._shown(network, masks), masks, image_of)

    def features(
        self,
        network: str,
        removal: str,
        masks: np.ndarray | ImageCoalitions,
        image_of: np.ndarray,
        *,
        images: np.ndarray | None = None,
    ) -> np.ndarray:
        """Features `[N, D]` of variants, as they go into the network's last layer (`Penultimate`).

        Args:
          network, removal, masks, image_of: as in `logits`.
          images: `[M, H, W, C]` in [0, 1], shown instead of the block's.
        """
        predictor = _Removing(Penultimate(self.networks[network]), removal)
        return self._ask(network, predictor, self._shown(network, masks, images), masks, image_of)

    def coalition_logits(
        self,
        network: str,
        removal: str,
        segments: np.ndarray,
        keep: np.ndarray,
        image_of: Sequence[int],
    ) -> np.ndarray:
        """Logits `[N, K]`. What shows everything, or the same as another, is not asked again.

        Args:
          network: its name.
          removal: one of `lmjax.removals.names()`.
          segments: `[M, H, W]`, a label map for each image.
          keep: bool `[N, S]`, which of its image's segments a variant shows; False beyond them.
          image_of: `[N]`, which of the block's images each variant shows.
        """
        image_of = np.asarray(image_of)
        logits = self.whole(network)[image_of]
        counts = segments.max(axis=(1, 2)) + 1
        asked = np.flatnonzero(keep.sum(axis=1) < counts[image_of])
        if len(asked) == 0:
            return logits
        rows = np.column_stack([image_of, keep])[asked]
        different, which = np.unique(rows, axis=0, return_inverse=True)
        coalitions = ImageCoalitions(segments, different[:, 1:].astype(bool))
        answers = self.logits(network, removal, coalitions, different[:, 0])
        logits[asked] = answers[which.reshape(-1)]
        return logits

    def answers(self, network: str, logits: np.ndarray, image_of: Sequence[int]) -> list[dict]:
        """What most studies keep of a variant: a row for each.

        Args:
          network: its name.
          logits: `[N, K]`, its answers.
          image_of: `[N]`, which of the block's images each variant shows.

        Returns:
          Dicts of `image` (its index), `id`, `network`, `label`, `whole_prediction` (the class
          predicted on the whole image), `prediction`, its `probability`, `correct` (prediction is
          label) and `unchanged` (prediction is whole prediction).
        """
        labels, reference = self.labels(), self.whole(network).argmax(axis=1).tolist()
        predictions = logits.argmax(axis=1).tolist()
        probabilities = np.exp(logits.max(axis=1) - np.logaddexp.reduce(logits, axis=1)).tolist()
        return [
            {
                "image": self.samples[i].index,
                "id": self.samples[i].id,
                "network": network,
                "label": labels[i],
                "whole_prediction": reference[i],
                "prediction": prediction,
                "probability": probability,
                "correct": prediction == labels[i],
                "unchanged": prediction == reference[i],
            }
            for i, prediction, probability in zip(image_of, predictions, probabilities)
        ]

    def labels(self) -> list[int]:
        """True classes of the images; raises ValueError where one is not known."""
        return self._all("label")

    def _all(self, field: str) -> list:
        """What all samples have; raises ValueError where one has not."""
        for sample in self.samples:
            if getattr(sample, field) is None:
                raise ValueError(f"image {sample.id} has no {field}, which this study needs")
        return [getattr(sample, field) for sample in self.samples]

    def _shown(self, network: str, masks, images: np.ndarray | None = None) -> "_Shown":
        segments = masks.segments if isinstance(masks, ImageCoalitions) else None
        images = self.images(network) if images is None else images
        return _Shown(images, self._two_keys()[:, 1], segments)

    def _ask(self, network: str, predictor, images, masks, image_of) -> np.ndarray:
        image_of = np.arange(len(self.samples)) if image_of is None else image_of
        answers = self._evaluate(predictor, images, masks, image_of)
        self.evaluations += len(answers)
        bad = ~np.isfinite(answers).all(axis=1)
        if bad.any():
            name = self.samples[image_of[bad.argmax()]].id
            raise ValueError(f"network {network} gives NaN or infinity for image {name}")
        return answers

    def _evaluate(self, predictor, images, masks, image_of) -> np.ndarray:
        return evaluate_images(predictor, images, masks, image_of=image_of, mesh=self._mesh)

    def _two_keys(self) -> jax.Array:
        """`[M, 2]`: of the study's draws, and of noise."""
        indices = np.array([sample.index for sample in self.samples], np.uint32)
        split = jax.vmap(lambda index: jax.random.split(jax.random.fold_in(self._key, index)))
        return self._once("keys", lambda: split(indices))

    def _once(self, key, make):
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]


class _Shown(NamedTuple):
    """What a predictor is given of an image."""

    image: Any
    key: Any
    segments: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class _Whole:
    """A classifier that is shown whole images."""

    classifier: Any

    def __call__(self, image, masks):
        return self.classifier.apply(self.classifier.normalise(image[None]))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class _Removing:
    """A classifier and a removal that is made for each image."""

    classifier: Any
    removal: str = dataclasses.field(metadata={"static": True})

    def __call__(self, shown: _Shown, masks):
        removal = by_name.make(self.removal, key=shown.key, segments=shown.segments)
        return Predictor(self.classifier, removal)(shown.image, masks)


class SampledBlock(Block):
    """A block that asks about few of many variants and repeats their answers: to tell costs.

    Attributes:
      seconds_spared: what the variants it did not ask about would have taken.
    """

    seconds_spared = 0.0

    def _evaluate(self, predictor, images, masks, image_of) -> np.ndarray:
        count = len(image_of)
        if count <= _SAMPLED_VARIANTS:
            return super()._evaluate(predictor, images, masks, image_of)
        chosen = np.linspace(0, count - 1, _SAMPLED_VARIANTS).astype(int)
        few = (
            dataclasses.replace(masks, keep=masks.keep[chosen])
            if isinstance(masks, ImageCoalitions)
            else masks[chosen]
        )
        start = time.perf_counter()
        answers = super()._evaluate(predictor, images, few, image_of[chosen])
        seconds = time.perf_counter() - start
        self.seconds_spared += seconds * (count / _SAMPLED_VARIANTS - 1)
        return answers[np.arange(count) % _SAMPLED_VARIANTS]


def geometry(preprocessing) -> tuple:
    """What of a preprocessing decides how an image looks before normalisation."""
    channels = len(preprocessing.mean)
    return preprocessing.resize, preprocessing.crop, preprocessing.interpolation, channels


def _stack(images: list[np.ndarray]) -> np.ndarray:
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        raise ValueError(
            f"images of a study must have one size, got {sorted(shapes)}; give networks whose "
            "preprocessing resizes and crops"
        )
    return np.stack(images)
