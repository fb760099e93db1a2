"""Random networks: the identities, and all shortcuts against the full recipe."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from jax import lax

from lmjax.masking import LayerMaskError, layer_mask
from tests.support.compilations import quick_jit
from tests.support.masked_functions import (
    distance,
    double_precision,
    images_of,
    masks_of,
    run_masked,
)

C = 6
MASKS = masks_of((13, 16))
IMAGES = images_of(MASKS, channels=C)


@pytest.fixture(autouse=True, scope="module")
def _double_precision():
    with double_precision():
        yield


kernels = st.fixed_dictionaries(
    {
        "size": st.tuples(st.sampled_from([1, 2, 3, 5]), st.sampled_from([1, 3])),
        "stride": st.sampled_from([1, 1, 1, 2]),
        "dilation": st.sampled_from([1, 1, 2]),
        "groups": st.sampled_from([1, 1, 2, C]),
        "padding": st.sampled_from(["SAME", "SAME", ((1, 0), (2, 1)), ((0, 2), (1, 1))]),
        "before": st.booleans(),
    }
)
pools = st.tuples(
    st.sampled_from(["max", "average", "inside"]),
    st.sampled_from([2, 3]),
    st.sampled_from([1, 2]),
    st.sampled_from(["SAME", ((1, 0), (0, 1))]),
)
norms = st.sampled_from(["batch", "layer", "group", "excite", "relu", "gelu", "shuffle"])
leaves = st.one_of(
    st.tuples(st.just("conv"), kernels),
    st.tuples(st.just("conv"), kernels),
    st.tuples(st.just("pool"), pools),
    st.tuples(st.just("norm"), norms),
)
bodies = st.recursive(
    st.lists(leaves, min_size=1, max_size=3),
    lambda inner: st.lists(
        st.one_of(
            leaves,
            st.tuples(st.just("residual"), inner),
            st.tuples(st.just("concatenate"), st.tuples(inner, inner)),
        ),
        min_size=1,
        max_size=3,
    ),
    max_leaves=5,
)


def kernel_of(seed, size, groups):
    shape = (*size, C // groups, C)
    return np.random.default_rng(seed).normal(size=shape) / np.sqrt(np.prod(shape[:-1]))


class Builder:
    """Runs a description of a network on `[N, H, W, C]`, or on `[N, C, H, W]`."""

    def __init__(self, first):
        self.first, self.number = first, 0

    def shown(self, y):
        """In the layout of the network."""
        return jnp.transpose(y, (0, 3, 1, 2)) if self.first else y

    def last(self, y):
        """Channels last."""
        return jnp.transpose(y, (0, 2, 3, 1)) if self.first else y

    def run(self, y, body):
        for kind, options in body:
            self.number += 1
            y = getattr(self, kind)(y, options)
        return y

    def conv(self, y, o):
        kernel = kernel_of(self.number, o["size"], o["groups"])
        padding = o["padding"]
        if o["before"] and padding != "SAME":
            pads = self.shown_pads(padding)
            y, padding = jnp.pad(y, pads), "VALID"
        if min(self.last(y).shape[1:3]) < 5:
            padding = "SAME"
        numbers = ("NCHW", "HWIO", "NCHW") if self.first else ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(
            y,
            kernel,
            (o["stride"],) * 2,
            padding,
            rhs_dilation=(o["dilation"],) * 2,
            feature_group_count=o["groups"],
            dimension_numbers=numbers,
        )

    def shown_pads(self, pads):
        return ((0, 0), (0, 0), *pads) if self.first else ((0, 0), *pads, (0, 0))

    def pool(self, y, options):
        how, size, stride, padding = options
        if how == "max":
            z = nn.max_pool(self.last(y), (size, size), (stride, stride), padding)
        else:
            z = nn.avg_pool(
                self.last(y),
                (size, size),
                (stride, stride),
                padding,
                count_include_pad=how == "average",
            )
        return self.shown(z)

    def norm(self, y, kind):
        z = self.last(y)
        if kind == "batch":
            z = z * (np.arange(C) / C + 0.5).reshape(1, 1, 1, C) + 0.1
        elif kind == "layer":
            z = (z - z.mean(3, keepdims=True)) / jnp.sqrt(z.var(3, keepdims=True) + 0.1)
        elif kind == "group":
            g = z.reshape(*z.shape[:3], 2, C // 2)
            g = (g - g.mean((1, 2, 4), keepdims=True)) / jnp.sqrt(
                g.var((1, 2, 4), keepdims=True) + 0.1
            )
            z = g.reshape(z.shape)
        elif kind == "excite":
            z = z * jax.nn.sigmoid(z.mean((1, 2), keepdims=True) @ kernel_of(1, (1, 1), 1)[0, 0])
        elif kind == "shuffle":
            z = jnp.swapaxes(z.reshape(*z.shape[:3], 2, C // 2), 3, 4).reshape(z.shape)
        else:
            z = jax.nn.relu(z) if kind == "relu" else jax.nn.gelu(z)
        return self.shown(z)

    def residual(self, y, body):
        z = self.run(y, body)
        return z + y if z.shape == y.shape else z

    def concatenate(self, y, bodies):
        one, other = (self.run(y, body) for body in bodies)
        if one.shape != other.shape:
            return one
        parts = self.last(one)[..., : C // 2], self.last(other)[..., C // 2 :]
        return self.shown(jnp.concatenate(parts, axis=3))


def network(body, first):
    def run(p, x):
        builder = Builder(first)
        y = builder.last(builder.run(builder.shown(x), body))
        y = jax.nn.leaky_relu(y)
        return {"logits": y.mean((1, 2)) @ p, "map": y}

    return run


P = np.random.default_rng(9).normal(size=(C, 4))


def check(body, first, padding="neighbor"):
    function = network(body, first)
    try:
        jax.eval_shape(layer_mask(function, padding=padding), P, IMAGES, MASKS)
    except LayerMaskError as error:
        # Windows beside the image alone; parts that reach beside it on different sides.
        assume("read" not in str(error) and "padded at different sides" not in str(error))
        raise
    # To partial convolution what is beside the image is hidden: not the network's own answer.
    tolerance = np.inf if padding == "partial" else 1e-9
    actual = run_masked(function, P, IMAGES, MASKS, tolerance=tolerance, padding=padding)
    full = quick_jit(layer_mask(function, shortcuts=False, padding=padding))(P, IMAGES, MASKS)
    assert distance(actual, full) < 1e-9


@settings(deadline=None, max_examples=8, derandomize=True, phases=[Phase.generate])
@given(body=bodies, first=st.booleans())
def test_identities_and_shortcuts(body, first):
    check(body, first)


def one_column(size, dilation, padding):
    return {
        "size": (size, 1),
        "stride": 1,
        "dilation": dilation,
        "groups": 1,
        "padding": padding,
        "before": False,
    }


BESIDE = [
    ("conv", one_column(1, 1, "SAME")),
    ("conv", one_column(2, 2, ((1, 0), (2, 1)))),
    ("pool", ("max", 2, 1, "SAME")),
]
FOUND = {
    "groups of shuffled channels": [("norm", "shuffle"), ("norm", "group")],
    "joined beside the image": [
        ("pool", ("max", 2, 1, "SAME")),
        ("concatenate", (BESIDE, BESIDE)),
    ],
}


@pytest.mark.parametrize("name", FOUND)
@pytest.mark.parametrize("first", [True, False])
def test_what_was_found_by_many(name, first):
    check(FOUND[name], first)


@pytest.mark.slow
@settings(deadline=None, max_examples=400, derandomize=True)
@given(body=bodies, first=st.booleans(), padding=st.sampled_from(["neighbor", "none", "partial"]))
def test_many_of_them(body, first, padding):
    check(body, first, padding)
