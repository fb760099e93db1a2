"""One step of training.

Images are uint8 `[N, H, W, C]` until the jitted step, which scales, augments and normalises them;
labels are int `[N]`. What is random in a step depends on the seed and the step's number alone.

On several devices the images of a batch are divided among them, and the compiler adds up what
belongs together: the step is that of one device, batch norm included.
"""

import functools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Sharding

from lmjax.masking.masked import Masked
from lmjax.models.preprocessing import Preprocessing
from lmjax.training.augmentation import Examples, augment, masking_of
from lmjax.training.config import TrainingConfig
from lmjax.training.optimizer import learning_rate, make_optimizer


class TrainState(NamedTuple):
    """The state of a training, as one pytree, which each step changes.

    Attributes:
      step: steps made, int32.
      params, batch_stats: the network's variables, float32.
      optimizer: state of the optimizer.
      ema: moving average of the variables, or None.
    """

    step: jax.Array
    params: dict[str, Any]
    batch_stats: dict[str, Any]
    optimizer: optax.OptState
    ema: dict[str, Any] | None

    @property
    def trained(self) -> dict[str, Any]:
        """The variables to use: the moving average if there is one."""
        return self.ema or _variables(self.params, self.batch_stats)


def _variables(params, batch_stats) -> dict[str, Any]:
    return {"params": params, "batch_stats": batch_stats} if batch_stats else {"params": params}


@functools.partial(jax.jit, static_argnames="config")
def initial_state(variables: dict[str, Any], config: TrainingConfig) -> TrainState:
    """Returns the state before the first step.

    Args:
      variables: of the network, `{"params": ..., "batch_stats": ...}`, float32.
      config: gives the optimizer, and whether there is a moving average.
    """
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    # A copy: a step gives the memory of its state away, and no array can be given twice.
    ema = jax.tree.map(jnp.copy, _variables(params, batch_stats)) if config.ema else None
    optimizer = make_optimizer(config).init(params)
    return TrainState(jnp.zeros((), jnp.int32), params, batch_stats, optimizer, ema)


@functools.partial(
    jax.jit,
    static_argnames=("module", "preprocessing", "config", "size", "sharding"),
    donate_argnames="state",
)
def train_step(
    state: TrainState,
    images: jax.Array,
    labels: jax.Array,
    objects: jax.Array | None = None,
    *,
    module: nn.Module,
    preprocessing: Preprocessing,
    config: TrainingConfig,
    size: int | None = None,
    sharding: Sharding | None = None,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Takes one step of gradient descent on the cross entropy of a batch.

    Args:
      state: consumed; use the one returned.
      images: uint8 `[N, H, W, C]`.
      labels: int `[N]`.
      objects: `[N, H, W]` bool, True on the object, where an augmentation asks for it.
      module: the network, as it is used after training; the step runs it in training.
      preprocessing: gives the normalisation.
      config: all else.
      size: images are shrunk to this height and width; None leaves them.
      sharding: of the state, whole on every device that images are divided among; None on one.

    Returns:
      The next state; and the batch's mean `loss` and `accuracy` before the step, the norm of the
      gradient (`gradient_norm`) and the `learning_rate`.
    """
    module = in_training(module, config)
    masking = masking_of(config.augmentations, module.masking)
    masks = None if masking is None else jnp.ones(images.shape[:3], bool)
    targets = jax.nn.one_hot(labels, module.num_classes)
    images = images.astype(jnp.float32) / 255
    examples = _shrink(Examples(images, targets, masks, objects), size)
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    examples = augment(examples, config.augmentations, preprocessing.mean, key=key)
    batch = (
        preprocessing.normalise(examples.images),
        optax.smooth_labels(examples.targets, config.label_smoothing),
        examples.masks,
    )

    def loss_of(params, batch_stats, batch):
        images, targets, masks = batch
        logits, changed = module.apply(
            _variables(params, batch_stats), Masked(images, masks), mutable=["batch_stats"]
        )
        right = logits.argmax(axis=-1) == targets.argmax(axis=-1)
        loss = optax.softmax_cross_entropy(logits, targets).mean()
        return loss, (changed.get("batch_stats", {}), right.mean())

    gradient_of = jax.value_and_grad(loss_of, has_aux=True)
    if config.accumulate == 1:
        (loss, (batch_stats, accuracy)), gradient = gradient_of(
            state.params, state.batch_stats, batch
        )
    else:
        loss, batch_stats, accuracy, gradient = _accumulate(gradient_of, state, batch, config)
    with jax.numpy_dtype_promotion("standard"):  # optax counts in ints
        update, optimizer = make_optimizer(config).update(gradient, state.optimizer, state.params)
        rate = learning_rate(config)(state.step)
    params: Any = optax.apply_updates(state.params, update)
    metrics = {
        "loss": loss,
        "accuracy": accuracy,
        "gradient_norm": optax.tree.norm(gradient),
        "learning_rate": rate,
    }
    ema = _average(state, _variables(params, batch_stats), config)
    before, state = state, TrainState(state.step + 1, params, batch_stats, optimizer, ema)
    # Costs nothing: shapes and types are known while it is traced. Where they drifted, each step
    # would compile anew, and checkpoints would not be those that a run goes on from.
    chex.assert_trees_all_equal_shapes_and_dtypes(before, state)
    if sharding is not None:
        state, metrics = jax.lax.with_sharding_constraint((state, metrics), sharding)
    return state, metrics


def in_training(module: nn.Module, config: TrainingConfig) -> nn.Module:
    """Returns the network in training: with batch statistics, and the augmentations' masking."""
    options: dict[str, Any] = {"train": True, "dtype": jnp.dtype(config.dtype)}
    masking = masking_of(config.augmentations, module.masking)
    if masking is not None:
        options["masking"] = masking
    return module.clone(**options)


def _accumulate(gradient_of, state: TrainState, batch, config: TrainingConfig):
    """Means over micro-batches; the running statistics of batch norm pass through all of them."""
    parts = config.accumulate

    def add(sums, part):
        batch_stats, *before = sums
        (loss, (batch_stats, accuracy)), gradient = gradient_of(state.params, batch_stats, part)
        return (batch_stats, *jax.tree.map(jnp.add, before, [loss, accuracy, gradient])), None

    # Every parts-th image: so each device keeps its own.
    split = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), batch)
    zeros = jnp.zeros(()), jnp.zeros(()), jax.tree.map(jnp.zeros_like, state.params)
    sums, _ = jax.lax.scan(add, (state.batch_stats, *zeros), split)
    batch_stats, *rest = sums
    loss, accuracy, gradient = jax.tree.map(lambda x: x / parts, rest)
    return loss, batch_stats, accuracy, gradient


def _average(state: TrainState, variables, config: TrainingConfig):
    """The moving average, of statistics too; shorter at first, to forget the random weights."""
    if state.ema is None:
        return None
    step = state.step.astype(jnp.float32)
    decay = jnp.minimum(config.ema, (1 + step) / (10 + step))

    def average(old: jax.Array, new: jax.Array) -> jax.Array:
        whole = not jnp.issubdtype(new.dtype, jnp.floating)  # such as a function's indices
        return new if whole else old + (1 - decay) * (new - old)  # exact where nothing changed

    return jax.tree.map(average, state.ema, variables)


def _shrink(examples: Examples, size: int | None) -> Examples:
    count, height, width, channels = examples.images.shape
    if size is None or (height, width) == (size, size):
        return examples

    def nearest(masks: jax.Array | None) -> jax.Array | None:
        return None if masks is None else jax.image.resize(masks, (count, size, size), "nearest")

    shape = (count, size, size, channels)
    images = jax.image.resize(examples.images, shape, "linear", antialias=True)
    return Examples(images, examples.targets, nearest(examples.masks), nearest(examples.objects))
