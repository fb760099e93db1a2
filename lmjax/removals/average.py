"""The removal that averages over several replacements of hidden pixels."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from lmjax._utils.checks import check_choice
from lmjax._utils.summary import brief
from lmjax.masking.checks import check_colours, check_image
from lmjax.removals.removal import Removal
from lmjax.removals.replace import Replace

AVERAGES = ("probability", "logit")


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
        object.__setattr__(self, "baselines", _check_baselines(self.baselines))

    def logits(self, classifier: Any, image: jax.Array, masks: jax.Array) -> jax.Array:
        """Returns averaged logits `[N, K]`.

        Args:
          classifier: as in `Replace.logits`.
          image: `[H, W, C]` in [0, 1].
          masks: `[N, H, W]`, 1 = visible.
        """

        def one(baseline):  # one image of the set at a time: the memory of plain Replace
            logits = Replace(baseline).logits(classifier, image, masks)
            return jax.nn.log_softmax(logits) if self.average == "probability" else logits

        answers = jax.lax.map(one, jnp.asarray(self.baselines))
        if self.average == "logit":
            return answers.mean(axis=0)
        return jax.nn.logsumexp(answers, axis=0) - jnp.log(len(answers))

    def __repr__(self) -> str:
        return f"ReplaceAverage({brief(self.baselines)}, average={self.average!r})"

    def tree_flatten(self):
        return (self.baselines,), self.average

    @classmethod
    def tree_unflatten(cls, average, leaves):
        removal = object.__new__(cls)  # no checks: leaves may be tracers or placeholders
        object.__setattr__(removal, "baselines", leaves[0])
        object.__setattr__(removal, "average", average)
        return removal


def _check_baselines(baselines) -> jax.Array | np.ndarray:
    if not isinstance(baselines, jax.Array):
        baselines = np.asarray(baselines)
    if baselines.ndim != 4 or len(baselines) == 0:
        raise ValueError(
            f"baselines must be images [M, H, W, C], at least one; got shape {baselines.shape}"
            + ("; for one image: lmjax.Replace(image)" if baselines.ndim == 3 else "")
        )
    check_image(baselines[0], "baselines")
    check_colours(baselines, "baselines")
    return baselines.astype(np.float32)
