"""Objectives: what is explained of a network's output, as functions of it.

An attribution or a metric takes one as `objective=`: the `"probability"`, the `"logit"` or the
`"margin"` (the logit minus the highest of the others) of a class, or any function written in JAX
from the output for one variant to a number, or to M numbers which are explained side by side. Those
here are such functions, with their arrays as arguments of compiled programs:

    cat_not_dog = lmjax.objectives.difference(281, 207)
    attribution = lmjax.attribution.lime(predictor, image, segments, key=key, objective=cat_not_dog)

A network's output is its logits `[K]`; it may be anything else that its function returns for one
image, such as an embedding `[D]`, a map `[h, w, K]` or a tuple of arrays.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jax.typing import ArrayLike

from lmjax._utils.checks import check_numbers, check_whole
from lmjax._utils.host import suggests_black_box
from lmjax._utils.probabilities import probabilities
from lmjax._utils.summary import brief
from lmjax.evaluation.outputs import OUTPUTS, margins

Objective = str | Callable[[Any], jax.Array]
"""One of `OUTPUTS`, or a function of the output for one variant."""


def probability_of(classes: Sequence[int]) -> Partial:
    """Makes the objective that is the probability of a set of classes.

    Example:
      >>> objective = lmjax.objectives.probability_of([0, 1])
      >>> round(float(objective(jnp.array([0.0, 1.0]))), 2)
      1.0

    Args:
      classes: numbers of classes, each once, such as all breeds of dogs.

    Raises:
      ValueError: no class, or one twice.
    """
    classes = [check_whole("classes", each, least=0) for each in classes]
    if not classes or len(set(classes)) < len(classes):
        raise ValueError(f"classes must be one or more numbers, each once; got {classes}")
    return Partial(_probability_of, np.array(classes))


def difference(first: int, second: int) -> Partial:
    """Makes the objective that is the logit of one class minus that of another.

    Example:
      >>> objective = lmjax.objectives.difference(1, 0)
      >>> round(float(objective(jnp.array([-1.0, 2.0]))), 2)
      3.0

    Args:
      first: the class that is counted.
      second: the class that it is compared with.

    Raises:
      ValueError: a class that is not a whole number, or is negative.
    """
    first, second = (check_whole("classes", each, least=0) for each in (first, second))
    return Partial(_difference, np.array([first, second]))


def margin(target: int) -> Partial:
    """Makes the objective that is a class's logit minus the highest logit of all others.

    It is above 0 where the class is predicted. A single logit is compared with 0.

    Example:
      >>> objective = lmjax.objectives.margin(1)
      >>> round(float(objective(jnp.array([-1.0, 2.0, 0.5]))), 2)
      1.5

    Args:
      target: the class.

    Raises:
      ValueError: a class that is not a whole number, or is negative.
    """
    return Partial(_margin, np.array(check_whole("target", target, least=0)))


def entropy() -> Partial:
    """Makes the objective that is the entropy of the class probabilities, in nats.

    Example:
      >>> objective = lmjax.objectives.entropy()  # ln 2
      >>> round(float(objective(jnp.array([1.0, 1.0]))), 2)
      0.69
    """
    return Partial(_entropy)


def value(*index: int) -> Partial:
    """Makes the objective that is one entry of the output, such as a regression's.

    Example:
      >>> objective = lmjax.objectives.value(1)
      >>> round(float(objective(jnp.array([-1.0, 2.0]))), 2)
      2.0

    Args:
      *index: of the entry; none for an output that is a single number.

    Raises:
      ValueError: an index that is not a whole number.
    """
    return Partial(_value, np.array([check_whole("index", each, least=0) for each in index], int))


def cosine(reference: ArrayLike) -> Partial:
    """Makes the objective that is the cosine of the output, an embedding, to a reference.

    Example:
      >>> objective = lmjax.objectives.cosine([1.0, 0.0])
      >>> round(float(objective(jnp.array([1.0, 1.0]))), 2)
      0.71

    Args:
      reference: `[D]` finite floats, not all 0: the embedding of the image that was found, say.

    Raises:
      ValueError: another shape, or an array that has no direction.
    """
    found = check_numbers("reference", reference).astype(np.float32)
    if found.ndim != 1 or not np.isfinite(found).all() or not found.any():
        raise ValueError(
            "reference must be an embedding [D] of finite numbers that are not all 0; got shape "
            f"{found.shape}"
        )
    return Partial(_cosine, found / np.linalg.norm(found))


def region_mean(region: ArrayLike, channel: int) -> Partial:
    """Makes the objective that is the mean of a map's channel in a region, such as a segmentation.

    Example:
      >>> objective = lmjax.objectives.region_mean(object_mask, 0)
      >>> round(float(objective(jnp.asarray(object_mask, float)[..., None])), 2)
      1.0

    Args:
      region: bool `[h, w]`, of the map's own size, True at one position or more.
      channel: of the map `[h, w, K]`.

    Raises:
      ValueError: an empty region.
    """
    inside = np.asarray(region)
    if inside.ndim != 2 or not inside.any() or not np.isin(inside, (0, 1)).all():
        raise ValueError(
            f"region must be bool [h, w], True at one position or more; got {inside.dtype} "
            f"{list(inside.shape)}"
        )
    channel = check_whole("channel", channel, least=0)
    return Partial(_region_mean, inside.astype(np.float32), np.array(channel))


def detection(box: ArrayLike, scores: ArrayLike) -> Partial:
    """Makes the objective that says how well any detection matches a given one, as D-RISE does.

    The network's output is a tuple: boxes `[P, 4]`, class scores `[P, K]` and, where there are
    any, objectness `[P]`, of a fixed number P of proposals. The objective is the largest product,
    over proposals, of the IoU of boxes, the cosine of class scores, and objectness.

    Args:
      box: (left, top, right, bottom) of the detection to explain.
      scores: `[K]`, its class scores, one-hot for a label.

    Raises:
      ValueError: a box without area, or scores that are all 0.

    References:
      Petsiuk et al. 2021, "Black-box explanation of object detectors via saliency maps" (arXiv
      2006.03204), equations 2 to 5. For how this is done elsewhere, see xaitk-saliency.
    """
    corners = check_numbers("box", box).astype(np.float32)
    found = check_numbers("scores", scores).astype(np.float32)
    if corners.shape != (4,) or not (corners[2:] > corners[:2]).all():
        raise ValueError(f"box must be (left, top, right, bottom) with an area, got {brief(box)}")
    if found.ndim != 1 or not np.isfinite(found).all() or not found.any():
        raise ValueError(f"scores must be finite [K], not all 0; got shape {found.shape}")
    return Partial(_detection, corners, found / np.linalg.norm(found))


def check_objective(objective: Objective) -> None:
    """Raises ValueError unless the objective is one of `OUTPUTS` or a function."""
    if not callable(objective) and not (isinstance(objective, str) and objective in OUTPUTS):
        raise ValueError(
            f"objective must be one of {', '.join(OUTPUTS)}, a function of the network's output; "
            f"got {brief(objective)}"
        )


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["predictor", "objective"], meta_fields=[]
)
@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """A predictor whose logits are the values `[N, M]` of an objective.

    Attributes:
      predictor: function (image, masks) -> outputs with a leading axis N, one array or several.
      objective: function of the output for one variant, to a number or to `[M]`.
    """

    predictor: Callable
    objective: Callable

    def __call__(self, image: jax.Array, masks: jax.Array) -> jax.Array:
        """Returns the values `[N, M]`; arguments as those of the predictor."""
        return self._values(self.predictor(image, masks))

    def on_visible(self, image: jax.Array, masks: jax.Array, layout: Any) -> jax.Array:
        """Returns the same values, computed on visible positions only."""
        return self._values(self.predictor.on_visible(image, masks, layout))  # pyright: ignore

    @property
    def soft_masks(self) -> bool:
        """Whether masks may hold values between 0 and 1; missing where the predictor's is."""
        return self.predictor.soft_masks  # pyright: ignore[reportFunctionMemberAccess]

    @property
    def reads_hidden(self) -> bool:
        """Whether the predictor reads pixels that masks hide."""
        return getattr(self.predictor, "reads_hidden", False)

    @property
    def engines(self) -> tuple[str, ...]:
        """The engines that the predictor supports."""
        return getattr(self.predictor, "engines", ("dense",))

    def _values(self, outputs: Any) -> jax.Array:
        with suggests_black_box("objective"):
            values = jax.vmap(lambda output: jnp.asarray(self.objective(output)))(outputs)
        if values.ndim not in (1, 2) or values.dtype.kind not in "fbiu" or values.size == 0:
            raise ValueError(
                "objective must return a real number for each variant, or M of them [M]; got "
                f"{values.dtype} {list(values.shape[1:])}"
            )
        return values.astype(jnp.float32).reshape(len(values), -1)


def _probability_of(classes: jax.Array, logits: jax.Array) -> jax.Array:
    return _entries(probabilities(_vector(logits)), classes).sum()


def _difference(classes: jax.Array, logits: jax.Array) -> jax.Array:
    first, second = _entries(_vector(logits), classes)
    return first - second


def _margin(target: jax.Array, logits: jax.Array) -> jax.Array:
    return _entries(margins(_vector(logits)), target)


def _entropy(logits: jax.Array) -> jax.Array:
    logits = jnp.append(logits, 0) if len(_vector(logits)) == 1 else logits
    return jax.scipy.special.entr(jax.nn.softmax(logits)).sum()


def _value(index: jax.Array, output: jax.Array) -> jax.Array:
    if output.ndim != len(index):
        raise ValueError(
            f"objective value needs {output.ndim} numbers for an output of shape "
            f"{list(output.shape)}, got {len(index)}"
        )
    return _entries(output, *index)


def _cosine(reference: jax.Array, output: jax.Array) -> jax.Array:
    if output.shape != reference.shape:
        raise ValueError(
            f"objective cosine has a reference of shape {list(reference.shape)}, the network's "
            f"output has {list(output.shape)}"
        )
    return output @ reference / jnp.linalg.norm(output)


def _region_mean(region: jax.Array, channel: jax.Array, output: jax.Array) -> jax.Array:
    if output.ndim != 3 or output.shape[:2] != region.shape:
        raise ValueError(
            f"objective region_mean has a region of shape {list(region.shape)}, the network's "
            f"output has {list(output.shape)}; a map is [h, w, K]"
        )
    of_channel = _entries(jnp.moveaxis(output, -1, 0), channel)
    return (of_channel * region).sum() / region.sum()


def _detection(box: jax.Array, scores: jax.Array, output: tuple[jax.Array, ...]) -> jax.Array:
    boxes, of_classes, *objectness = output
    if boxes.shape[1:] != (4,) or of_classes.shape != (len(boxes), len(scores)):
        raise ValueError(
            f"objective detection needs boxes [P, 4] and scores [P, {len(scores)}], got shapes "
            f"{list(boxes.shape)} and {list(of_classes.shape)}"
        )
    norms = jnp.linalg.norm(of_classes, axis=1)
    similar = jnp.where(norms > 0, of_classes @ scores / jnp.where(norms > 0, norms, 1), 0)
    match = _iou(box, boxes) * similar
    return (match * objectness[0] if objectness else match).max()


def _iou(box: jax.Array, boxes: jax.Array) -> jax.Array:
    """Returns intersection over union of a box with boxes `[P, 4]`; 0 for those without area."""

    def area(corners):
        return jnp.maximum(corners[..., 2:] - corners[..., :2], 0).prod(axis=-1)

    box = box[None]
    low, high = jnp.maximum(box[:, :2], boxes[:, :2]), jnp.minimum(box[:, 2:], boxes[:, 2:])
    common = area(jnp.concatenate([low, high], axis=1))
    return common / (area(box) + area(boxes) - common)


def _entries(values: jax.Array, *index: jax.Array) -> jax.Array:
    """Returns entries of an array; NaN, which is refused later, for those that it does not have."""
    return jnp.asarray(values).at[index].get(mode="fill", fill_value=jnp.nan)


def _vector(logits: jax.Array) -> jax.Array:
    """Returns the output; raises ValueError unless it is `[K]`."""
    if jnp.ndim(logits) != 1:
        raise ValueError(
            "this objective is a function of logits [K], the network's output has shape "
            f"{list(jnp.shape(logits))}"
        )
    return logits
