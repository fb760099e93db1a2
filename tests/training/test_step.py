"""One step of training, against torch and against plain NumPy."""

import copy
import dataclasses
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from lmjax.masking.masked import Masked
from lmjax.models import checkpoints, registry
from lmjax.models.layers import BatchNorm
from lmjax.models.loading import build
from lmjax.training import TrainingConfig, initial_state, train_step
from lmjax.training.loop import initial_variables
from lmjax.training.optimizer import decayed, learning_rate
from tests.support.networks import SMALLEST
from tests.training.small_network import CLASSES, PREPROCESSING, SIZE, Small

STEPS, BATCH = 6, 8
CONFIG = TrainingConfig(
    epochs=1,
    images_per_epoch=STEPS * BATCH,
    batch_size=BATCH,
    learning_rate=0.05,
    weight_decay=0.1,
    warmup=1 / 3,
    label_smoothing=0.1,
)


class SmallTorch(torch.nn.Module):
    """`Small` in torch."""

    def __init__(self, batch_norm: bool = True):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 6, 3, 2, 1, bias=False)
        self.bn = torch.nn.BatchNorm2d(6) if batch_norm else torch.nn.Identity()
        self.fc = torch.nn.Linear(6, CLASSES)

    def forward(self, x):
        return self.fc(torch.relu(self.bn(self.conv(x))).mean(dim=(2, 3)))


def pair(batch_norm: bool = True):
    """A module, its variables, and the torch model whose weights they are."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SmallTorch(batch_norm).train()
    module = Small(num_classes=CLASSES, batch_norm=batch_norm)
    target = checkpoints.abstract_variables(module)
    state = {name: tensor.detach().numpy().copy() for name, tensor in model.state_dict().items()}
    variables = checkpoints.to_variables(state, target)
    return module, jax.tree.map(jnp.array, variables), model


def batches():
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        images = rng.integers(0, 256, (BATCH, SIZE, SIZE, 3), dtype=np.uint8)
        yield images, rng.integers(0, CLASSES, BATCH).astype(np.int32)


def steps(module, variables, config, *, objects=None):
    """Metrics of all steps, and the states, before the first one on."""
    state = initial_state(jax.tree.map(jnp.copy, variables), config)
    metrics, states = [], [jax.device_get(state)]
    for images, labels in batches():
        state, found = train_step(
            state,
            images,
            labels,
            objects,
            module=module,
            preprocessing=PREPROCESSING,
            config=config,
        )
        metrics.append(jax.device_get(found))
        states.append(jax.device_get(copy.copy(state)))
    return metrics, jax.tree.map(np.copy, states)


def rate(step, peak=0.05, warm=2):
    """Linear warm-up and half a cosine, written out."""
    if step < warm:
        return peak * step / warm
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm) / (STEPS - warm)))


def test_learning_rate_warms_up_and_follows_a_cosine():
    schedule = learning_rate(CONFIG)
    expected = [rate(step) for step in range(STEPS)]
    np.testing.assert_allclose([schedule(s) for s in range(STEPS)], expected, atol=1e-8)
    at_once = learning_rate(dataclasses.replace(CONFIG, warmup=0.0))
    np.testing.assert_allclose(at_once(0), 0.05)


def torch_steps(model, optimizer):
    """Losses of the same steps in torch."""
    mean = torch.tensor(PREPROCESSING.mean).reshape(3, 1, 1)
    std = torch.tensor(PREPROCESSING.std).reshape(3, 1, 1)
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = optimizer(groups)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step) / 0.05)
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    losses = []
    for images, labels in batches():
        x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        loss = criterion(model((x - mean) / std), torch.from_numpy(labels).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        ("sgd", lambda groups: torch.optim.SGD(groups, lr=0.05, momentum=0.9)),
        ("adamw", lambda groups: torch.optim.AdamW(groups, lr=0.05)),
    ],
    ids=["sgd", "adamw"],
)
def test_losses_weights_and_statistics_are_torchs(name, optimizer):
    module, variables, model = pair()
    metrics, states = steps(module, variables, dataclasses.replace(CONFIG, optimizer=name))
    expected = torch_steps(model, optimizer)
    np.testing.assert_allclose([m["loss"] for m in metrics], expected, rtol=2e-5)
    np.testing.assert_allclose(
        states[-1].params["fc"]["kernel"], model.fc.weight.detach().numpy().T, atol=2e-5
    )
    # torch's momentum 0.1 is 0.9 here, and its running variance is of n / (n - 1).
    found = states[-1].batch_stats["bn"]
    np.testing.assert_allclose(found["mean"], model.bn.running_mean.numpy(), atol=1e-5)
    count, first = BATCH * (SIZE // 2) ** 2, 0.9**STEPS
    torchs = first + (found["var"] - first) * count / (count - 1)
    np.testing.assert_allclose(torchs, model.bn.running_var.numpy(), rtol=1e-5)


def test_metrics_are_of_the_batch_before_the_step():
    module, variables, _ = pair()
    metrics, _ = steps(module, variables, CONFIG)
    images, labels = next(batches())
    x = PREPROCESSING.normalise(images.astype(np.float32) / 255)
    logits, _ = module.clone(train=True).apply(variables, Masked(x), mutable=["batch_stats"])
    assert metrics[0]["accuracy"] == np.mean(np.argmax(logits, axis=1) == labels)
    np.testing.assert_allclose([m["learning_rate"] for m in metrics], list(map(rate, range(STEPS))))


def test_micro_batches_add_up_to_the_batch_and_averages_are_as_written_out():
    module, variables, _ = pair(batch_norm=False)
    config = dataclasses.replace(CONFIG, ema=0.3)
    whole, states = steps(module, variables, config)
    parts, other = steps(module, variables, dataclasses.replace(config, accumulate=4))
    for name in ("loss", "accuracy", "gradient_norm"):
        np.testing.assert_allclose(
            [m[name] for m in parts], [m[name] for m in whole], rtol=1e-5, err_msg=name
        )
    chex.assert_trees_all_close(other[-1].params, states[-1].params, atol=1e-6)

    average = states[0].params["fc"]["kernel"].astype(np.float64)
    for step, state in enumerate(states[1:]):
        decay = min(0.3, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * state.params["fc"]["kernel"]
    np.testing.assert_allclose(states[-1].ema["params"]["fc"]["kernel"], average, atol=1e-6)
    assert states[-1].trained is states[-1].ema
    assert states[-1].step == STEPS


def test_bfloat16_computes_near_float32_on_float32_weights():
    module, variables, _ = pair()
    exact, _ = steps(module, variables, CONFIG)
    config = dataclasses.replace(CONFIG, dtype="bfloat16")
    metrics, states = steps(module, variables, config)
    kinds = {leaf.dtype for leaf in jax.tree.leaves((states[-1].params, states[-1].batch_stats))}
    assert kinds == {np.dtype(np.float32)}
    np.testing.assert_allclose([m["loss"] for m in metrics], [m["loss"] for m in exact], rtol=2e-2)
    assert metrics[0]["loss"] != exact[0]["loss"]


def test_batch_norm_in_training_is_over_visible_positions_of_all_images():
    rng = np.random.default_rng(0)
    x = rng.normal(2.0, 3.0, (4, 5, 6, 2)).astype(np.float32)
    mask = rng.random((4, 5, 6)) < 0.4
    mask[2] = False
    norm = BatchNorm(use_running_average=False)
    variables = {
        "params": {"scale": jnp.array([2.0, 0.5]), "bias": jnp.array([1.0, -1.0])},
        "batch_stats": {"mean": jnp.array([0.5, 0.0]), "var": jnp.array([1.0, 4.0])},
    }
    inputs = Masked(jnp.where(mask[..., None], x, 0), mask)
    y, updates = norm.apply(variables, inputs, mutable=["batch_stats"])
    visible = x[mask]  # [visible positions, channels]
    mean, variance = visible.mean(axis=0), visible.var(axis=0)
    expected = (x - mean) / np.sqrt(variance + 1e-5) * [2.0, 0.5] + [1.0, -1.0]
    np.testing.assert_allclose(y.x, np.where(mask[..., None], expected, 0), atol=1e-5)
    np.testing.assert_array_equal(y.mask, mask)
    running = updates["batch_stats"]
    np.testing.assert_allclose(running["mean"], 0.9 * np.array([0.5, 0.0]) + 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(
        running["var"], 0.9 * np.array([1.0, 4.0]) + 0.1 * variance, rtol=1e-5
    )


def test_training_under_layer_masking_never_reads_what_is_hidden():
    module, variables, _ = pair()
    config = dataclasses.replace(CONFIG, augmentations=("objects:layer",))
    objects = np.random.default_rng(1).random((BATCH, SIZE, SIZE)) < 0.5
    where = np.roll(objects, 1, axis=0)
    images, labels = next(batches())

    def step(images):
        state = initial_state(jax.tree.map(jnp.copy, variables), config)
        options = {"module": module, "preprocessing": PREPROCESSING, "config": config}
        return train_step(state, images, labels, objects, **options)

    first = step(images)
    hidden_changed = step(np.where(where[..., None], 255 - images, images))
    chex.assert_trees_all_equal(first, hidden_changed)
    visible_changed = step(np.where(where[..., None], images, 255 - images))
    assert first[1]["loss"] != visible_changed[1]["loss"]


@pytest.mark.parametrize("name", ["resnet18", "convnext_tiny", "vit_b_32"])
def test_weights_decay_in_kernels_alone(name):
    params = checkpoints.abstract_variables(registry.network(name).build())["params"]
    for path, chosen in jax.tree_util.tree_leaves_with_path(decayed(params)):
        assert chosen == path[-1].key.endswith("kernel"), path


def test_which_weights_of_functions_decay():
    matrix, vector = np.zeros((2, 2)), np.zeros(2)
    found = decayed(
        {
            "sequential/conv2d/kernel": matrix,
            "sequential/conv2d/bias": vector,
            "blocks.0.attn.in_proj_weight": matrix,
            "blocks.0.attn.in_proj_bias": vector,
            "0": matrix,
            "1": vector,
            "norm.weight": vector,
        }
    )
    assert {name for name, chosen in found.items() if chosen} == {
        *("sequential/conv2d/kernel", "blocks.0.attn.in_proj_weight", "0")
    }


QUICK = ("alexnet", "squeezenet1_1", "mobilenet_v3_small", "vit_b_32")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in (*SMALLEST, "vit_b_32")
    ],
)
def test_networks_of_all_families_train_with_parts_removed(name):
    facts = registry.network(name)
    fill = "token_dropping" if facts.where == "tokens" else "layer"
    config = dataclasses.replace(CONFIG, ema=0.9, augmentations=(f"patches:{fill}",))
    module = build(facts, facts.preprocessing, num_classes=5)

    def step(images, labels):
        state = initial_state(initial_variables(module, facts.preprocessing, 0), config)
        options = {"module": module, "preprocessing": facts.preprocessing, "config": config}
        return state, *train_step(state, images, labels, **options)

    size = facts.preprocessing.crop
    images = jax.ShapeDtypeStruct((BATCH, size, size, 3), np.uint8)
    labels = jax.ShapeDtypeStruct((BATCH,), np.int32)
    before, after, metrics = jax.eval_shape(step, images, labels)  # traced, not compiled
    chex.assert_trees_all_equal_shapes_and_dtypes(before, after)
    assert metrics["loss"].shape == ()


def test_a_state_whose_types_drift_is_refused_while_it_is_traced(monkeypatch):
    module, variables, _ = pair()

    def drifts(params, update):
        return jax.tree.map(lambda a, b: (a + b).astype(jnp.bfloat16), params, update)

    monkeypatch.setattr("lmjax.training.step.optax.apply_updates", drifts)
    config = dataclasses.replace(CONFIG, seed=77)  # compiled by no other test
    with pytest.raises(AssertionError, match="bfloat16"):
        steps(module, variables, config)
