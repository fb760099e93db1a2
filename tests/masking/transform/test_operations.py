"""What networks are made of, each in a small network: identities, gradients, the full recipe."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from lmjax._utils.jaxprs import primitives
from lmjax.masking import Masked, layers
from lmjax.masking.transform import layer_mask
from tests.support import layer_masking_reference as reference
from tests.support.masked_functions import (
    CHANNELS,
    SIZE,
    by_reference,
    conv,
    distance,
    double_precision,
    head,
    images_of,
    masks_of,
    reference_conv,
    reference_head,
    reference_stem,
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


def flattened_groups(y, groups=2):
    """A group norm of channels first, whose groups are one axis."""
    return jnp.transpose(
        normalised(jnp.transpose(y, (0, 3, 1, 2)).reshape(len(y), groups, -1), 2).reshape(
            len(y), C, *y.shape[1:3]
        ),
        (0, 2, 3, 1),
    )


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


@jax.custom_jvp
def quantised(x, levels, signed):
    """Passes gradients straight through, and has none for numbers and flags."""
    return jnp.where(signed, jnp.round(x * levels) / levels, jnp.round(jnp.abs(x) * levels))


@quantised.defjvp
def _(primals, tangents):
    return quantised(*primals), tangents[0]


@jax.custom_vjp
def scaled(limit, x, power):
    return jnp.clip(x, -limit, limit) ** power


scaled.defvjp(
    lambda limit, x, power: (scaled(limit, x, power), x),
    lambda x, dot: (jnp.zeros(()), dot * jnp.tanh(x), np.zeros((), jax.dtypes.float0)),
)


@jax.custom_jvp
def above(x):
    """Has no derivative at all: results are flags."""
    return x > 0


@above.defjvp
def _(primals, tangents):
    return above(*primals), np.zeros(primals[0].shape, jax.dtypes.float0)


def held(p, y):
    """Values of two shapes behind one barrier."""
    y, scale, mean = lax.optimization_barrier((y, p["s"], y.mean((1, 2))))
    return y * scale + mean[:, None, None]


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
    """A network with a layer of `(p, y)` between stem and head; the mean is not a norm's."""

    def network(p, x):
        y = layer(p, stem(p, x))
        return head(p, jnp.maximum(y, y / 4))

    return network


def reference_body(layer):
    def network(p, x, mask):
        y, mask = layer(p, *reference_stem(p, x, mask))
        return reference_head(p, np.maximum(y, y / 4), mask)

    return network


LAYERS = {
    "batch norm at inference": lambda p, y: (y - 0.3) / jnp.sqrt(p["b"] ** 2 + 1e-3) * p["s"],
    "layer norm": lambda p, y: normalised(y, 3),
    "layer norm of an image": lambda p, y: normalised(y, (1, 2, 3)),
    "instance norm": lambda p, y: normalised(y, (1, 2)),
    "group norm": lambda p, y: group_norm(conv(y, p["k2"])),
    "group norm of groups that are flattened": lambda p, y: flattened_groups(y),
    "layer norm of a flattened image": lambda p, y: normalised(y.reshape(N, -1), 1).reshape(
        y.shape
    ),
    "transposed convolution with gaps": lambda p, y: lax.conv_transpose(
        y, p["k2"][:2, :2], (3, 3), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    ),
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
    "padding by the edge": lambda p, y: conv(
        jnp.pad(y, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge"), p["k2"], 1, "VALID"
    ),
    "rolled": lambda p, y: conv(jnp.roll(y, (2, 3), (1, 2)), p["k2"]),
    "flipped": lambda p, y: conv(y[:, ::-1, ::-1], p["k2"]),
    "every other position, by indices": lambda p, y: conv(
        y[:, np.arange(0, H, 2)[:, None], np.arange(1, W, 2)], p["k2"]
    ),
    "columns with a step, one row": lambda p, y: y[:, 3, np.arange(1, W, 3)][:, None],
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
    "custom_vjp of numbers": lambda p, y: scaled(2.0, y, 2),
    "custom_jvp": lambda p, y: hard(y, p["s"]),
    "custom_jvp of numbers": lambda p, y: quantised(y, 8, True),
    "custom_jvp of flags": lambda p, y: jnp.where(above(y), y, 0.1 * y),
    "barrier": held,
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
    "sorted, and read by nobody": lambda p, y: (jnp.sort(y, axis=1), y * p["s"])[1],
    "float16 inside": lambda p, y: y.astype(jnp.float16).astype(float),
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_identities_gradients_and_the_full_recipe(layer):
    run_masked(body(layer), P, IMAGES, MASKS, thorough=True)


KEEP_ZERO = {
    "swish": jax.nn.silu,
    "hard swish": jax.nn.hard_swish,
    "GELU": jax.nn.gelu,
    "exact GELU": lambda y: jax.nn.gelu(y, approximate=False),
    "cube": lambda y: y * y**3,
    "own derivative": lambda y: y * jax.nn.relu6(y + 2),
}
DO_NOT = {
    "cosine": lambda y: y**2 + jnp.cos(y),
    "infinite slope": lambda y: jnp.sqrt(y**2) * y,
    "weights": lambda y: y * jnp.tanh(y + P["b"]),
    "divided by itself": lambda y: y / (y + 1),
}


def selections(function):
    """How many selections a masked network takes, whose layer reads its input twice."""

    def network(p, x):
        return head(p, conv(function(conv(x, p["k"]) + p["b"]), p["k2"]))

    jaxpr = jax.make_jaxpr(layer_mask(network))(P, IMAGES, MASKS).jaxpr
    return [*primitives(jaxpr)].count("select_n")


@pytest.mark.parametrize("function", KEEP_ZERO.values(), ids=KEEP_ZERO)
def test_what_keeps_zero_is_not_selected_from(function):
    assert selections(function) == selections(lambda y: y)


@pytest.mark.parametrize("function", DO_NOT.values(), ids=DO_NOT)
def test_what_may_not_keep_zero_is_selected_from(function):
    assert selections(function) > selections(lambda y: y)


# Against a reference in NumPy.


def reference_group_norm(y, mask, groups=2, epsilon=1e-5):
    parts = y.reshape(H, W, groups, -1)
    seen = parts[mask] if mask.any() else np.zeros((1, *parts.shape[2:]))
    mean, var = seen.mean((0, 2)), seen.var((0, 2))
    y = ((parts - mean[:, None]) / np.sqrt(var[:, None] + epsilon)).reshape(y.shape)
    return np.where(mask[..., None], y, 0), mask


def reference_excitation(p, y, mask):
    squeezed = y[mask].mean(0) if mask.any() else np.zeros(C)
    gate = np.maximum(squeezed @ p["g"], 0) @ p["g2"]
    return y / (1 + np.exp(-gate)), mask


def reference_residual(p, y, mask):
    one, known = reference_conv(y, mask, p["k2"], padding=1)
    both = mask & known
    return np.where(both[..., None], y + one, 0), both


def reference_branches(p, y, mask):
    one, first = reference_conv(y, mask, p["k2"], padding=1)
    two, second = reference.max_pool(y, mask, window=3, stride=1, padding=1)
    both = first & second & mask
    return np.where(both[..., None], np.concatenate([one, two, y], 2), 0)[..., :C], both


def reference_variance(p, y, mask):
    seen = y[mask] if mask.any() else np.zeros((1, C))
    return np.where(mask[..., None], (y - seen.mean(0)) / np.sqrt(seen.var(0) + 1e-3), 0), mask


def reference_nearest(p, y, mask):
    big, known = y.repeat(2, 0).repeat(2, 1), mask.repeat(2, 0).repeat(2, 1)
    return reference_conv(big, known, p["k2"], padding=1)


def reference_blur(p, y, mask):
    """A depthwise convolution like any other: hidden neighbours are filled."""
    kernel = np.outer([1, 2, 1], [1, 2, 1])[:, :, None, None] / 16 * np.ones((1, 1, 1, C))
    return reference_conv(y, mask, kernel, stride=2, padding=1, groups=C)


REFERENCES = {
    "group norm": lambda p, y, m: reference_group_norm(*reference_conv(y, m, p["k2"], padding=1)),
    "variance in one pass": reference_variance,
    "squeeze and excitation": reference_excitation,
    "nearest, repeat": reference_nearest,
    "nearest, broadcast": reference_nearest,
    "nearest, jax.image": reference_nearest,
    "blur pool": reference_blur,
    "even kernel": lambda p, y, m: reference_conv(
        y, m, p["k5"][:4, :2], stride=2, padding=((1, 1), (0, 0))
    ),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_equals_the_reference(name):
    check_network(body(LAYERS[name]), reference_body(REFERENCES[name]))


def check_network(function, network):
    actual = run_masked(function, P, IMAGES, MASKS)
    assert distance(actual, by_reference(network, P, IMAGES, MASKS)) < 1e-12


def test_residuals_and_concatenations_keep_what_all_branches_know():
    check_network(
        body(lambda p, y: y + conv(y, p["k2"])),
        reference_body(reference_residual),
    )

    def branches(p, y):
        pooled = nn.max_pool(y, (3, 3), (1, 1), "SAME")
        return jnp.concatenate([conv(y, p["k2"]), pooled, y], 3)[..., :C]

    check_network(
        body(branches),
        reference_body(reference_branches),
    )


def torch_cells(y, size):
    """Adaptive average pooling as a network may write it: cell by cell."""
    spans = [[(i * n // size, -(-(i + 1) * n // size)) for i in range(size)] for n in y.shape[1:3]]
    rows = [
        jnp.stack([y[:, a:b, c:d].mean((1, 2)) for c, d in spans[1]], axis=1) for a, b in spans[0]
    ]
    return jnp.stack(rows, axis=1)


# Written cell by cell, a pool is an operation for each cell: 16 x 16 of them take long.
@pytest.mark.parametrize(
    ("pool", "size"),
    [*((adaptive, size) for size in (3, 5, 7, 16)), *((torch_cells, size) for size in (3, 5, 13))],
)
def test_adaptive_average_pools_of_ragged_cells(pool, size):
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(size * size * C, 5)) / size
    p = {**P, "dense": dense}

    def function(p, x):
        return pool(stem(p, x), size).reshape(N, -1) @ p["dense"]

    def network(p, x, mask):
        return reference.adaptive_average_pool(*reference_stem(p, x, mask), size).ravel() @ dense

    actual = run_masked(function, p, IMAGES, MASKS)
    assert distance(actual, by_reference(network, p, IMAGES, MASKS)) < 1e-12


ROWS, COLUMNS = np.mgrid[:H, :W]
CIRCLE = (ROWS - 5.5) ** 2 + (COLUMNS - 6.5) ** 2 < 25
GAUSSIAN = np.exp(-((ROWS - 5.5) ** 2 + (COLUMNS - 6.5) ** 2) / 20)


def circle(y):
    return y * CIRCLE[None, :, :, None]


REGIONS = {
    "where": (CIRCLE, lambda y: jnp.where(CIRCLE[None, :, :, None], y, 0).sum((1, 2))),
    "where not": (CIRCLE, lambda y: jnp.where(~CIRCLE[None, :, :, None], 0, y).sum((1, 2))),
    "product": (CIRCLE, lambda y: (y * CIRCLE[None, :, :, None]).sum((1, 2))),
    "weights": (GAUSSIAN, lambda y: (y * GAUSSIAN[None, :, :, None]).sum((1, 2))),
    "axis by axis": (GAUSSIAN, lambda y: (y * GAUSSIAN[None, :, :, None]).sum(2).sum(1)),
    "channels first": (
        GAUSSIAN,
        lambda y: (jnp.transpose(y, (0, 3, 1, 2)) * GAUSSIAN[None, None]).sum((2, 3)),
    ),
    "merged": (
        CIRCLE,
        lambda y: jnp.where(CIRCLE[None, :, :, None], y, 0).reshape(N, -1, C).sum(1),
    ),
    "matrix": (GAUSSIAN, lambda y: jnp.einsum("nhwc,hw->nc", y, jnp.asarray(GAUSSIAN))),
    "dense": (CIRCLE, lambda y: (circle(y) @ jnp.eye(C)).sum((1, 2))),
    "1x1 convolution": (CIRCLE, lambda y: conv(circle(y), jnp.eye(C)[None, None]).sum((1, 2))),
    "turned around": (CIRCLE, lambda y: circle(y)[:, ::-1].sum((1, 2))),
    "padded": (
        CIRCLE,
        lambda y: jnp.pad(circle(y), ((0, 0), (1, 2), (1, 0), (0, 0))).sum((1, 2)),
    ),
    "joined": (
        CIRCLE,
        lambda y: jnp.concatenate([circle(y[..., :2]), circle(y[..., 2:])], 3).sum((1, 2)),
    ),
    "added, and halved": (CIRCLE, lambda y: ((circle(y) + circle(y)) / 2).sum((1, 2))),
    "activated": (CIRCLE, lambda y: jax.nn.relu(circle(y)).sum((1, 2))),
}


@pytest.mark.parametrize(("numbers", "pool"), REGIONS.values(), ids=REGIONS)
def test_means_over_a_region_count_what_is_visible_in_it(numbers, pool):
    def network(p, x, mask):
        y, mask = reference_stem(p, x, mask)
        seen = numbers * mask
        mean = (y * seen[..., None]).sum((0, 1)) / seen.sum() if seen.sum() else np.zeros(C)
        return mean @ p["d"]

    with contextlib.ExitStack() as context:
        if numbers is GAUSSIAN:
            context.enter_context(pytest.warns(UserWarning, match="If the map holds coordinates"))
        check_network(lambda p, x: pool(stem(p, x)) / numbers.sum() @ p["d"], network)


def test_weights_of_a_mean_are_no_coordinates():
    weights = GAUSSIAN / GAUSSIAN.sum()  # warnings are errors

    def network(p, x, mask):
        y, mask = reference_stem(p, x, mask)
        seen = weights * mask
        mean = (y * seen[..., None]).sum((0, 1)) / seen.sum() if seen.sum() else np.zeros(C)
        return mean @ p["d"]

    check_network(
        lambda p, x: (stem(p, x) * weights[None, :, :, None]).sum((1, 2)) @ p["d"], network
    )


@pytest.mark.parametrize("as_matrix", [False, True])
def test_coordinates_are_a_warning(as_matrix):
    x = jnp.linspace(0, 1, W)

    def centre(p, images):
        y = jnp.abs(images).sum(3, keepdims=True)
        if as_matrix:
            return jnp.einsum("nhwc,hw->nc", y, jnp.broadcast_to(x, (H, W))) / y.sum((1, 2))
        return (y * x[None, None, :, None]).sum((1, 2)) / y.sum((1, 2))

    with pytest.warns(UserWarning, match="a centre of mass, a soft argmax"):
        layer_mask(centre)(P, IMAGES, MASKS)


def test_coordinates_about_zero_give_the_centre_of_what_is_visible():
    x = jnp.linspace(-1, 1, W)

    def centre(p, images):
        y = jnp.abs(images).sum(3, keepdims=True)
        return (y * x[None, None, :, None]).sum((1, 2)) / y.sum((1, 2))

    some = MASKS[MASKS.any(axis=(1, 2))]
    images = jnp.asarray(np.where(some[..., None], IMAGES[: len(some)], 0))
    expected = centre(P, images)
    np.testing.assert_allclose(layer_mask(centre)(P, images, some), expected, atol=1e-12)


def test_counts_of_positions_are_whole_numbers():
    def count(p, x):
        return (x > 0.5).sum((1, 2)), (x > 0.5).sum(1).sum(1)

    for found, expected in zip(
        layer_mask(count)(P, IMAGES, jnp.ones_like(MASKS)), count(P, IMAGES), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_attention_among_the_positions_of_a_region():
    def function(p, x):
        y = circle(stem(p, x)).reshape(N, -1, C)
        weights = jax.nn.softmax(jnp.einsum("npc,nqc->npq", y, y))
        return jnp.einsum("npq,nqc->npc", weights, y).mean(1) @ p["d"]

    run_masked(function, P, IMAGES, MASKS)


def test_a_region_that_is_no_product_any_more_is_a_warning():
    def function(p, x):
        y = jnp.where(CIRCLE[None, :, :, None], stem(p, x), 0)
        return jnp.exp(y).sum((1, 2)) @ p["d"]

    with pytest.warns(UserWarning, match="differ between positions"):
        layer_mask(function)(P, IMAGES, MASKS)
