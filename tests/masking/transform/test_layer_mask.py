"""`lmjax.layer_mask` as a function transformation: jit, vmap, grad, export, dtypes, results."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import export
from jax.extend import core as jex

import lmjax
from lmjax.masking import LayerMaskError, layer_mask, register_rule
from lmjax.masking.transform.operation import RULES
from tests.support.compilations import quick_jit
from tests.support.masked_functions import (
    ALL,
    CHANNELS,
    CLASSES,
    NOTHING,
    conv,
    distance,
    double_precision,
    head,
    hidden_as,
    images_of,
    masks_of,
    stem,
    weights,
)

H, W = SIZE = (12, 14)
C = CHANNELS
MASKS = masks_of(SIZE)
N = len(MASKS)
IMAGES = jnp.asarray(images_of(MASKS), jnp.float32)
P = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), weights())


def network(p, x):
    y = nn.max_pool(stem(p, x), (3, 3), (2, 2), "SAME")
    return head(p, jax.nn.relu(conv(y, p["k2"]) + y) + p["b"])


def test_it_is_exported():
    assert lmjax.layer_mask is layer_mask
    assert issubclass(LayerMaskError, TypeError)


def little(p, x):
    """A network of few operations, for calls outside jit."""
    return head(p, stem(p, x))


def test_jit_changes_nothing():
    masked = layer_mask(little)
    assert distance(quick_jit(masked)(P, IMAGES, MASKS), masked(P, IMAGES, MASKS)) < 1e-6


def test_nothing_visible_gives_the_bias_and_everything_the_network():
    biased = lambda p, x: network(p, x) + p["d"][:1]  # noqa: E731
    logits = quick_jit(layer_mask(biased))(P, IMAGES, MASKS)
    assert distance(logits[ALL], biased(P, IMAGES)[ALL]) < 1e-6
    np.testing.assert_array_equal(logits[NOTHING], P["d"][0])


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32])
def test_masks_of_any_type(dtype):
    masked = quick_jit(layer_mask(network))
    np.testing.assert_array_equal(masked(P, IMAGES, MASKS.astype(dtype)), masked(P, IMAGES, MASKS))


def test_vmap_over_masks_a_loop_and_batches_give_the_same():
    masked = layer_mask(network)
    image = IMAGES[:1]
    together = quick_jit(masked)(P, jnp.repeat(image, N, axis=0), MASKS)
    mapped = quick_jit(jax.vmap(lambda m: masked(P, image, m[None])[0]))(jnp.asarray(MASKS))
    one = quick_jit(masked)
    looped = np.concatenate([one(P, image, mask[None]) for mask in MASKS])
    assert distance(mapped, together) < 1e-6
    assert distance(looped, together) < 1e-6


def test_one_image_where_its_batch_is_dropped():
    """`jnp.matmul` squeezes a batch of one."""

    def attending(p, x):
        y = x.reshape(len(x), -1, x.shape[-1])
        return {"logits": (y @ jnp.swapaxes(y, 1, 2)).mean((1, 2))}

    masked = quick_jit(layer_mask(attending))
    alone = masked(P, IMAGES[:1], MASKS[:1])["logits"]
    np.testing.assert_allclose(alone, masked(P, IMAGES, MASKS)["logits"][:1], rtol=1e-6)


def test_vmap_over_weights():
    """An ensemble: weights are arguments like others."""
    masked = layer_mask(network)
    both = jax.tree.map(lambda x: jnp.stack([x, x * 0.9]), P)
    logits = quick_jit(jax.vmap(masked, (0, None, None)))(both, IMAGES, MASKS)
    assert distance(logits[0], quick_jit(masked)(P, IMAGES, MASKS)) < 1e-6


def test_vmap_over_a_function_with_constants_of_its_own():
    """Constants are computed while it is traced, by functions with derivatives of their own too."""

    def gated(p, x):
        return network(p, x) * jax.nn.relu(np.linspace(-1, 1, CLASSES, dtype=np.float32)[None])

    masked = layer_mask(gated)
    mapped = quick_jit(jax.vmap(lambda m: masked(P, IMAGES[:1], m[None])[0]))(jnp.asarray(MASKS))
    expected = quick_jit(masked)(P, jnp.repeat(IMAGES[:1], N, axis=0), MASKS)
    assert distance(mapped, expected) < 1e-6


def test_gradients_are_those_of_finite_differences():
    """Without neighbor padding, whose values are constants for gradients."""
    masked = layer_mask(network, padding="none")
    with double_precision():
        p, images = weights(), images_of(MASKS)
        step = jax.tree.map(lambda x: np.random.default_rng(0).normal(size=x.shape), p)
        loss = lambda p: (masked(p, images, MASKS) ** 2).sum()  # noqa: E731
        slope = quick_jit(jax.grad(loss))(p)
        along = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, slope, step)))
        ahead, back = (
            quick_jit(loss)(jax.tree.map(lambda x, s, e=e: x + e * s, p, step))
            for e in (1e-6, -1e-6)
        )
        np.testing.assert_allclose(along, (ahead - back) / 2e-6, rtol=1e-5)


def test_products_with_second_derivatives():
    masked = layer_mask(network)
    images = hidden_as(np.nan, IMAGES, MASKS).astype(np.float32)
    slope = jax.grad(lambda p: (masked(p, images, MASKS) ** 2).sum())
    _, product = quick_jit(lambda p: jax.jvp(slope, (p,), (p,)))(P)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(product))


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_export(platform):
    exported = export.export(jax.jit(layer_mask(network)), platforms=[platform])(
        P, IMAGES, jnp.asarray(MASKS)
    )
    assert exported.platforms == (platform,)


def test_weights_are_arguments_and_no_constants():
    large = {**P, "k2": jnp.zeros((3, 3, C, C)), "d": jnp.ones((C, 4096))}
    text = jax.jit(layer_mask(network)).lower(large, IMAGES, MASKS).as_text()
    assert "tensor<8x4096xf32>" in text
    constants = [line for line in text.splitlines() if "stablehlo.constant" in line]
    assert all("8x4096" not in line for line in constants)


def test_a_function_is_traced_once_for_each_shape():
    calls = []

    def counted(p, x):
        calls.append(x.shape)
        return little(p, x)

    masked = layer_mask(counted)
    for _ in range(3):
        masked(P, IMAGES, MASKS)
        jax.eval_shape(lambda p: masked(p, IMAGES, MASKS), P)
    assert len(calls) == 1
    masked(P, IMAGES[:2], MASKS[:2])
    masked(P, IMAGES[:2], MASKS[:2])
    assert len(calls) == 2


def test_constants_of_a_closed_over_model():
    closed = layer_mask(lambda _, x: network(P, x))
    expected = quick_jit(layer_mask(network))(P, IMAGES, MASKS)
    assert distance(quick_jit(closed)((), IMAGES, MASKS), expected) < 1e-6
    inside = quick_jit(lambda p: layer_mask(lambda _, x: network(p, x))((), IMAGES, MASKS))
    assert distance(inside(P), expected) < 1e-6


def test_one_object_inside_and_outside_of_traces_that_close_over_weights():
    masked = None

    def outer(p):
        return masked((), IMAGES, MASKS)

    current = {}
    masked = layer_mask(lambda _, x: network(current["p"], x))
    for factor in (1.0, 0.5):
        current["p"] = jax.tree.map(lambda x, f=factor: x * f, P)
        with jax.checking_leaks():
            jax.eval_shape(outer, P)


def test_several_results_with_and_without_positions():
    def several(p, x):
        y = stem(p, x)
        pooled = nn.avg_pool(y, (2, 2), (2, 2))
        return {"map": conv(y, p["k2"]), "features": (pooled, pooled.mean((1, 2))), "bias": p["b"]}

    results = quick_jit(layer_mask(several))(P, hidden_as(np.nan, IMAGES, MASKS), MASKS)
    plain = several(P, IMAGES)
    assert jax.tree.structure(results) == jax.tree.structure(plain)
    for y, own in zip(jax.tree.leaves(results), jax.tree.leaves(plain)):
        assert y.shape == own.shape
        assert np.isfinite(y).all()
    assert distance(results["map"][ALL], plain["map"][ALL]) < 1e-5
    assert not np.asarray(results["map"][NOTHING]).any()
    far = np.abs(np.arange(H)[:, None] - (H - 3)) + np.abs(np.arange(W)[None] - 2) > 6
    assert not np.asarray(results["map"][3])[far].any()


def test_a_segmentation_map_channels_first():
    def segment(p, x):
        y = jax.nn.log_softmax(conv(stem(p, x), p["one"]), axis=3)
        return jnp.transpose(y, (0, 3, 1, 2))

    y = quick_jit(layer_mask(segment))(P, IMAGES, MASKS)
    assert y.shape == (N, C, H, W)
    assert distance(y[ALL], segment(P, IMAGES)[ALL]) < 1e-5


def test_images_with_channels_first():
    def first(p, x):
        return network(p, jnp.transpose(x, (0, 2, 3, 1)))

    images = jnp.transpose(IMAGES, (0, 3, 1, 2))
    actual = quick_jit(layer_mask(first, layout="NCHW"))(P, images, MASKS)
    assert distance(actual, quick_jit(layer_mask(network))(P, IMAGES, MASKS)) < 1e-6
    with pytest.raises(ValueError, match="mask"):
        layer_mask(first, layout="NCHW")(P, images, MASKS[:, :3])


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_narrow_types(dtype):
    p = jax.tree.map(lambda x: x.astype(dtype), P)
    images = hidden_as(np.nan, IMAGES, MASKS).astype(dtype)
    actual = quick_jit(layer_mask(network))(p, images, MASKS)
    assert actual.dtype == dtype
    expected = quick_jit(layer_mask(network))(P, IMAGES, MASKS)
    assert distance(actual.astype(jnp.float32), expected) < 0.05


def test_mixed_types():
    def mixed(p, x):
        y = nn.Conv(C, (3, 3), dtype=jnp.bfloat16).apply(
            {"params": {"kernel": p["k"], "bias": p["b"].ravel()}}, x
        )
        return y.astype(jnp.float32).mean((1, 2)) @ p["d"]

    logits = quick_jit(layer_mask(mixed))(P, hidden_as(np.nan, IMAGES, MASKS), MASKS)
    assert logits.dtype == jnp.float32
    assert np.isfinite(logits).all()


def test_without_rank_promotion_or_implicit_types():
    with jax.numpy_dtype_promotion("strict"):
        y = jax.eval_shape(layer_mask(network), P, IMAGES, jnp.asarray(MASKS))
    assert y.dtype == jnp.float32


# Primitives of others.

halves = jex.Primitive("halves")
halves.def_impl(lambda x: x / 2)
halves.def_abstract_eval(lambda x: x)
jax.interpreters.mlir.register_lowering(
    halves, jax.interpreters.mlir.lower_fun(lambda x: x / 2, multiple_results=False)
)


@pytest.fixture
def _forgotten():
    before = dict(RULES)
    yield
    RULES.clear()
    RULES.update(before)


@pytest.mark.usefixtures("_forgotten")
def test_a_rule_for_a_primitive_of_ones_own():
    def function(p, x):
        return head(p, halves.bind(stem(p, x)))

    with pytest.raises(LayerMaskError, match=r"'halves'.*register_rule"):
        layer_mask(function)(P, IMAGES, MASKS)
    register_rule("halves", "elementwise")
    actual = quick_jit(layer_mask(function))(P, IMAGES, MASKS)
    expected = quick_jit(layer_mask(lambda p, x: head(p, stem(p, x) / 2)))(P, IMAGES, MASKS)
    assert distance(actual, expected) < 1e-6


@pytest.mark.usefixtures("_forgotten")
def test_a_rule_by_the_rules_of_others():
    """One operation stands for others: they are masked in its place, their constants too."""
    half = jnp.full((1, 1, 1, 1), 0.5)
    register_rule("halves", lambda operation, x: operation.instead(lambda y: y * half, x))
    actual = quick_jit(layer_mask(lambda p, x: head(p, halves.bind(stem(p, x)))))(P, IMAGES, MASKS)
    expected = quick_jit(layer_mask(lambda p, x: head(p, stem(p, x) / 2)))(P, IMAGES, MASKS)
    assert distance(actual, expected) < 1e-6


@pytest.mark.parametrize("bad", [3, "pointwise"])
def test_a_rule_is_a_function_or_elementwise(bad):
    with pytest.raises(ValueError, match="rule must be a function or 'elementwise'"):
        register_rule("halves", bad)


def test_what_was_traced_does_not_outlive_the_precision_and_types_it_was_traced_for():
    def network(params, x):
        return jnp.matmul(x.mean(axis=(1, 2)), params["head"]) * params["scale"]

    head = jnp.ones((3, 2), jnp.bfloat16)
    arguments = jnp.ones((1, *SIZE, 3), jnp.bfloat16), jnp.ones((1, *SIZE), bool)
    masked = layer_mask(network)
    for scale in (2.0, jnp.float32(2), 2.0):
        params = {"head": head, "scale": scale}
        assert masked(params, *arguments).dtype == network(params, arguments[0]).dtype
        for precision, times in (("highest", 2), (None, 0)):
            with jax.default_matmul_precision(precision):
                assert str(jax.make_jaxpr(masked)(params, *arguments)).count("HIGHEST") == times
