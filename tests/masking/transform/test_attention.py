"""Attention between positions: hidden ones are not attended to, as if they were not there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from lmjax.masking import Masked, layer_mask
from lmjax.models.networks.vit import VisionTransformer
from tests.support.compilations import quick_jit
from tests.support.masked_functions import (
    by_reference,
    check_gradients,
    distance,
    double_precision,
    run_masked,
)

PATCH, GRID, WIDTH, HEADS, WINDOW = 4, 8, 8, 2, 4
SIZE = PATCH * GRID


@pytest.fixture(autouse=True, scope="module")
def _double_precision():
    with double_precision():
        yield


def patch_masks(seed=0):
    """Whole patches: half, box, noise, one, some, everything (the sixth), nothing, more noise."""
    rng = np.random.default_rng(seed)
    kept = rng.random((9, GRID, GRID)) < np.linspace(0.1, 0.9, 9)[:, None, None]
    kept[0], kept[3], kept[5], kept[6] = np.arange(GRID) < 4, False, True, False
    kept[3, 2, 7] = True
    return kept


KEPT = patch_masks()
MASKS = KEPT.repeat(PATCH, 1).repeat(PATCH, 2)
IMAGES = np.random.default_rng(1).normal(size=(*MASKS.shape, 3))
N = len(MASKS)


def weights(seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.normal(size=shape) / np.sqrt(shape[-2])  # noqa: E731
    return {
        "patch": rng.normal(size=(PATCH, PATCH, 3, WIDTH)) / np.sqrt(3 * PATCH**2),
        "place": rng.normal(size=(1, GRID, GRID, WIDTH)),
        **{name: draw(WIDTH, WIDTH) for name in ("q", "k", "v", "o", "mlp")},
        "head": draw(WIDTH, 5),
    }


P = weights()


def norm(x):
    mean = x.mean(-1, keepdims=True)
    return (x - mean) / (((x - mean) ** 2).mean(-1, keepdims=True) + 1e-6) ** 0.5


def embed(p, x):
    y = jax.lax.conv_general_dilated(
        x, p["patch"], (PATCH, PATCH), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return y + p["place"]


def softmax(scores):
    shown = np.exp(scores - scores.max(-1, keepdims=True))
    return shown / shown.sum(-1, keepdims=True)


def reference_attention(p, y, allowed=None):
    """Attention among tokens `[T, C]` that are there."""
    if not len(y):
        return y
    q, k, v = (np.reshape(norm(y) @ p[n], (len(y), HEADS, -1)) for n in "qkv")
    scores = np.einsum("qhc,khc->hqk", q, k) / np.sqrt(q.shape[-1])
    if allowed is not None:
        scores = np.where(allowed, scores, -np.inf)
    out = np.einsum("hqk,khc->qhc", softmax(scores), v)
    return y + out.reshape(len(y), -1) @ p["o"]


def reference_tokens(p, image, mask):
    patches = image.reshape(GRID, PATCH, GRID, PATCH, 3)
    y = np.einsum("apbqc,pqcd->abd", patches, p["patch"]) + p["place"][0]
    return y[mask[::PATCH, ::PATCH]]


def reference_end(p, y):
    y = y + np.maximum(norm(y) @ p["mlp"], 0)
    return (norm(y).mean(0) if len(y) else np.zeros(WIDTH)) @ p["head"]


def transformer(attend):
    """Tokens in one row, attention, a dense layer, the mean of all tokens."""

    def network(p, x):
        y = embed(p, x).reshape(N, GRID * GRID, WIDTH)
        y = y + attend(p, norm(y))
        y = y + jax.nn.relu(norm(y) @ p["mlp"])
        return norm(y).mean(1) @ p["head"]

    return network


def heads(p, y):
    return ((y @ p[n]).reshape(N, -1, HEADS, WIDTH // HEADS) for n in "qkv")


def einsums(p, y):
    q, k, v = heads(p, y)
    shares = jax.nn.softmax(jnp.einsum("nqhc,nkhc->nhqk", q, k) / np.sqrt(WIDTH // HEADS))
    return jnp.einsum("nhqk,nkhc->nqhc", shares, v).reshape(N, -1, WIDTH) @ p["o"]


def heads_first(p, y):
    q, k, v = (jnp.swapaxes(x, 1, 2) for x in heads(p, y))
    scores = q @ jnp.swapaxes(k, 2, 3) * (WIDTH // HEADS) ** -0.5
    return jnp.swapaxes(jax.nn.softmax(scores, -1) @ v, 1, 2).reshape(N, -1, WIDTH) @ p["o"]


def by_hand_softmax(p, y):
    q, k, v = heads(p, y)
    shares = jnp.exp(jnp.einsum("nqhc,nkhc->nhqk", q, k) / np.sqrt(WIDTH // HEADS))
    shares = shares / shares.sum(-1, keepdims=True)
    return jnp.einsum("nhqk,nkhc->nqhc", shares, v).reshape(N, -1, WIDTH) @ p["o"]


def of_jax(p, y):
    return jax.nn.dot_product_attention(*heads(p, y)).reshape(N, -1, WIDTH) @ p["o"]


def of_flax(p, y):
    q, k, v = heads(p, y)
    return nn.dot_product_attention(q, k, v).reshape(N, -1, WIDTH) @ p["o"]


def mapped(p, y):
    """One image at a time, heads side by side."""

    def one(y):
        q, k, v = ((y @ p[n]).reshape(-1, HEADS, WIDTH // HEADS) for n in "qkv")
        shares = jax.nn.softmax(jnp.einsum("qhc,khc->hqk", q, k) / np.sqrt(WIDTH // HEADS))
        return jnp.einsum("hqk,khc->qhc", shares, v).reshape(-1, WIDTH) @ p["o"]

    return jax.vmap(one)(y)


@pytest.mark.parametrize(
    "attend",
    [einsums, heads_first, by_hand_softmax, of_jax, of_flax, mapped],
    ids=lambda f: f.__name__,
)
def test_equals_attention_among_kept_tokens(attend):
    def reference(p, image, mask):
        return reference_end(p, reference_attention(p, reference_tokens(p, image, mask)))

    tolerance = 1e-5 if attend is of_jax else 1e-11  # which takes softmax in float32
    actual = run_masked(transformer(attend), P, IMAGES, MASKS, tolerance=tolerance)
    assert distance(actual, by_reference(reference, P, IMAGES, MASKS)) < tolerance


def windows(y, shift):
    """Swin: `[N * windows, tokens, C]` after a roll."""
    y = jnp.roll(y, (-shift, -shift), (1, 2))
    count = GRID // WINDOW
    y = y.reshape(N, count, WINDOW, count, WINDOW, WIDTH).transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(N, count * count, WINDOW * WINDOW, WIDTH)


def back(y, shift):
    count = GRID // WINDOW
    y = y.reshape(N, count, count, WINDOW, WINDOW, WIDTH).transpose(0, 1, 3, 2, 4, 5)
    return jnp.roll(y.reshape(N, GRID, GRID, WIDTH), (shift, shift), (1, 2))


def regions(shift):
    """Which tokens of a shifted window were neighbours before: `[windows, tokens, tokens]`."""
    number = np.zeros((GRID, GRID), int)
    cuts = slice(0, -WINDOW), slice(-WINDOW, -shift), slice(-shift, None)
    for i, rows in enumerate(cuts):
        for j, columns in enumerate(cuts):
            number[rows, columns] = 3 * i + j
    count = GRID // WINDOW
    number = number.reshape(count, WINDOW, count, WINDOW).transpose(0, 2, 1, 3)
    number = number.reshape(count * count, -1)
    return number[:, :, None] == number[:, None]


def swin(shift, additive):
    def network(p, x):
        y = embed(p, x)
        z = windows(norm(y), shift)
        q, k, v = ((z @ p[n]).reshape(*z.shape[:3], HEADS, -1) for n in "qkv")
        scores = jnp.einsum("nwqhc,nwkhc->nwhqk", q, k) / np.sqrt(WIDTH // HEADS)
        if shift:
            allowed = regions(shift)[None, :, None]
            if additive:
                scores = scores + np.where(allowed, 0.0, -1e9)
            else:
                scores = jnp.where(allowed, scores, -jnp.inf)
        z = jnp.einsum("nwhqk,nwkhc->nwqhc", jax.nn.softmax(scores), v)
        y = y + back(z.reshape(N, -1, WIDTH), shift) @ p["o"]
        y = y + jax.nn.relu(norm(y) @ p["mlp"])
        return norm(y).mean((1, 2)) @ p["head"]

    return network


def same_window(shift):
    """Which tokens `[T, T]` of the image attend to each other."""
    place = (np.arange(GRID) - shift) % GRID // WINDOW
    window = (place[:, None] * GRID + place[None]).ravel()
    side = np.arange(GRID) < shift  # beyond the image's edge after the roll
    wrapped = (side[:, None] * 2 + side[None]).ravel()
    return (window[:, None] == window) & (wrapped[:, None] == wrapped)


@pytest.mark.parametrize(("shift", "additive"), [(0, True), (2, True), (2, False)])
def test_windows_that_shift(shift, additive):
    def reference(p, image, mask):
        kept = mask[::PATCH, ::PATCH].ravel()
        allowed = same_window(shift)[np.ix_(kept, kept)]
        y = reference_tokens(p, image, mask)
        return reference_end(p, reference_attention(p, y, allowed))

    actual = run_masked(swin(shift, additive), P, IMAGES, MASKS)
    assert distance(actual, by_reference(reference, P, IMAGES, MASKS)) < 1e-11


def attention_pool(p, x):
    """CLIP's: the mean token asks all tokens, itself among them."""
    y = embed(p, x).reshape(N, -1, WIDTH)
    y = jnp.concatenate([y.mean(1, keepdims=True), y], axis=1)
    scores = jnp.einsum("nc,nkc->nk", y[:, 0] @ p["q"], y @ p["k"]) / np.sqrt(WIDTH)
    return jnp.einsum("nk,nkc->nc", jax.nn.softmax(scores), y @ p["v"]) @ p["head"]


def test_an_attention_pool():
    def reference(p, image, mask):
        y = reference_tokens(p, image, mask)
        y = np.concatenate([y.mean(0, keepdims=True) if len(y) else np.zeros((1, WIDTH)), y])
        return softmax(y[0] @ p["q"] @ (y @ p["k"]).T / np.sqrt(WIDTH)) @ y @ p["v"] @ p["head"]

    actual = run_masked(attention_pool, P, IMAGES, MASKS)
    assert distance(actual, by_reference(reference, P, IMAGES, MASKS)) < 1e-11


@pytest.mark.parametrize(
    "network", [transformer(of_jax), swin(2, True), attention_pool], ids=["vit", "swin", "pool"]
)
def test_gradients(network):
    check_gradients(network, P, IMAGES, MASKS)


def test_lmjax_own_transformer_equals_token_dropping():
    size = 64
    module = VisionTransformer(
        patch_size=16, layers=2, heads=2, width=32, image_size=size, num_classes=9
    )
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(module.init, jax.random.key(0), Masked(jnp.zeros((1, size, size, 3))))
    variables = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(scale=0.3, size=leaf.shape), leaf.dtype), shapes
    )
    kept = rng.random((6, 4, 4)) < np.array([0, 0.1, 0.3, 0.5, 0.8, 1])[:, None, None]
    masks = kept.repeat(16, 1).repeat(16, 2)
    images = jnp.asarray(rng.normal(size=(*masks.shape, 3)), jnp.float32)
    expected = quick_jit(module.apply)(variables, Masked(images, jnp.asarray(masks)))
    masked = layer_mask(lambda v, x: module.apply(v, Masked(x)), padding="none")
    assert distance(quick_jit(masked)(variables, images, masks), expected) < 1e-5
