"""Score-CAM: a layer's channels, weighted by the output for the image masked by each of them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lmjax._utils.bounded import bounded_jit
from lmjax._utils.checks import check_flag, check_whole
from lmjax.attribution.attribution import Attribution
from lmjax.attribution.budget import Cost
from lmjax.attribution.game import Game
from lmjax.attribution.gradcam import activations_of, enlarged, rectified_sum
from lmjax.attribution.halves import Halves, choose_halves
from lmjax.attribution.record import recorded
from lmjax.evaluation.evaluator import Evaluator
from lmjax.evaluation.jobs import Static, split
from lmjax.evaluation.many_images import over_images
from lmjax.evaluation.objectives import Objective
from lmjax.evaluation.requests import Asking
from lmjax.masks.families import MaskFamily


@over_images
@recorded
def scorecam(
    predictor: Callable | Evaluator,
    image: ArrayLike,
    *,
    halves: Halves | None = None,
    target: int | Sequence[int] | None = None,
    levels: int = 4,
    soft: bool | None = None,
    evaluations: int | None = None,
    objective: Objective = "logit",
) -> Asking[Attribution]:
    """Scores pixels by Score-CAM: a layer's channels, weighted by what they show of the image.

    Each channel, enlarged to the image and rescaled to [0, 1], is a soft mask. The softmax, over
    channels, of the outputs for the image under these masks weighs the channels; their sum is
    rectified and then resized bilinearly to the image. No gradients are needed.

    Soft masks have no meaning where a mask says which positions are known. There (under
    `lmjax.LayerMasking`) a soft mask is taken as the mean of the binary masks of what lies above a
    threshold: its output is the mean of the outputs at `levels` thresholds, evenly spaced.

    Cost: an evaluation of each channel (under binary masks `levels`), and one of the whole image.

    Example:
      >>> features = lambda image: image.reshape(4, 4, 4, 4, 3).mean((1, 3))  # [4, 4, 3]
      >>> head = lambda features: features.mean((0, 1))  # three classes
      >>> halves = features, head
      >>> lmjax.attribution.scorecam(predictor, image, halves=halves).scores.shape
      (16, 16)

    Args:
      predictor: a predictor or an `lmjax.Evaluator`, which holds engine, batch size, devices and
        progress.
      image: `[H, W, C]` floats in [0, 1]; or images `[B, H, W, C]`, for a list of results.
      halves: (features, head) as in `lmjax.attribution.gradcam`, of which only the features are
        used; None takes `predictor.classifier.cut()`. Channels that are constant are left out.
      target: class or classes to explain; None explains the predicted class. Several targets cost
        no more evaluations than one.
      levels: thresholds of a binary mask, 1 or more: (i + 1/2) / levels for i from 0.
      soft: whether masks are soft. None asks the predictor (`soft_masks`); a plain function gets
        binary masks.
      evaluations: upper limit on evaluations, the whole image included, to compare methods at
        equal cost. Where channels need more, those that vary most over positions are taken. None
        takes all channels.
      objective: what to explain: "logit" of the target (the softmax over channels asks for the
        scale of logits), "probability", "margin", or a function of the network's output
        (`lmjax.objectives`).

    Returns:
      `Attribution` with scores `[H, W]` for one target, `[T, H, W]` for several; none below 0.

    Raises:
      ValueError: options out of range, a predictor without a classifier that can be cut, features
        of another shape or all constant, and all that `lmjax.evaluate` raises.

    References:
      Wang et al. 2020, "Score-CAM" (arXiv 1910.01279), equations 3 to 6. The output for a baseline,
      which equation 3 subtracts, cancels in the softmax. Leaving out channels that vary little is
      known as Faster Score-CAM.
    """
    from scipy.special import softmax

    levels = check_whole("levels", levels, least=1, most=256)
    game = Game(predictor, image, target=target, objective=objective)
    soft = check_flag("soft", game.predictor.soft_masks if soft is None else soft)
    thresholds = (np.arange(levels, dtype=np.float32) + np.float32(0.5)) / np.float32(levels)
    thresholds = np.zeros(1, np.float32) if soft else thresholds
    features, _ = choose_halves(halves, predictor)
    maps = _maps(features, image)
    cost = Cost(len(thresholds))
    most = cost.number("channels", None, evaluations, default=len(maps), least=1)
    channels = _varying(maps, most)
    masks = ChannelMasks(game.shape, maps, channels, thresholds, soft=soft)
    payoffs = yield from game.ask(masks)
    outputs = payoffs.values.reshape(len(channels), len(thresholds), -1).mean(axis=1)
    weights = np.zeros((len(maps), outputs.shape[1]), np.float32)
    weights[channels] = softmax(outputs.astype(np.float64), axis=0)
    scores = np.asarray(_weighted(maps, weights, spatial_shape=game.shape))
    prediction = payoffs.prediction
    return Attribution(
        scores=scores if prediction.several else scores[0],
        num_variants=len(masks) + 1,
        **prediction._asdict(),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class ChannelMasks(MaskFamily):
    """Masks made of a layer's channels, each at every threshold.

    Attributes:
      spatial_shape: (H, W).
      maps: float32 `[D, h, w]`.
      channels: ints `[N]`, which of the maps make masks; none of these is constant.
      thresholds: float32 `[L]`; one that is ignored for soft masks.
      soft: masks are the enlarged channels, rescaled to [0, 1]; otherwise what of them lies above
        the threshold is visible.
    """

    spatial_shape: tuple[int, int]
    maps: np.ndarray
    channels: np.ndarray
    thresholds: np.ndarray
    _: dataclasses.KW_ONLY
    soft: bool = False

    @property
    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Channels and thresholds of the masks, `[N L]` each."""
        channels = np.repeat(self.channels.astype(np.int32), len(self.thresholds))
        return channels, np.tile(self.thresholds, len(self.channels))

    @property
    def shared(self) -> np.ndarray:
        """The maps `[D, h, w]`."""
        return self.maps

    @property
    def make(self) -> Callable:
        """The function from maps, channels and thresholds to masks."""
        return _ChannelMaker(self.spatial_shape, self.soft)


class _ChannelMaker(NamedTuple):
    """Makes the masks of `ChannelMasks`."""

    spatial_shape: tuple[int, int]
    soft: bool

    def __call__(self, maps: jax.Array, rows: tuple[jax.Array, jax.Array]) -> jax.Array:
        channels, thresholds = rows
        large = enlarged(maps[channels], self.spatial_shape)
        low, high = (f(large, axis=(1, 2), keepdims=True) for f in (jnp.min, jnp.max))
        shares = (large - low) / jnp.where(high > low, high - low, 1)
        shares = jnp.clip(shares, 0, 1)
        return shares if self.soft else shares > thresholds[:, None, None]


def _maps(features: Callable, image: ArrayLike) -> np.ndarray:
    """Returns the layer's channels `[D, h, w]`."""
    arrays, static = split(features)
    activations = np.asarray(_activations(arrays, np.array(image, np.float32), static=static))
    if not np.isfinite(activations).all():
        raise ValueError("features gave NaN or infinity; check the network's weights")
    return np.moveaxis(activations, -1, 0)


@bounded_jit(static_argnames="static")
def _activations(arrays: list[jax.Array], image: jax.Array, *, static: Static) -> jax.Array:
    return activations_of(static.predictor(arrays), image).astype(jnp.float32)


def _varying(maps: np.ndarray, most: int) -> np.ndarray:
    """Returns which channels are not constant; of more than `most`, those that vary most."""
    varies = np.ptp(maps, axis=(1, 2)) > 0
    if not varies.any():
        raise ValueError(
            f"features gave {len(maps)} channels that are each constant over their "
            f"{maps.shape[1]} x {maps.shape[2]} positions, so none says where anything is; cut the "
            "network behind a layer with more positions"
        )
    variances = np.where(varies, maps.astype(np.float64).var(axis=(1, 2)), -1)
    chosen = np.argsort(-variances, kind="stable")[: varies.sum()]
    return np.sort(chosen[:most])


@bounded_jit(static_argnames="spatial_shape")
def _weighted(maps: jax.Array, weights: jax.Array, *, spatial_shape: tuple[int, int]) -> jax.Array:
    """Returns the maps `[T, H, W]` of channels `[D, h, w]` and their weights `[D, T]`."""
    return enlarged(rectified_sum(jnp.moveaxis(maps, 0, -1), weights.T), spatial_shape)
