"""What networks are made of, each in a small network: identities, gradients, the full recipe."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from lmjax.masking import Masked, layers
from lmjax.masking.transform import layer_mask
from tests.support.compilations import quick_jit
from tests.support.masked_functions import (
    CHANNELS,
    SIZE,
    check_gradients,
    conv,
    distance,
    double_precision,
    head,
    images_of,
    masks_of,
    run_masked,
    stem,
    weights,
)

H, W = SIZE
C = CHANNELS
MASKS = masks_of(SIZE)
N = len(MASKS)
IMAGES = images_of(MASKS)
P = weights()


@pytest.fixture(autouse=True, scope="module")
def _double_precision():
    with double_precision():
        yield


def around(x, low, high, value=0.0):
    pads = ((0, 0), (low, high), (low, high), (0, 0))
    return jnp.pad(x, pads, constant_values=value)


# Norms.


def normalised(y, axes, epsilon=1e-5):
    centred = y - y.mean(axes, keepdims=True)
    return centred * lax.rsqrt((centred**2).mean(axes, keepdims=True) + epsilon)


def group_norm(y, groups=2):
    parts = y.reshape(*y.shape[:3], groups, -1)
    return normalised(parts, (1, 2, 4)).reshape(y.shape)


def fast_variance(y):
    """E[x^2] - E[x]^2."""
    mean = y.mean((1, 2), keepdims=True)
    return (y - mean) / jnp.sqrt((y**2).mean((1, 2), keepdims=True) - mean**2 + 1e-3)


def response_norm(y):
    """Global response norm of ConvNeXt V2."""
    size = jnp.sqrt((y**2).sum((1, 2), keepdims=True))
    return y + y * size / (size.mean(-1, keepdims=True) + 1e-6)


def local_response(y):
    squares = lax.reduce_window(y**2, 0.0, lax.add, (1, 1, 1, 5), (1, 1, 1, 1), "SAME")
    return y / (2 + squares) ** 0.75


def log_and_roots(p, y):
    """Maps whose slope at 0, which stands in hidden positions, is infinite."""
    y = y + 0.1
    return jnp.log(y) + jnp.sqrt(y) + y**0.3 + lax.rsqrt(y)


# Gates.


def excitation(p, y):
    gate = jax.nn.relu(y.mean((1, 2)) @ p["g"]) @ p["g2"]
    return y * jax.nn.sigmoid(gate)[:, None, None]


def spatial_gate(p, y):
    """CBAM."""
    maps = jnp.concatenate([y.mean(3, keepdims=True), y.max(3, keepdims=True)], 3)
    return y * jax.nn.sigmoid(conv(maps, p["k2"][:, :, :2, :1]))


def selective(p, y):
    """SKNet: branches weighed against each other, channel by channel."""
    branches = jnp.stack([conv(y, p["k2"]), conv(y, p["k2"], rhs_dilation=(2, 2))], axis=1)
    squeezed = branches.sum(1).mean((1, 2)) @ p["g"]
    shares = jax.nn.softmax(jnp.stack([squeezed, squeezed @ p["g2"]], axis=1), axis=1)
    return (branches * shares[:, :, None, None]).sum(1)


# Moves.


def shuffled(y, groups=2):
    n, h, w, c = y.shape
    return jnp.swapaxes(y.reshape(n, h, w, groups, c // groups), 3, 4).reshape(y.shape)


def shuffled_unit(p, y):
    """ShuffleNet: half of the channels pass."""
    left, right = jnp.split(y, 2, axis=3)
    kernel = jnp.concatenate([p["one"]], 3)[:, :, : C // 2, : C // 2]
    return shuffled(jnp.concatenate([left, jax.nn.relu(conv(right, kernel))], axis=3))


def space_to_depth(y):
    y = y.reshape(N, H // 2, 2, W // 2, 2, C).transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(N, H // 2, W // 2, 4 * C)[..., :C]


def resized(y, size, method):
    return jax.image.resize(y, (N, *size, C), method)


def upsampled(y):
    return jnp.repeat(jnp.repeat(y, 2, axis=1), 2, axis=2)


def broadcast_upsampled(y):
    y = jnp.broadcast_to(y[:, :, None, :, None], (N, H, 2, W, 2, C))
    return y.reshape(N, 2 * H, 2 * W, C)


def adaptive(y, size):
    """torch's cells, as lmjax has them."""
    return layers.adaptive_average_pool(Masked(y), size)


def pyramid(p, y):
    """A U-Net's shape: down, up, and side by side."""
    down = jax.nn.relu(conv(nn.max_pool(y, (2, 2), (2, 2)), p["k2"]))
    return jax.nn.relu(
        conv(jnp.concatenate([y, upsampled(down)], 3), jnp.concatenate([p["k2"]] * 2, 2))
    )


# Calls and loops.


@jax.custom_vjp
def soft(x):
    return jnp.tanh(x) * x


soft.defvjp(lambda x: (soft(x), x), lambda x, dot: (dot * jnp.tanh(x),))


@jax.custom_jvp
def hard(x, limit):
    return jnp.clip(x, -limit, limit)


@hard.defjvp
def _(primals, tangents):
    x, limit = primals
    return hard(x, limit), jnp.where(jnp.abs(x) < limit, tangents[0], 0.1 * tangents[0])


def block(y, kernel):
    return jax.nn.relu(conv(y, kernel)) + y


def scanned(p, y):
    return lax.scan(lambda y, k: (block(y, k), None), y, jnp.stack([p["k2"]] * 3))[0]


def collected(p, y):
    """A scan whose steps' results are used too."""
    y, means = lax.scan(
        lambda y, k: (block(y, k), y.mean((1, 2))), y, jnp.stack([p["k2"]] * 2), reverse=True
    )
    return y + means.sum(0)[:, None, None]


def counted(p, y):
    step = lambda c: (c[0] + 1, block(c[1], p["k2"]))  # noqa: E731
    return lax.while_loop(lambda c: c[0] < 2, step, (0, y))[1]


def body(layer):
    """A network with a layer of `(p, y)` between stem and head."""
    return lambda p, x: head(p, layer(p, stem(p, x)))


LAYERS = {
    "batch norm at inference": lambda p, y: (y - 0.3) / jnp.sqrt(p["b"] ** 2 + 1e-3) * p["s"],
    "layer norm": lambda p, y: normalised(y, 3),
    "layer norm of an image": lambda p, y: normalised(y, (1, 2, 3)),
    "instance norm": lambda p, y: normalised(y, (1, 2)),
    "group norm": lambda p, y: group_norm(conv(y, p["k2"])),
    "group norm of flax": lambda p, y: nn.GroupNorm(2).apply(
        {"params": {"scale": p["s"].reshape(-1), "bias": p["b"].reshape(-1)}}, y
    ),
    "variance in one pass": lambda p, y: fast_variance(y),
    "RMS norm": lambda p, y: y * lax.rsqrt((y**2).mean(3, keepdims=True) + 1e-6),
    "global response norm": lambda p, y: response_norm(y),
    "local response normalisation": lambda p, y: local_response(y),
    "L2 norm over channels": lambda p, y: y / (jnp.linalg.norm(y, axis=3, keepdims=True) + 1e-3),
    "squeeze and excitation": excitation,
    "CBAM": spatial_gate,
    "selective kernels": selective,
    "hard swish": lambda p, y: y * jnp.clip(y + 3, 0, 6) / 6,
    "GELU": lambda p, y: jax.nn.gelu(y) + jax.nn.silu(y) + jax.nn.gelu(y, approximate=False),
    "leaky, ELU, mish": lambda p, y: jax.nn.leaky_relu(y) + jax.nn.elu(y) + jax.nn.mish(y),
    "PReLU": lambda p, y: jnp.where(y > 1, y, y * p["s"]),
    "log, root, power": log_and_roots,
    "softmax over channels": lambda p, y: jax.nn.softmax(y, axis=3),
    "log softmax over channels": lambda p, y: jax.nn.log_softmax(y, axis=3),
    "maxout": lambda p, y: y.reshape(N, H, W, C, 1).repeat(2, 4).max(4),
    "channel shuffle": lambda p, y: conv(shuffled(y), p["k2"]),
    "shuffle unit": shuffled_unit,
    "split and concatenate": lambda p, y: jnp.concatenate(jnp.split(y, 4, 3)[::-1], 3),
    "concatenate of branches": lambda p, y: jnp.concatenate(
        [conv(y, p["k2"])[..., :4], nn.max_pool(y, (3, 3), (1, 1), "SAME")[..., 4:]], 3
    ),
    "residual of branches": lambda p, y: conv(y, p["k2"]) + conv(y, p["k5"]),
    "residual by stack and sum": lambda p, y: jnp.stack([conv(y, p["k2"]), conv(y, p["k5"])]).sum(
        0
    ),
    "dropout at inference": lambda p, y: nn.Dropout(0.5, deterministic=True).apply({}, y),
    "1x7 and 7x1": lambda p, y: conv(
        conv(y, jnp.full((1, 7, C, C), 0.05)), jnp.full((7, 1, C, C), 0.05)
    ),
    "dilated and grouped": lambda p, y: conv(
        y, p["k2"][:, :, :2], rhs_dilation=(2, 2), feature_group_count=4
    ),
    "depthwise multiplier": lambda p, y: conv(
        y, jnp.concatenate([p["k2"][:, :, :1]] * 2, 3), feature_group_count=C
    )[..., :C],
    "even kernel": lambda p, y: conv(y, p["k5"][:4, :2], 2, "SAME"),
    "transposed convolution": lambda p, y: lax.conv_transpose(
        y, p["k2"], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    ),
    "transposed, 2x2": lambda p, y: lax.conv_transpose(
        y, p["k2"][:2, :2], (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    ),
    "pad, then bias": lambda p, y: conv(jax.nn.relu(around(y, 1, 2) + p["b"]), p["k2"], 1, "VALID"),
    "pad by a number": lambda p, y: conv(around(y, 1, 1, 0.7), p["k2"], 1, "VALID"),
    "average over a padded number": lambda p, y: nn.avg_pool(around(y, 1, 1, 0.7), (3, 3), (2, 2)),
    "maximum over a padded number": lambda p, y: nn.max_pool(around(y, 1, 1, 0.7), (3, 3), (2, 2)),
    "mean over padding": lambda p, y: around(y, 2, 1) + p["b"],
    "padding wider than the kernel": lambda p, y: jax.nn.relu(
        conv(y, p["k2"], 1, ((4, 4), (4, 5))) + p["b"]
    ),
    "pad one side, crop the other": lambda p, y: conv(
        jnp.concatenate([y[:, ::2, ::2, :4], around(y, 0, 1)[:, 1:, 1:][:, ::2, ::2, :4]], 3),
        p["k2"],
    ),
    "residual of padded and not": lambda p, y: (
        y + jnp.pad(y, ((0, 0), (0, 3), (0, 0), (0, 0)))[:, 3:] + p["b"]
    ),
    "pad channels (ResNet of option A)": lambda p, y: (
        jnp.pad(y[:, ::2, ::2, :4], ((0, 0), (0, 0), (0, 0), (2, 2))) + conv(y, p["k2"], 2)
    ),
    "reflected padding": lambda p, y: conv(
        jnp.pad(y, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect"), p["k2"], 1, "VALID"
    ),
    "rolled": lambda p, y: conv(jnp.roll(y, (2, 3), (1, 2)), p["k2"]),
    "flipped": lambda p, y: conv(y[:, ::-1, ::-1], p["k2"]),
    "taken rows": lambda p, y: jnp.take(y, np.array([0, 3, 3, 7]), axis=1),
    "space to depth": lambda p, y: space_to_depth(y),
    "blur pool": lambda p, y: conv(
        around(y, 1, 1),
        jnp.tile(
            jnp.outer(jnp.array([1.0, 2, 1]), jnp.array([1.0, 2, 1]))[:, :, None, None] / 16,
            (1, 1, 1, C),
        ),
        2,
        "VALID",
        feature_group_count=C,
    ),
    "max pool, ceil mode": lambda p, y: nn.max_pool(y, (3, 3), (2, 2), ((0, 1), (0, 0))),
    "nearest, repeat": lambda p, y: conv(upsampled(y), p["k2"]),
    "nearest, broadcast": lambda p, y: conv(broadcast_upsampled(y), p["k2"]),
    "nearest, jax.image": lambda p, y: conv(resized(y, (2 * H, 2 * W), "nearest"), p["k2"]),
    "bilinear": lambda p, y: conv(resized(y, (2 * H, W), "bilinear"), p["k2"]),
    "bilinear, smaller": lambda p, y: resized(y, (H // 2, 5), "bilinear"),
    "U-Net": pyramid,
    "adaptive average pool": lambda p, y: adaptive(y, 5),
    "jit": lambda p, y: jax.jit(lambda y: jax.nn.relu(conv(y, p["k2"])))(y),
    "remat": lambda p, y: jax.checkpoint(lambda y: jax.nn.relu(conv(y, p["k2"])))(y),
    "custom_vjp": lambda p, y: soft(y),
    "custom_jvp": lambda p, y: hard(y, p["s"]),
    "scan": scanned,
    "scan with results": collected,
    "fori_loop": lambda p, y: lax.fori_loop(0, 2, lambda _, y: block(y, p["k2"]), y),
    "while": counted,
    "cond on weights": lambda p, y: lax.cond(
        p["b"][0, 0, 0, 0] > 0, lambda y: y * p["s"], lambda y: y * 2, y
    ),
    "switch on a number": lambda p, y: lax.switch(
        1, [lambda y: y, lambda y: conv(y, p["k2"]), lambda y: y * 2], y
    ),
    "float16 inside": lambda p, y: y.astype(jnp.float16).astype(float),
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_identities_and_the_full_recipe(layer):
    network = body(layer)
    actual = run_masked(network, P, IMAGES, MASKS)
    full = quick_jit(layer_mask(network, shortcuts=False))(P, IMAGES, MASKS)
    assert distance(actual, full) < 1e-11


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_gradients_are_finite_and_zero_under_the_mask(layer):
    check_gradients(body(layer), P, IMAGES, MASKS)
