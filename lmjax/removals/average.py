"""Averages over several replacements of hidden pixels, and their standard errors."""

import dataclasses
import functools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from lmjax._utils.checks import check_choice
from lmjax._utils.probabilities import mean_probability, probabilities
from lmjax._utils.summary import brief
from lmjax.masking.checks import check_colours, check_image
from lmjax.removals.removal import Removal, declared
from lmjax.removals.replace import Replace

AVERAGES = ("probability", "logit")


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["classifier", "removal"], meta_fields=[]
)
@dataclasses.dataclass(frozen=True, eq=False)
class StandardErrors:
    """Gives the standard errors of a removal's averages, in the place of a predictor.

    Example:
      >>> fill = lmjax.Fill(function, key=jax.random.key(0), draws=16)
      >>> errors = lmjax.evaluate(lmjax.removals.StandardErrors(classifier, fill), image, masks)

    Attributes:
      classifier: as in `lmjax.Predictor`.
      removal: one that averages over several draws: `Fill`, `Samples` or `ReplaceAverage`, or
        another with a method `answers(classifier, image, masks)` -> logits `[D, N, K]`.

    Raises:
      ValueError: a removal without `answers`; when called, one with a single draw.
    """

    classifier: Any
    removal: Any

    soft_masks = False

    @property
    def reads_hidden(self) -> bool:
        """Whether the removal reads pixels that masks hide."""
        return declared(self.removal, "reads_hidden")

    def __post_init__(self):
        if not callable(getattr(self.removal, "answers", None)):
            raise ValueError(
                "removal must be one that averages over draws, such as "
                f"lmjax.Fill(function, key=key, draws=8); got {brief(self.removal)}"
            )

    def __call__(self, image: jax.Array, masks: jax.Array) -> jax.Array:
        """Returns standard errors `[N, K]` of the averages: of probabilities, logits or features.

        Logits are averaged by `ReplaceAverage(..., average="logit")` alone. Those of `Samples` are
        of draws without replacement: 0 where all images are drawn.

        Args:
          image: `[H, W, C]` in [0, 1].
          masks: `[N, H, W]`, 1 = visible.
        """
        answers = self.removal.answers(self.classifier, image, masks)
        as_they_are = getattr(self.classifier, "gives_features", False)
        if not as_they_are and getattr(self.removal, "average", "probability") == "probability":
            answers = probabilities(answers)
        if len(answers) == 1:
            raise ValueError(
                f"draws must be 2 or more for a standard error; got {brief(self.removal)}"
            )
        share = len(answers) / getattr(self.removal, "population", math.inf)
        return answers.std(axis=0, ddof=1) * math.sqrt((1 - share) / len(answers))


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True, eq=False)
class ReplaceAverage(Removal):
    """Replaces hidden pixels by those of several images in turn, and averages the answers.

    The marginal expectation of prediction difference analysis, with a set of images for the draws:
    p(c | visible) is the mean over the set of p(c | visible, hidden pixels of the m-th image). A
    variant costs as much as the set has images; all variants share the set. To average over random
    draws from a larger set, choose that many of it. Takes binary masks.

    Attributes:
      baselines: `[M, H, W, C]` in [0, 1], images of the picture's size.
      average: what is averaged. "probability" (default) averages probabilities over the classes, as
        the paper does, and gives their logarithms as logits, whose softmax they are; "logit"
        averages logits.

    Raises:
      ValueError: another shape or range, no image, or another average.

    References:
      Zintgraf, Cohen, Adel & Welling 2017, "Visualizing deep neural network decisions: prediction
      difference analysis" (arXiv 1702.04595), marginal sampling. (The paper goes on to draw from a
      Gaussian conditioned on the surroundings.)
    """

    baselines: jax.Array
    _: dataclasses.KW_ONLY
    average: Literal["probability", "logit"] = "probability"

    def __post_init__(self):
        check_choice("average", self.average, AVERAGES)
        object.__setattr__(self, "baselines", check_images(self.baselines, "baselines"))

    def logits(self, classifier: Any, image: jax.Array, masks: jax.Array) -> jax.Array:
        """Returns averaged logits `[N, K]`.

        Args:
          classifier: as in `Replace.logits`.
          image: `[H, W, C]` in [0, 1].
          masks: `[N, H, W]`, 1 = visible.
        """
        answers = self.answers(classifier, image, masks)
        return answers.mean(axis=0) if self.average == "logit" else averaged(classifier, answers)

    def answers(self, classifier: Any, image: jax.Array, masks: jax.Array) -> jax.Array:
        """Returns the logits under each image of the set, `[M, N, K]`; arguments as in `logits`."""

        def one(baseline):  # one image of the set at a time: the memory of plain Replace
            return Replace(baseline).logits(classifier, image, masks)

        return jax.lax.map(one, jnp.asarray(self.baselines))

    def __repr__(self) -> str:
        return f"ReplaceAverage({brief(self.baselines)}, average={self.average!r})"

    def tree_flatten(self):
        return (self.baselines,), self.average

    @classmethod
    def of(cls, baselines: jax.Array) -> "ReplaceAverage":
        """Returns the removal for images that were checked before, and may be traced."""
        return cls.tree_unflatten("probability", (baselines,))

    @classmethod
    def tree_unflatten(cls, average, leaves):
        removal = object.__new__(cls)  # no checks: leaves may be tracers or placeholders
        vars(removal).update(baselines=leaves[0], average=average)
        return removal


def averaged(classifier: Any, answers: jax.Array) -> jax.Array:
    """Averages the answers of draws as probabilities; features, which are not logits, as they are.

    Args:
      classifier: one that gives features has a true attribute `gives_features`.
      answers: `[D, N, K]`.

    Returns:
      `[N, K]`; of probabilities, logits that have the average ones.
    """
    if getattr(classifier, "gives_features", False):
        return answers.mean(axis=0)
    return mean_probability(answers)


def check_images(images: Any, name: str) -> jax.Array | np.ndarray:
    """Returns checked images, float32 `[M, H, W, C]`; raises ValueError for anything else."""
    if not isinstance(images, jax.Array):
        images = np.asarray(images)
    if images.ndim != 4 or len(images) == 0:
        raise ValueError(
            f"{name} must be images [M, H, W, C], at least one; got shape {images.shape}"
            + ("; for one image: lmjax.Replace(image)" if images.ndim == 3 else "")
        )
    check_image(images[0], name)
    check_colours(images, name)
    return images.astype(np.float32)
