"""Optimizers and learning rates, with optax."""

import re

import jax
import optax

from lmjax.training.config import TrainingConfig

_DECAYED = ("kernel", "in_proj_kernel")
# Of networks that are functions, where they are matrices; numbers are places in a list.
_OF_OTHERS = ("weight", "w", "value", "in_proj_weight")


def learning_rate(config: TrainingConfig) -> optax.Schedule:
    """Returns a linear warm-up, then half a cosine down to zero (SGDR, arXiv 1608.03983)."""
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0 if config.warmup else config.peak,
        peak_value=config.peak,
        warmup_steps=int(config.warmup * config.steps),
        decay_steps=config.steps,
    )


def make_optimizer(config: TrainingConfig) -> optax.GradientTransformation:
    """Makes SGD with torch's momentum and decay in the gradient, or AdamW (arXiv 1711.05101)."""
    schedule = learning_rate(config)
    if config.optimizer == "adamw":
        return optax.adamw(schedule, weight_decay=config.weight_decay, mask=decayed)
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay, mask=decayed),
        optax.sgd(schedule, momentum=config.momentum),
    )


def decayed(params):
    """Returns which parameters decay: kernels alone (He et al. 2018, arXiv 1812.01187)."""

    def is_decayed(path, leaf) -> bool:
        name = re.split(r"[./]", path[-1].key)[-1]  # of Keras, paths
        of_others = name in _OF_OTHERS or name.isdecimal()
        return name in _DECAYED or (of_others and leaf.ndim > 1)

    return jax.tree_util.tree_map_with_path(is_decayed, params)
