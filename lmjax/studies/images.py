"""Batches of a study's images: as each network sees them, and the network's logits under removals.

A study measures one batch of images at a time. Random numbers are keyed by an image's index, so
that its rows are the same however images are divided into batches.
"""

import collections
import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from lmjax import attribution, removals
from lmjax._utils.progress import described
from lmjax._utils.sizes import power_of_two
from lmjax.evaluation import Evaluator, Predictor
from lmjax.evaluation.evaluator import Engine
from lmjax.evaluation.jobs import Job
from lmjax.evaluation.outputs import predicted_classes
from lmjax.masking.patches import whole_patches
from lmjax.masks import ImageCoalitions
from lmjax.masks import segments as segmenters
from lmjax.masks.orders import random_orders
from lmjax.studies.predictors import (
    ImageRemoval,
    KeyedImage,
    Penultimate,
    WholeImage,
    under_removal,
)
from lmjax.studies.samples import Sample
from lmjax.studies.sizes import check_size, shared_patch_size

# Variants of a call that `SampledBatch` evaluates: whole batches.
_SAMPLED_VARIANTS = 256
# Numbers orders among the draws from an image's key. LIME's matrices start at 0; an order that is
# drawn from the key itself ranks segments by the bits of the first.
_ORDERS = 2**31
# Variants whose masks are counted together.
_COUNTED_VARIANTS = 64


def random_order(count: int, key: jax.Array) -> np.ndarray:
    """Draws an order of `count` segments.

    Few shapes compile: it is an order of a power of two segments, without those beyond `count`.
    """
    (order,) = random_orders(power_of_two(count), 1, key=jax.random.fold_in(key, _ORDERS))
    return order[order < count]


def keys_of_images(key: jax.Array, indices: Sequence[int]) -> jax.Array:
    """Returns `[M, 2]`: a key for a study's draws and one for its removals, for each image."""
    split = jax.vmap(lambda index: jax.random.split(jax.random.fold_in(key, index)))
    with jax.threefry_partitionable(True):
        return split(np.array(indices, np.uint32))


class Spending(NamedTuple):
    """The purpose that variants are evaluated for.

    Attributes:
      part: of the study, such as a method or a metric; empty where it has no parts.
      network, removal: their names; no removal for whole images.
    """

    part: str
    network: str
    removal: str


class ImageBatch:
    """Images of a study and the networks to evaluate on them; what was computed once is kept.

    Args:
      samples: M images.
      networks: classifiers by name, such as `lmjax.models.load` returns.
      key: random key, from which each image's own is made.
      engine: as in `lmjax.Evaluator`; where a removal does not support the engine, dense is used.
      batch_size, mesh: as in `lmjax.Evaluator`.
      num_images: images of the whole run, of which these are some; None takes M. With it, engine
        "auto" weighs what compiling costs against all the variants that the run will evaluate.

    Attributes:
      samples: M images.
      networks: classifiers by name.
      spent: how many variants have been evaluated, by part of the study, network and removal.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        networks: Mapping[str, Any],
        *,
        key: jax.Array,
        engine: Engine = "auto",
        batch_size: int | None = None,
        mesh: Mesh | None = None,
        num_images: int | None = None,
    ):
        self.samples, self.networks = tuple(samples), networks
        self.spent: collections.Counter[Spending] = collections.Counter()
        self._part = ""
        self._key, self._engine = key, engine
        self._options: dict[str, Any] = {"batch_size": batch_size, "mesh": mesh, "progress": False}
        self._num_images = len(self.samples) if num_images is None else num_images
        self._cache = {}

    @property
    def evaluations(self) -> int:
        """How many variants have been evaluated."""
        return self.spent.total()

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Counts what is evaluated in the block as that of a part of the study.

        Args:
          name: of the part, such as a method or a metric.
        """
        before, self._part = self._part, name
        try:
            yield
        finally:
            self._part = before

    @property
    def keys(self) -> jax.Array:
        """`[M]`, a random key for each image, for the study's own draws."""
        return self._two_keys()[:, 0]

    def images(self, network: str) -> np.ndarray:
        """Returns float32 `[M, H, W, C]` in [0, 1], the images as a network sees them.

        Raises:
          ValueError: an image that cannot be preprocessed; or, where the network's preprocessing
            keeps the size of images, images of several sizes, or of one that it does not take.
        """
        preprocessing = self.networks[network].preprocessing
        images = self._once(
            ("images", geometry(preprocessing)),
            lambda: _stack([preprocessing(sample.image) for sample in self.samples]),
        )
        if preprocessing.resize is None and preprocessing.crop is None:
            shape, first = images.shape[1:], self.samples[0].id
            self._once(
                ("size", network),
                lambda: check_size(network, self.networks[network], shape, first),
            )
        return images

    def object_masks(self, network: str, *, tight: bool = False) -> np.ndarray:
        """Returns bool `[M, H, W]`, the objects in the images as a network sees them.

        Args:
          network: its name.
          tight: take `tight_mask` of samples instead of `object_mask`.

        Raises:
          ValueError: an image without such a mask, or whose object is outside the network's crop.
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
        """Returns float32 `[M, H, W]`, the source's heatmaps in the images as a network sees them.

        Raises:
          ValueError: an image without saliency.
        """
        maps = self._all("saliency")
        preprocessing = self.networks[network].preprocessing
        return self._once(
            ("saliency", geometry(preprocessing)),
            lambda: np.stack([preprocessing.for_heatmap(each) for each in maps]),
        )

    def segments(
        self, network: str, segmenter: str, *, snap_to_patches: bool = True, **options: Any
    ) -> np.ndarray:
        """Returns int32 `[M, H, W]`, the segments of each image as a network sees it.

        Networks that see images alike have the same segments.

        Args:
          network: its name.
          segmenter: one of `lmjax.segments.names()`.
          snap_to_patches: where there are transformers among the networks that see images alike,
            make segments of their whole patches (`lmjax.segments.snap`).
          **options: `size`, the side of squares in pixels, and `n_segments`, about how many
            segments; each segmenter gets those that it takes. A size of None is that of the
            patches, and the segmenter's default without any.

        Raises:
          ValueError: transformers whose patches do not fit into one another.
        """
        seen_as = geometry(self.networks[network].preprocessing)
        patch_size = self._patch_size(seen_as) if snap_to_patches else None
        options = {name: value for name, value in options.items() if value is not None}
        return self._once(
            ("segments", seen_as, segmenter, patch_size, tuple(options.items())),
            lambda: np.stack(
                [
                    segmenters.make(segmenter, image, patch_size=patch_size, **options)
                    for image in self.images(network)
                ]
            ),
        )

    def _patch_size(self, seen_as: tuple) -> int | None:
        """Returns the side of the patches of networks that see images so."""
        alike = {
            name: network
            for name, network in self.networks.items()
            if geometry(network.preprocessing) == seen_as
        }
        return shared_patch_size(alike)

    def gradients(self, network: str, of: str) -> np.ndarray:
        """Returns float32 `[M, H, W]`: `lmjax.attribution.gradient` of the predicted class.

        Args:
          network: the images are as this one sees them.
          of: the network that predicts, and whose gradients they are.
        """
        predictor = Predictor(self.networks[of])
        seen_as = geometry(self.networks[network].preprocessing)
        return self._once(
            ("gradients", seen_as, of),
            lambda: np.stack(
                [attribution.gradient(predictor, image).heatmap for image in self.images(network)]
            ),
        )

    def labels(self) -> list[int]:
        """Returns the true classes of the images; raises ValueError where one is not known."""
        return self._all("label")

    def whole_logits(self, network: str) -> np.ndarray:
        """Returns logits `[M, K]` of the whole images."""

        def compute():
            images = self.images(network)
            masks, image_of = np.ones(images.shape[:3], bool), np.arange(len(images))
            with self.part("whole images"):
                return self._logits(
                    network, WholeImage(self.networks[network]), images, masks, image_of
                )

        return self._once(("whole", network), compute)

    def logits(
        self,
        network: str,
        removal: str,
        masks: np.ndarray | ImageCoalitions,
        image_of: np.ndarray,
        *,
        total: int | None = None,
        parts: Sequence[tuple[str, int]] | None = None,
    ) -> np.ndarray:
        """Evaluates variants under a removal.

        Args:
          network: its name.
          removal: name of a removal, see `lmjax.removals.names()`.
          masks: bool `[N, H, W]`, or coalitions of the images' segments.
          image_of: `[N]`, which of the batch's images each variant shows.
          total: variants of this batch in all calls like this one, where there are several; None
            takes N.
          parts: names of parts of the study (`part`) and how many of the variants are of each; None
            counts all for the part whose block this is in.

        Returns:
          Logits `[N, K]`.
        """
        shown = self.images(network)
        logits = self._removed(
            network, self.networks[network], removal, shown, masks, image_of, total
        )
        for name, count in parts or ():
            self.spent[Spending(self._part, network, removal)] -= count
            self.spent[Spending(name, network, removal)] += count
        return logits

    def features(
        self,
        network: str,
        removal: str,
        masks: np.ndarray | ImageCoalitions,
        image_of: np.ndarray,
        *,
        images: np.ndarray | None = None,
    ) -> np.ndarray:
        """Evaluates the features that go into a network's last layer (`Penultimate`).

        Args:
          network, removal, masks, image_of: as in `logits`.
          images: `[M, H, W, C]` in [0, 1], shown instead of the batch's.

        Returns:
          Features `[N, D]`.
        """
        features = Penultimate(self.networks[network])
        shown = self.images(network) if images is None else images
        return self._removed(network, features, removal, shown, masks, image_of)

    def evaluator(
        self, network: str, removal: str, place: int, segments: np.ndarray | None = None
    ) -> Evaluator:
        """Returns an evaluator for attributions and metrics of one image, which counts variants.

        Args:
          network: its name.
          removal: name of a removal; one that draws has the image's own key.
          place: of the image in the batch.
          segments: `[H, W]`, for removals that take a label map.
        """
        key = self._two_keys()[place, 1]
        made = removals.make(removal, key=key, segments=segments)
        predictor = Predictor(self.networks[network], made)

        def count(variants: int) -> None:
            self.spent[Spending(self._part, network, removal)] += variants

        options = {"engine": self._engine_of(predictor), **self._options}
        about = self._part, removals.title(removal)
        return _Counting(predictor, count=count, about=about, **options)

    def coalition_logits(
        self,
        network: str,
        removal: str,
        segments: np.ndarray,
        keep: np.ndarray,
        image_of: Sequence[int] | np.ndarray,
    ) -> np.ndarray:
        """Evaluates coalitions of segments, each different one once, and no whole image again.

        Args:
          network: its name.
          removal: name of a removal, see `lmjax.removals.names()`.
          segments: `[M, H, W]`, a label map for each image.
          keep: bool `[N, S]`, which of its image's segments a variant shows; False beyond them.
          image_of: `[N]`, which of the batch's images each variant shows.

        Returns:
          Logits `[N, K]`.
        """
        image_of = np.asarray(image_of)
        logits = self.whole_logits(network)[image_of]
        counts = segments.max(axis=(1, 2)) + 1
        partial = np.flatnonzero(keep.sum(axis=1) < counts[image_of])
        if len(partial) == 0:
            return logits
        rows = np.column_stack([image_of, keep])[partial]
        different, which = np.unique(rows, axis=0, return_inverse=True)
        coalitions = ImageCoalitions(segments, different[:, 1:].astype(bool))
        evaluated = self.logits(network, removal, coalitions, different[:, 0])
        logits[partial] = evaluated[which.reshape(-1)]
        return logits

    def patch_size(self, network: str, removal: str) -> int | None:
        """Returns the side of patches that a removal shows as a whole or not at all, or None."""
        return getattr(under_removal(self.networks[network], removal), "patch_size", None)

    def shares_shown(
        self, network: str, removal: str, masks: np.ndarray | ImageCoalitions, image_of: np.ndarray
    ) -> np.ndarray:
        """Computes which share of its image each variant really shows to a network.

        It is that of the mask, but under token dropping, which hides all of a patch that it cuts.

        Args:
          network, removal, masks, image_of: as in `logits`.

        Returns:
          float64 `[N]`, from 0 to 1.
        """
        patch_size = self.patch_size(network, removal)
        if patch_size is None and isinstance(masks, ImageCoalitions):
            columns = masks.keep.shape[1]
            areas = [np.bincount(x.ravel(), minlength=columns) / x.size for x in masks.segments]
            return (np.stack(areas)[image_of] * masks.keep).sum(axis=1)
        shares = np.empty(len(image_of))
        for start in range(0, len(shares), _COUNTED_VARIANTS):
            some = slice(start, start + _COUNTED_VARIANTS)
            if isinstance(masks, np.ndarray):
                shown = masks[some]
            else:
                segments, keep = masks.segments[image_of[some]], masks.keep[some]
                shown = keep[np.arange(len(keep))[:, None, None], segments]
            shown = shown if patch_size is None else whole_patches(shown, patch_size)
            shares[some] = shown.mean(axis=(1, 2))
        return shares

    def whole_predictions(self, network: str) -> np.ndarray:
        """Returns the classes that a network predicts on whole images, int `[M]`."""
        return predicted_classes(self.whole_logits(network))

    def predictions(
        self, network: str, logits: np.ndarray, image_of: Sequence[int] | np.ndarray
    ) -> list[dict[str, Any]]:
        """Returns a row for each variant with its prediction, as most studies store it.

        Args:
          network: its name.
          logits: `[N, K]`, of the variants.
          image_of: `[N]`, which of the batch's images each variant shows.

        Returns:
          Dicts of `image` (its index), `id`, `network`, `label`, `whole_prediction` (the class
          predicted on the whole image), `prediction`, its `probability`, `correct` (prediction is
          label) and `unchanged` (prediction is whole prediction).
        """
        labels, reference = self.labels(), self.whole_predictions(network).tolist()
        for sample, label in zip(self.samples, labels):
            if not 0 <= label < logits.shape[1]:
                raise ValueError(
                    f"label of {sample.id} is {label}, and {network} has classes 0 to "
                    f"{logits.shape[1] - 1}; labels count from 0, an unknown one is None"
                )
        predicted = predicted_classes(logits).tolist()
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
            for i, prediction, probability in zip(image_of, predicted, probabilities)
        ]

    def _all(self, field: str) -> list:
        """Returns a field of all samples; raises ValueError where one does not have it."""
        for sample in self.samples:
            if getattr(sample, field) is None:
                raise ValueError(f"image {sample.id} has no {field}, which this study needs")
        return [getattr(sample, field) for sample in self.samples]

    def _removed(
        self, network: str, classifier: Any, removal: str, images, masks, image_of, total=None
    ) -> np.ndarray:
        """Evaluates variants of images `[M, H, W, C]` under a removal."""
        predictor = under_removal(classifier, removal)
        if isinstance(predictor, ImageRemoval):
            segments = masks.segments if isinstance(masks, ImageCoalitions) else None
            images = KeyedImage(images, self._two_keys()[:, 1], segments)
        return self._logits(network, predictor, images, masks, image_of, total, removal)

    def _logits(
        self,
        network: str,
        predictor: Callable,
        images,
        masks,
        image_of,
        total: int | None = None,
        removal: str = "",
    ) -> np.ndarray:
        with described(self._part, removals.title(removal) if removal else ""):
            logits = self._evaluate(predictor, images, masks, image_of, total or len(image_of))
        self.spent[Spending(self._part, network, removal)] += len(logits)
        bad = ~np.isfinite(logits).all(axis=1)
        if bad.any():
            name = self.samples[image_of[bad.argmax()]].id
            raise ValueError(f"network {network} gives NaN or infinity for image {name}")
        return logits

    def _evaluate(
        self, predictor: Callable, images, masks, image_of: np.ndarray, total: int
    ) -> np.ndarray:
        """Evaluates variants of this batch, as `total * num_images / M` in all are expected."""
        evaluator = Evaluator(predictor, engine=self._engine_of(predictor), **self._options)
        expected = math.ceil(total / len(self.samples) * self._num_images)
        return evaluator.images(images, masks, image_of=image_of, expected=expected)

    def _engine_of(self, predictor: Callable) -> Any:
        """Returns the engine of the run where a predictor supports it, else dense."""
        supported = ("auto", *getattr(predictor, "engines", ()))
        return self._engine if self._engine in supported else "dense"

    def _two_keys(self) -> jax.Array:
        """Returns `[M, 2]`: a key for the study's draws and one for noise, for each image."""
        indices = [sample.index for sample in self.samples]
        return self._once("keys", lambda: keys_of_images(self._key, indices))

    def _once(self, key: Any, make: Callable) -> Any:
        """Returns what `make` returned when it was called for this key first."""
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]


@dataclasses.dataclass(frozen=True, eq=False)
class _Counting(Evaluator):
    """An evaluator that says how many variants it is about to evaluate."""

    count: Callable[[int], None] = dataclasses.field(kw_only=True)
    about: tuple[str, ...] = dataclasses.field(kw_only=True)

    def _run(self, job: Job) -> np.ndarray:
        self.count(job.num_variants)
        with described(*self.about):
            return super()._run(job)


class SampledBatch(ImageBatch):
    """A batch that evaluates a part of many variants and repeats their logits, to estimate costs.

    Attributes:
      seconds_spared: how long the variants that it left out would have taken.
    """

    seconds_spared = 0.0

    def _evaluate(
        self, predictor: Callable, images, masks, image_of: np.ndarray, total: int
    ) -> np.ndarray:
        count = len(image_of)
        if count <= _SAMPLED_VARIANTS:
            return super()._evaluate(predictor, images, masks, image_of, total)
        chosen = np.linspace(0, count - 1, _SAMPLED_VARIANTS).astype(int)
        few = (
            dataclasses.replace(masks, keep=masks.keep[chosen])
            if isinstance(masks, ImageCoalitions)
            else masks[chosen]
        )
        start = time.perf_counter()
        logits = super()._evaluate(predictor, images, few, image_of[chosen], total)
        seconds = time.perf_counter() - start
        self.seconds_spared += seconds * (count / _SAMPLED_VARIANTS - 1)
        return logits[np.arange(count) % _SAMPLED_VARIANTS]


def geometry(preprocessing: Any) -> tuple:
    """Returns the settings of a preprocessing that decide which pixels a network sees."""
    channels = len(preprocessing.mean)
    return preprocessing.resize, preprocessing.crop, preprocessing.interpolation, channels


def _stack(images: list[np.ndarray]) -> np.ndarray:
    """Stacks images; raises ValueError where they differ in size."""
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        raise ValueError(
            f"images of a study must have one size, got {sorted(shapes)}; give networks whose "
            "preprocessing resizes and crops"
        )
    return np.stack(images)
