"""The identities of layer masking, on whole random networks."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmjax.masking import Masked
from lmjax.models import checkpoints
from lmjax.models.networks.resnet import BasicBlock, Bottleneck, ResNet
from lmjax.removals import LayerMasking, PartialConvolution
from tests.support import compilations
from tests.support import layer_masking_reference as reference
from tests.support.compilations import quick_jit

GROUPED = partial(Bottleneck, groups=2, width_per_group=32)
BLOCKS = {"basic": BasicBlock, "bottleneck": Bottleneck, "grouped": GROUPED}
SIZES = [(33, 41), (48, 32)]
fewer_examples = settings(deadline=None, max_examples=8, derandomize=True)


def network(kind, **options):
    return ResNet((1, 2), BLOCKS[kind], num_classes=5, width=8, **options)


def random_variables(module, seed=0, **options):
    """Weights and batch-norm statistics that tell mistakes apart; none is 0 or 1."""
    shapes = checkpoints.abstract_variables(module, **options)
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        name = path[-1].key
        if name == "var":
            return rng.uniform(0.5, 1.5, leaf.shape)
        if name == "kernel":
            return rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))
        return rng.normal(size=leaf.shape) * 0.3 + (name == "scale")

    values = jax.tree_util.tree_map_with_path(draw, shapes)
    return jax.tree.map(lambda value: jnp.asarray(value, jnp.float32), values)


def random_image(size, seed=0):
    return np.random.default_rng(seed).normal(size=(*size, 3)).astype(np.float32)


def random_masks(size, count, seed=0):
    """Blocks of 5 pixels; the first mask has one visible pixel, at the border."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((count, -(-size[0] // 5), -(-size[1] // 5))) < rng.random((count, 1, 1))
    masks = np.kron(coarse, np.ones((5, 5), bool))[:, : size[0], : size[1]]
    masks[0] = False
    masks[0, 0, size[1] // 2] = True
    return masks


def apply(module, variables, image, masks):
    images = jnp.broadcast_to(image, (len(masks), *image.shape[-3:]))
    return module.apply(variables, Masked(images, masks))


logits = quick_jit(apply, static_argnames="module")


@partial(quick_jit, static_argnames="module")
def plain_logits(module, variables, image):
    return module.apply(variables, Masked(image[None]))


MASKINGS = [
    LayerMasking(),
    LayerMasking(padding="none"),
    LayerMasking(depth=0),
    LayerMasking(depth=2),
    LayerMasking(depth=3),
    PartialConvolution(),
]
# Every pair of two of the three, each once.
CASES = [
    pytest.param(kind, masking, SIZES[(i + j) % 2], id=f"{kind}-{masking}")
    for i, kind in enumerate(BLOCKS)
    for j, masking in enumerate(MASKINGS)
]


@pytest.mark.parametrize(("kind", "masking", "size"), CASES)
def test_equals_the_plain_reference(kind, masking, size):
    module = network(kind, masking=masking)
    variables = random_variables(module)
    image, masks = random_image(size), random_masks(size, 3)
    state = checkpoints.to_state_dict(variables)
    expected = np.stack(
        [
            reference.resnet(
                state,
                image,
                mask,
                groups=2 if kind == "grouped" else 1,
                fill=masking.padding,
                depth=masking.depth,
            )
            for mask in masks
        ]
    )
    actual = np.asarray(logits(module, variables, image, masks))
    assert np.abs(actual - expected).max() <= 1e-4 * np.abs(expected).max()


@fewer_examples
@given(
    kind=st.sampled_from(list(BLOCKS)),
    stage_sizes=st.sampled_from([(1,), (2, 1)]),
    height=st.integers(17, 45),
    width=st.integers(17, 45),
    masking=st.one_of(
        st.builds(
            LayerMasking,
            padding=st.sampled_from(["neighbor", "none"]),
            depth=st.sampled_from([None, None, 0, 1]),
        ),
        st.builds(PartialConvolution),
    ),
    hidden=st.sampled_from([np.nan, np.inf, -np.inf, 1e30]),
    seed=st.integers(0, 1000),
)
def test_identities_on_random_networks(kind, stage_sizes, height, width, masking, hidden, seed):
    module = ResNet(stage_sizes, BLOCKS[kind], num_classes=5, width=4, masking=masking)
    variables, image = random_variables(module, seed), random_image((height, width), seed)
    masks = random_masks((height, width), 4, seed)
    masks[2], masks[3] = True, False
    batch = np.asarray(logits(module, variables, image, masks))
    tolerance = 1e-4 * np.abs(batch).max()

    # 3: what lies under the mask is never read, bit for bit
    poisoned = np.where(masks[..., None], image[None], np.float32(hidden))
    np.testing.assert_array_equal(logits(module, variables, poisoned, masks), batch)
    # 4: a loop over masks gives the same rows
    loop = [logits(module, variables, image, mask[None])[0] for mask in masks]
    np.testing.assert_allclose(batch, np.stack(loop), atol=tolerance)
    # 1: everything visible is the plain network (partial convolution counts outside as hidden)
    if isinstance(masking, LayerMasking):
        plain = plain_logits(module, variables, image)
        np.testing.assert_allclose(batch[2], plain[0], atol=tolerance)
    # 2: everything hidden gives the bias
    if masking.depth is None:
        np.testing.assert_array_equal(batch[3], variables["params"]["fc"]["bias"])
    # 6: the full recipe, position by position
    expected = reference.resnet(
        checkpoints.to_state_dict(variables),
        image,
        masks[1],
        groups=2 if kind == "grouped" else 1,
        fill=masking.padding,
        depth=masking.depth,
    )
    np.testing.assert_allclose(batch[1], expected, atol=tolerance)


@pytest.mark.parametrize("kind", BLOCKS)
def test_all_visible_is_the_plain_network(kind):
    module, size = network(kind), (40, 33)
    variables, image = random_variables(module), random_image(size)
    plain = plain_logits(module, variables, image)
    masked = logits(module, variables, image, np.ones((1, *size), bool))
    chex.assert_trees_all_close(masked, plain, atol=1e-5 * np.abs(plain).max())


@pytest.mark.parametrize("masking", [LayerMasking(), PartialConvolution()], ids=str)
@pytest.mark.parametrize("kind", BLOCKS)
def test_all_hidden_gives_the_bias(kind, masking):
    module, size = network(kind, masking=masking), (33, 32)
    variables, image = random_variables(module), np.full((*size, 3), np.nan, np.float32)
    actual = logits(module, variables, image, np.zeros((2, *size), bool))
    for row in np.asarray(actual):
        np.testing.assert_array_equal(row, variables["params"]["fc"]["bias"])


@pytest.mark.parametrize("kind", BLOCKS)
def test_batches_loops_and_vmap_agree(kind):
    module, size = network(kind), (33, 41)
    variables, image = random_variables(module), random_image(size)
    masks = jnp.asarray(random_masks(size, 6))
    batch = logits(module, variables, image, masks)
    loop = jnp.concatenate([logits(module, variables, image, mask[None]) for mask in masks])
    mapped = jax.vmap(lambda mask: logits(module, variables, image, mask[None])[0])(masks)
    tolerance = 1e-5 * np.abs(batch).max()
    chex.assert_trees_all_close(batch, loop, atol=tolerance)
    chex.assert_trees_all_close(batch, mapped, atol=tolerance)


@pytest.mark.parametrize("masking", [LayerMasking(), PartialConvolution()], ids=str)
@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_gradients_are_finite_and_zero_under_the_mask(kind, masking):
    module, size = network(kind, masking=masking), (33, 32)
    variables, masks = random_variables(module), random_masks(size, 3)
    masks[1] = False
    images = np.where(masks[..., None], random_image(size)[None], np.nan)

    def loss(params, images):
        return apply(module, {**variables, "params": params}, images, masks)[:, 1].sum()

    gradients = quick_jit(jax.grad(loss, argnums=(0, 1)))
    by_weight, by_image = gradients(variables["params"], jnp.asarray(images))
    chex.assert_tree_all_finite((by_weight, by_image))
    assert not np.asarray(by_image)[~masks].any()
    assert np.abs(by_image).max() > 0


def test_bfloat16_is_near_float32():
    size = (64, 48)
    image, masks = random_image(size), random_masks(size, 4)
    variables = random_variables(network("bottleneck"))
    exact = logits(network("bottleneck"), variables, image, masks)
    rough = logits(network("bottleneck", dtype=jnp.bfloat16), variables, image, masks)
    assert rough.dtype == jnp.float32
    error = np.abs(rough - exact).max() / np.abs(exact).max()
    assert 0 < error < 0.05


@pytest.mark.parametrize("channels", [1, 4])
def test_any_number_of_channels(channels):
    module, size = network("basic"), (32, 35)
    image = jnp.ones((1, *size, channels))
    variables = random_variables(module, in_channels=channels)
    assert variables["params"]["conv1"]["kernel"].shape == (7, 7, channels, 8)
    masks = jnp.asarray(random_masks(size, 2))
    assert logits(module, variables, image, masks).shape == (2, 5)


def test_calls_outside_jit_compile_once():
    module, size = ResNet((1,), BasicBlock, num_classes=5, width=8), (33, 32)
    variables, image = random_variables(module), jnp.asarray(random_image(size))[None]
    masks = jnp.asarray(random_masks(size, 1))
    others = ~masks
    module.apply(variables, Masked(image, masks))
    with compilations.counted() as compiled:
        module.apply(variables, Masked(image, others))
    assert len(compiled) == 0


def test_depth_beyond_the_network_is_refused():
    module = network("basic", masking=LayerMasking(depth=4))
    with pytest.raises(ValueError, match="depth is 4, but the network has 3 blocks"):
        checkpoints.abstract_variables(module)


def test_training_statistics_are_over_visible_positions():
    module, size = network("basic"), (33, 32)
    variables = random_variables(module)
    masks = random_masks(size, 4, seed=2)

    @quick_jit
    def updated(images):
        training = module.clone(train=True)
        _, updates = training.apply(variables, Masked(images, masks), mutable=["batch_stats"])
        return updates["batch_stats"]

    def statistics(hidden):
        return updated(np.where(masks[..., None], random_image(size)[None], np.float32(hidden)))

    found = statistics(np.nan)
    chex.assert_tree_all_finite(found)
    chex.assert_trees_all_equal(found, statistics(7.0))
