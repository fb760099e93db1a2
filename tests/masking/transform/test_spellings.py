"""One network in many spellings: all agree with each other, and with a reference in NumPy.

Identities alone do not tell: a mean that counts hidden positions passes all of them.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

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


def after_stem(layer):
    """A reference network: stem, a layer `(p, x, mask) -> (x, mask)`, mean and dense layer."""

    def network(p, x, mask):
        return reference_head(p, *layer(p, *reference_stem(p, x, mask)))

    return network


def around(x, low, high, value=0.0):
    pads = ((0, 0), (low, high), (low, high), (0, 0))
    return jnp.pad(x, pads, constant_values=value)


def nchw(x):
    return jnp.transpose(x, (0, 3, 1, 2))


def nhwc(x):
    return jnp.transpose(x, (0, 2, 3, 1))


def relu_after(layer):
    def run(p, x, mask):
        y, mask = layer(p, x, mask)
        return np.where(mask[..., None], np.maximum(y, 0), 0), mask

    return run


# Means.


def mean_unbatched(p, x):
    """Equinox: one image, channels first."""

    def one(image):
        y = lax.conv_general_dilated(
            image[None], p["k"], (1, 1), "SAME", dimension_numbers=("NCHW", "HWIO", "NCHW")
        )[0]
        y = jax.nn.relu(y + p["b"].reshape(C, 1, 1))
        return y.mean((1, 2)) @ p["d"]

    return jax.vmap(one)(nchw(x))


def mean_swapped(p, x):
    """Rows and columns change places."""
    kernel = jnp.swapaxes(p["k"], 0, 1)
    y = jax.nn.relu(conv(jnp.swapaxes(x, 1, 2), kernel) + p["b"])
    return head(p, jnp.swapaxes(y, 1, 2))


MEANS = {
    "mean": lambda p, x: head(p, stem(p, x)),
    "rows then columns": lambda p, x: stem(p, x).mean(1).mean(1) @ p["d"],
    "columns then rows": lambda p, x: stem(p, x).mean(2).mean(1) @ p["d"],
    "kept axes, one by one": lambda p, x: (
        stem(p, x).mean(1, keepdims=True).mean(2, keepdims=True).reshape(N, C) @ p["d"]
    ),
    "sum, then division": lambda p, x: stem(p, x).sum((1, 2)) / (H * W) @ p["d"],
    "sums and divisions in turn": lambda p, x: (stem(p, x).sum(1) / H).sum(1) / W @ p["d"],
    "two sums, one division": lambda p, x: stem(p, x).sum(2).sum(1) * (1 / (H * W)) @ p["d"],
    "division, then sum": lambda p, x: (stem(p, x) / (H * W)).sum((1, 2)) @ p["d"],
    "einsum": lambda p, x: jnp.einsum("nhwc->nc", stem(p, x)) / (H * W) @ p["d"],
    "product with 1/HW": lambda p, x: (
        jnp.einsum("nhwc,hw->nc", stem(p, x), jnp.full((H, W), 1 / H / W)) @ p["d"]
    ),
    "product of rows, then of columns": lambda p, x: (
        jnp.einsum("nhwc,h,w->nc", stem(p, x), jnp.full(H, 1 / H), jnp.full(W, 1 / W)) @ p["d"]
    ),
    "jnp.average": lambda p, x: jnp.average(stem(p, x), axis=(1, 2)) @ p["d"],
    "merged positions": lambda p, x: stem(p, x).reshape(N, -1, C).mean(1) @ p["d"],
    "merged, channels first": lambda p, x: nchw(stem(p, x)).reshape(N, C, -1).mean(2) @ p["d"],
    "channels first": lambda p, x: nchw(stem(p, x)).mean((2, 3)) @ p["d"],
    "flattened and back": lambda p, x: head(
        p, (stem(p, x).reshape(N, -1) * 2).reshape(N, H, W, C) / 2
    ),
    "flattened channels first, and back": lambda p, x: (
        nchw(stem(p, x)).reshape(N, -1).reshape(N, C, H, W).mean((2, 3)) @ p["d"]
    ),
    "dense layer between two means": lambda p, x: (stem(p, x).mean(1) @ p["d"] + 0).mean(1),
    "rows, turned around, then columns": lambda p, x: stem(p, x).mean(1)[:, ::-1].mean(1) @ p["d"],
    "average pool of everything": lambda p, x: (
        nn.avg_pool(stem(p, x), SIZE, SIZE).reshape(N, C) @ p["d"]
    ),
    "average pools of rows, then columns": lambda p, x: (
        nn.avg_pool(nn.avg_pool(stem(p, x), (H, 1), (H, 1)), (1, W), (1, W)).reshape(N, C) @ p["d"]
    ),
    "1x1 convolution as dense layer": lambda p, x: conv(
        stem(p, x).mean((1, 2), keepdims=True), p["d"][None, None]
    )[:, 0, 0],
    "dense layer, then mean": lambda p, x: (stem(p, x) @ p["d"]).mean((1, 2)),
    "vmap, channels first": mean_unbatched,
    "rows and columns swapped": mean_swapped,
    "in a loop over rows": lambda p, x: (
        sum(row[:, 0] for row in jnp.split(stem(p, x), H, axis=1)).mean(1) / H @ p["d"]
    ),
}


def check(function, network):
    actual = run_masked(function, P, IMAGES, MASKS)
    expected = by_reference(network, P, IMAGES, MASKS)
    assert distance(actual, expected) < 1e-12


@pytest.mark.parametrize("spelling", MEANS.values(), ids=MEANS)
def test_means(spelling):
    check(spelling, after_stem(lambda p, x, mask: (x, mask)))


# Pools.


def slices(y):
    return y[:, ::2, ::2], y[:, 1::2, ::2], y[:, ::2, 1::2], y[:, 1::2, 1::2]


def shifted(y, low, high):
    """The nine views of a 3x3 window at stride 2, slices of a padded image."""
    y = around(y, low, high, -jnp.inf)
    h, w = ((n - 3) // 2 * 2 + 1 for n in y.shape[1:3])
    return [y[:, i : i + h : 2, j : j + w : 2] for i in range(3) for j in range(3)]


def ceil_pool(y):
    """torch's `ceil_mode`: padding behind, as much as the last window needs."""
    size = ((1, 0), (1, 1))
    return lax.reduce_window(
        y, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), *size, (0, 0))
    )


def average_of_inside(y, window, stride, padding):
    return nn.avg_pool(y, (window, window), (stride, stride), padding, count_include_pad=False)


POOLS = {
    "max 2x2": (
        lambda p, x, m: reference.max_pool(x, m, window=2, stride=2),
        {
            "window": lambda y: nn.max_pool(y, (2, 2), (2, 2)),
            "reshape": lambda y: y.reshape(N, H // 2, 2, W // 2, 2, C).max((2, 4)),
            "reshape, axis by axis": lambda y: (
                y.reshape(N, H // 2, 2, W, C).max(2).reshape(N, H // 2, W // 2, 2, C).max(3)
            ),
            "slices": lambda y: jnp.maximum(
                jnp.maximum(*slices(y)[:2]), jnp.maximum(*slices(y)[2:])
            ),
            "stacked slices": lambda y: jnp.stack(slices(y)).max(0),
            "channels first": lambda y: nhwc(
                lax.reduce_window(nchw(y), -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
            ),
            "minimum of negatives": lambda y: (
                -lax.reduce_window(-y, jnp.inf, lax.min, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
            ),
        },
    ),
    "max 3x3, padded by 1": (
        lambda p, x, m: reference.max_pool(x, m, window=3, stride=2, padding=1),
        {
            "window": lambda y: nn.max_pool(y, (3, 3), (2, 2), ((1, 1), (1, 1))),
            "pad of -inf": lambda y: nn.max_pool(around(y, 1, 1, -jnp.inf), (3, 3), (2, 2)),
            "pad of 0 after ReLU": lambda y: nn.max_pool(around(y, 1, 1), (3, 3), (2, 2)),
            "pad of two": lambda y: nn.max_pool(
                around(y, 1, 0, -jnp.inf), (3, 3), (2, 2), ((0, 1), (0, 1))
            ),
        },
    ),
    "max 3x3 SAME": (
        lambda p, x, m: reference.max_pool(x, m, window=3, stride=2, padding=((0, 1), (0, 1))),
        {
            "window": lambda y: nn.max_pool(y, (3, 3), (2, 2), "SAME"),
            "slices": lambda y: (
                lambda views: jnp.maximum(
                    jnp.maximum(jnp.maximum(views[0], views[1]), jnp.maximum(views[2], views[3])),
                    jnp.maximum(
                        jnp.maximum(views[4], views[5]),
                        jnp.maximum(jnp.maximum(views[6], views[7]), views[8]),
                    ),
                )
            )(shifted(y, 0, 1)),
        },
    ),
    "max 3x3, ceil mode": (
        lambda p, x, m: reference.max_pool(x, m, window=3, stride=2, padding=((1, 0), (1, 1))),
        {
            "window": ceil_pool,
            "pad": lambda y: nn.max_pool(
                jnp.pad(y, ((0, 0), (1, 0), (1, 1), (0, 0)), constant_values=-jnp.inf),
                (3, 3),
                (2, 2),
            ),
        },
    ),
    "max, dilated": (
        lambda p, x, m: reference.max_pool(x, m, window=3, stride=1, padding=2, dilation=2),
        {
            "window": lambda y: lax.reduce_window(
                y,
                -jnp.inf,
                lax.max,
                (1, 3, 3, 1),
                (1, 1, 1, 1),
                ((0, 0), (2, 2), (2, 2), (0, 0)),
                window_dilation=(1, 2, 2, 1),
            )
        },
    ),
    "average 2x2": (
        lambda p, x, m: reference.average_pool(x, m, window=2, stride=2),
        {
            "window": lambda y: nn.avg_pool(y, (2, 2), (2, 2)),
            "inside": lambda y: average_of_inside(y, 2, 2, "VALID"),
            "reshape": lambda y: y.reshape(N, H // 2, 2, W // 2, 2, C).mean((2, 4)),
            "reshape, axis by axis": lambda y: (
                y.reshape(N, H // 2, 2, W, C).mean(2).reshape(N, H // 2, W // 2, 2, C).mean(3)
            ),
            "slices": lambda y: sum(slices(y)[1:], slices(y)[0]) / 4,
            "slices, each divided": lambda y: sum(v / 4 for v in slices(y)),
            "stacked slices": lambda y: jnp.stack(slices(y)).mean(0),
            "kernel of 1/4": lambda y: (
                lax.reduce_window(y, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") * 0.25
            ),
        },
    ),
    "average 3x3 of what is inside": (
        lambda p, x, m: reference.average_pool(x, m, window=3, stride=2, padding=1),
        {"window": lambda y: average_of_inside(y, 3, 2, ((1, 1), (1, 1)))},
    ),
    "average 3x3 SAME of what is inside": (
        lambda p, x, m: reference.average_pool(x, m, window=3, stride=2, padding=((0, 1), (0, 1))),
        {"window": lambda y: average_of_inside(y, 3, 2, "SAME")},
    ),
    "average 3x3 with zeros outside": (
        lambda p, x, m: (lambda y, m: (y / 9, m))(
            *reference.window_sum(x, m, window=3, stride=2, padding=1)
        ),
        {
            "window": lambda y: nn.avg_pool(y, (3, 3), (2, 2), ((1, 1), (1, 1))),
            "pad": lambda y: nn.avg_pool(around(y, 1, 1), (3, 3), (2, 2)),
        },
    ),
}
ALL_POOLS = [
    pytest.param(layer, spelling, id=f"{name}: {how}")
    for name, (layer, spellings) in POOLS.items()
    for how, spelling in spellings.items()
]


@pytest.mark.parametrize(("layer", "spelling"), ALL_POOLS)
def test_pools(layer, spelling):
    check(lambda p, x: head(p, spelling(stem(p, x))), after_stem(layer))


# Convolutions.


def of_kernel(name, **options):
    return lambda p, x, mask: reference_conv(x, mask, p[name], **options)


def patches(p, y):
    made = lax.conv_general_dilated_patches(
        y, (3, 3), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return made @ jnp.transpose(p["k2"], (2, 0, 1, 3)).reshape(9 * C, C)


def first(p, y, **options):
    """Channels first, as torch has it."""
    kernel = jnp.transpose(p["k2"], (3, 2, 0, 1))
    return nhwc(lax.conv_general_dilated(nchw(y), kernel, (1, 1), ((1, 1), (1, 1)), **options))


ONE_BY_ONE = {
    "convolution": lambda p, y: conv(y, p["one"]),
    "matmul": lambda p, y: y @ p["one"][0, 0],
    "einsum, channels first": lambda p, y: nhwc(
        jnp.einsum("oi,nihw->nohw", p["one"][0, 0].T, nchw(y))
    ),
    "weights first": lambda p, y: jnp.einsum("io,nhwi->nhwo", p["one"][0, 0], y),
    "positions merged": lambda p, y: (y.reshape(N, H * W, C) @ p["one"][0, 0]).reshape(N, H, W, C),
    "batch and positions merged": lambda p, y: (y.reshape(-1, C) @ p["one"][0, 0]).reshape(
        N, H, W, C
    ),
    "split channels": lambda p, y: jnp.einsum(
        "nhwgi,gio->nhwo", y.reshape(N, H, W, 2, C // 2), p["one"][0, 0].reshape(2, C // 2, C)
    ),
    "vmap": lambda p, y: jax.vmap(lambda image: image @ p["one"][0, 0])(y),
    "sum of products": lambda p, y: (y[..., None] * p["one"][0, 0].reshape(1, 1, 1, C, C)).sum(3),
}
CONVOLUTIONS = {
    "1x1": (of_kernel("one"), ONE_BY_ONE),
    "3x3": (
        of_kernel("k2", padding=1),
        {
            "window": lambda p, y: conv(y, p["k2"]),
            "channels first": first,
            "patches": patches,
            "pad": lambda p, y: conv(around(y, 1, 1), p["k2"], 1, "VALID"),
            "pad, one side by one": lambda p, y: conv(
                around(around(y, 1, 0), 0, 1), p["k2"], 1, "VALID"
            ),
            "wide pad, then crop": lambda p, y: conv(
                around(y, 3, 2)[:, 2:-1, 2:-1], p["k2"], 1, "VALID"
            ),
            "wide pad, negative pad": lambda p, y: conv(
                around(y, 3, 3), p["k2"], 1, ((-2, -2), (-2, -2))
            ),
            "a batch of one each": lambda p, y: jax.vmap(
                lambda image: conv(image[None], p["k2"])[0]
            )(y),
            "cropped output": lambda p, y: conv(y, p["k2"], 1, ((3, 2), (2, 3)))[:, 2:-1, 1:-2],
        },
    ),
    "3x3, stride 2": (
        of_kernel("k2", padding=1, stride=2),
        {
            "window": lambda p, y: conv(y, p["k2"], 2, ((1, 1), (1, 1))),
            "pad": lambda p, y: conv(around(y, 1, 1), p["k2"], 2, "VALID"),
            "pad in two": lambda p, y: conv(around(y, 1, 0), p["k2"], 2, ((0, 1), (0, 1))),
        },
    ),
    "3x3 SAME, stride 2": (
        of_kernel("k2", padding=((0, 1), (0, 1)), stride=2),
        {
            "window": lambda p, y: conv(y, p["k2"], 2, "SAME"),
            "pad": lambda p, y: conv(around(y, 0, 1), p["k2"], 2, "VALID"),
        },
    ),
    "5x5 over a pad of 2": (
        of_kernel("k5", padding=2),
        {
            "window": lambda p, y: conv(y, p["k5"]),
            "pad and padding": lambda p, y: conv(around(y, 1, 1), p["k5"], 1, ((1, 1), (1, 1))),
        },
    ),
    "dilated": (
        of_kernel("k2", padding=2, dilation=2),
        {
            "window": lambda p, y: conv(y, p["k2"], 1, rhs_dilation=(2, 2)),
        },
    ),
    "depthwise": (
        lambda p, x, mask: reference_conv(x, mask, p["k2"][:, :, :1], padding=1, groups=C),
        {
            "groups": lambda p, y: conv(y, p["k2"][:, :, :1], feature_group_count=C),
            "channels first": lambda p, y: nhwc(
                lax.conv_general_dilated(
                    nchw(y),
                    jnp.transpose(p["k2"][:, :, :1], (3, 2, 0, 1)),
                    (1, 1),
                    ((1, 1), (1, 1)),
                    feature_group_count=C,
                )
            ),
        },
    ),
    "grouped, dilated": (
        lambda p, x, mask: reference_conv(
            x, mask, p["k2"][:, :, :4], padding=2, dilation=2, groups=2
        ),
        {
            "groups": lambda p, y: conv(
                y, p["k2"][:, :, :4], feature_group_count=2, rhs_dilation=(2, 2)
            ),
            "split and joined": lambda p, y: jnp.concatenate(
                [
                    conv(part, kernel, rhs_dilation=(2, 2))
                    for part, kernel in zip(
                        jnp.split(y, 2, axis=3), jnp.split(p["k2"][:, :, :4], 2, axis=3)
                    )
                ],
                axis=3,
            ),
        },
    ),
    "pointwise, then 3x3": (
        lambda p, x, mask: reference_conv(
            np.where(mask[..., None], x * p["s"][0] + p["b"][0], 0), mask, p["k2"], padding=1
        ),
        {
            "affine": lambda p, y: conv(y * p["s"] + p["b"], p["k2"]),
            "affine, channels first": lambda p, y: conv(
                nhwc(nchw(y) * p["s"].reshape(1, C, 1, 1) + p["b"].reshape(1, C, 1, 1)), p["k2"]
            ),
        },
    ),
}
ALL_CONVOLUTIONS = [
    pytest.param(layer, spelling, id=f"{name}: {how}")
    for name, (layer, spellings) in CONVOLUTIONS.items()
    for how, spelling in spellings.items()
]


@pytest.mark.parametrize(("layer", "spelling"), ALL_CONVOLUTIONS)
def test_convolutions(layer, spelling):
    check(lambda p, x: head(p, jax.nn.relu(spelling(p, stem(p, x)))), after_stem(relu_after(layer)))
