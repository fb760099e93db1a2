"""What cannot be masked is an error that says what, where, why, and what to change."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from lmjax.masking.transform import LayerMaskError, layer_mask
from tests.support.masked_functions import CHANNELS, conv, head, images_of, masks_of, stem, weights

H, W = SIZE = (12, 12)
C = CHANNELS
MASKS = masks_of(SIZE)
N = len(MASKS)
IMAGES = jnp.asarray(images_of(MASKS), jnp.float32)
P = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), weights())


def run(function, p=P, images=IMAGES, masks=MASKS, **options):
    return jax.eval_shape(lambda *a: layer_mask(function, **options)(*a), p, images, masks)


def mixing(p, x):
    y = stem(p, x).reshape(N, H * W, C)
    return jnp.einsum("npc,pq->nqc", y, jnp.ones((H * W, 7)) * p["b"][0, 0, 0, 0]).mean(1)


def training(p, x):
    y = conv(x, p["k"])
    return head(p, (y - y.mean((0, 1, 2), keepdims=True)) / 3)


def flax_training(p, x):
    norm = nn.BatchNorm(use_running_average=False)
    y, _ = norm.apply(
        {
            "params": {"scale": p["s"].ravel(), "bias": p["b"].ravel()},
            "batch_stats": {"mean": p["s"].ravel(), "var": p["s"].ravel()},
        },
        conv(x, p["k"]),
        mutable=["batch_stats"],
    )
    return head(p, y)


REFUSED = {
    "token mixing": (mixing, "dot_general", "token mixing"),
    "batch norm in training": (training, "reduce_sum", "training mode.*inference mode"),
    "convolution along channels": (
        lambda p, x: head(
            p,
            lax.conv_general_dilated(
                stem(p, x)[..., None],  # rows, columns, and channels with a window of one
                jnp.ones((3, 3, 1, 1, 1)),
                (1, 1, 1),
                "SAME",
                dimension_numbers=("NHWDC", "HWDIO", "NHWDC"),
            )[..., 0],
        ),
        "conv_general_dilated",
        "axis 3, along which the convolution slides, holds no positions",
    ),
    "fft": (
        lambda p, x: head(p, jnp.fft.fft2(stem(p, x), axes=(1, 2)).real),
        "fft",
        "no rule.*register_rule",
    ),
    "sort over positions": (
        lambda p, x: jnp.sort(stem(p, x).reshape(N, -1, C), axis=1)[:, -3:].mean(1),
        "sort",
        "along positions",
    ),
    "top k over positions": (
        lambda p, x: lax.top_k(stem(p, x).mean(3).reshape(N, -1), 5)[0],
        "top_k",
        "no rule",
    ),
    "part of a flattened image": (
        lambda p, x: stem(p, x).reshape(N, -1)[:, :5],
        "slice",
        "a flattened image.*hidden positions would count as zeros",
    ),
    "flattened images, joined": (
        lambda p, x: jnp.concatenate([stem(p, x).reshape(N, -1)] * 2, axis=1),
        "concatenate",
        "a flattened image",
    ),
    "a flattened image by itself": (
        lambda p, x: stem(p, x).reshape(N, -1) @ stem(p, x).reshape(N, -1).T,
        "dot_general",
        "another value with positions",
    ),
    "a convolution of whole numbers": (
        lambda p, x: head(
            p,
            lax.conv_general_dilated(
                x.astype(jnp.int32),
                jnp.ones((3, 3, 3, C), jnp.int32),
                (1, 1),
                "SAME",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
            * 1.0,
        ),
        "conv_general_dilated",
        "convolves int32.*padding='none'",
    ),
    "sums so far over rows": (
        lambda p, x: head(p, jnp.cumsum(stem(p, x), axis=1)),
        "cumsum",
        "along positions",
    ),
    "pixel shuffle": (
        lambda p, x: head(
            p,
            stem(p, x)
            .reshape(N, H, W, 2, 2, 2)
            .transpose(0, 1, 3, 2, 4, 5)
            .reshape(N, 2 * H, 2 * W, 2)
            @ p["d"][:2, :1].repeat(C, 1),
        ),
        "reshape",
        "merges positions",
    ),
    "across images": (lambda p, x: head(p, stem(p, x) - stem(p, x)[::-1]), "rev", "the batch"),
    "one image alone": (lambda p, x: head(p, stem(p, x)[:1]), "slice", "part of the batch"),
    "branch by what is seen": (
        lambda p, x: head(p, lax.cond(stem(p, x).max() > 1, jnp.sin, jnp.cos, stem(p, x))),
        "reduce_max",
        "batch",
    ),
    "a loop by what is seen": (
        lambda p, x: lax.while_loop(lambda y: y[0, 0, 0, 0] < 3, lambda y: y + 1, stem(p, x)).mean(
            (1, 2)
        ),
        "",
        "part of the batch|not known",
    ),
    "positions that weights choose": (
        lambda p, x: lax.dynamic_slice(
            stem(p, x), (0, p["b"][0, 0, 0, 0].astype(int), 0, 0), (N, 3, W, C)
        ).mean((1, 2)),
        "dynamic_slice",
        "not known while tracing",
    ),
    "a kernel of what is seen": (
        lambda p, x: head(
            p, conv(stem(p, x), stem(p, x)[:3, :3].mean(0)[:, :3, :, None] * p["k2"])
        ),
        "slice|conv_general_dilated",
        "",
    ),
    "a mean over the wrong axis": (lambda p, x: stem(p, x).mean((0, 1)), "reduce_sum", "the batch"),
    "a random draw by position": (
        lambda p, x: head(
            p, jax.random.categorical(jax.random.key(0), stem(p, x), axis=1)[..., None] * p["s"]
        ),
        "",
        "",
    ),
}


@pytest.mark.parametrize(("function", "primitive", "reason"), REFUSED.values(), ids=REFUSED)
def test_errors_name_primitive_reason_and_line(function, primitive, reason):
    with pytest.raises(
        LayerMaskError, match=f"(?s)layer_mask cannot go through.*{reason}"
    ) as error:
        run(function)
    text = str(error.value)
    assert any(name in text.splitlines()[0] for name in primitive.split("|"))
    assert "operands: [" in text
    first = inspect.getsourcelines(function)[1]
    assert f"{__file__}:" in text
    line = int(text.split(f"{__file__}:")[1].split(":")[0])
    assert first <= line < first + 15


def test_a_batch_norm_of_flax_in_training_is_named():
    with pytest.raises(LayerMaskError, match=r"(?s)training mode.*normalization\.py.*in BatchNorm"):
        run(flax_training)


def test_errors_name_the_module():
    class Mixer(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(4, name="tokens")(x.reshape(len(x), -1, 3).swapaxes(1, 2)).mean((1, 2))

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x):
            return Mixer(name="stage1.mixer")(x)

    network = Network()
    variables = network.init(jax.random.key(0), IMAGES)
    with pytest.raises(LayerMaskError, match=r"in .*stage1\.mixer/tokens"):
        run(network.apply, variables)


def test_data_dependent_control_flow_in_python_is_jax_own_error():
    def function(p, x):
        return head(p, stem(p, x)) if x.mean() > 0 else x

    with pytest.raises(jax.errors.ConcretizationTypeError):
        run(function)


def test_images_and_parameters_in_the_wrong_order():
    with pytest.raises(ValueError, match=r"\(params, images, masks\)"):
        layer_mask(lambda p, x: head(p, stem(p, x)))(IMAGES, P, MASKS)


def test_a_network_that_takes_images_first():
    with pytest.raises(TypeError, match=r"function must take \(params, images\)"):
        run(lambda x, p: head(p, stem(p, x)))


@pytest.mark.parametrize(
    ("images", "masks", "message"),
    [
        (IMAGES[0], MASKS, r"images must be NHWC.*\(12, 12, 3\)"),
        (IMAGES, MASKS[:2], "mask"),
        (IMAGES, MASKS[:, :6], "mask"),
        (IMAGES, MASKS * 0.5, "0"),
        (IMAGES.astype(jnp.uint8), MASKS, "floating point"),
    ],
)
def test_images_and_masks_that_do_not_fit(images, masks, message):
    with pytest.raises(ValueError, match=message):
        layer_mask(lambda p, x: head(p, stem(p, x)))(P, images, masks)


def test_images_of_another_shape_than_the_network_takes():
    def function(p, x):
        return x.reshape(N, H * W * 3) @ jnp.ones((H * W * 3, 4))

    smaller = IMAGES[:, :8, :8], MASKS[:, :8, :8]
    with pytest.raises(TypeError, match=r"images of shape \(9, 8, 8, 3\)"):
        run(function, P, *smaller)


def test_no_array_with_positions_reaches_the_results():
    """Features of hidden positions are 0, and a constant function is no error."""
    results = layer_mask(lambda p, x: {"bias": p["b"]})(P, IMAGES, MASKS)
    np.testing.assert_array_equal(results["bias"], P["b"])


def test_until_must_be_a_module():
    class Network(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Conv(4, (3, 3), name="block1")(x).mean((1, 2))

    network = Network()
    variables = network.init(jax.random.key(0), IMAGES)
    with pytest.raises(ValueError, match=r"until.*'block2'.*block1"):
        run(network.apply, variables, until="block2")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding": "reflect"}, "padding must be one of neighbor, none, partial"),
        ({"layout": "HWC"}, "layout must be one of NHWC, NCHW"),
        ({"until": 3}, "until must be the name of a module"),
    ],
)
def test_options_that_are_none(options, message):
    with pytest.raises(ValueError, match=message):
        layer_mask(lambda p, x: x, **options)


def test_not_a_function():
    with pytest.raises(ValueError, match="function must be callable"):
        layer_mask(3)


@jax.custom_vjp
def clipped_gradient(x):
    return x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + 1)


clipped_gradient.defvjp(lambda x: (clipped_gradient(x), None), lambda _, dot: (dot * 0,))


@jax.custom_jvp
def of_channels(x):
    return x / (1 + jnp.abs(x).sum(-1, keepdims=True))


@of_channels.defjvp
def _(primals, tangents):
    return of_channels(*primals), tangents[0]


@jax.custom_jvp
def centred_gradient(x):
    return jnp.tanh(x)


@centred_gradient.defjvp
def _(primals, tangents):
    (dot,) = tangents
    return centred_gradient(*primals), dot - dot.mean(-1, keepdims=True)


@jax.custom_jvp
def repeated(x):
    return jax.lax.fori_loop(0, 3, lambda _, y: jnp.tanh(y) + x, x)


@repeated.defjvp
def _(primals, tangents):
    return repeated(*primals), tangents[0]


@pytest.mark.parametrize(
    ("function", "primitive"),
    [
        (clipped_gradient, "custom_vjp"),
        (of_channels, "custom_jvp"),
        (centred_gradient, "custom_jvp"),
        (repeated, "custom_jvp"),
    ],
)
def test_a_lost_derivative_is_a_warning(function, primitive):
    def network(p, x):
        return head(p, function(stem(p, x)))

    with pytest.warns(UserWarning, match=f"(?s)derivative.*{primitive}.*test_errors.py"):
        seen = layer_mask(network)(P, IMAGES, np.ones_like(MASKS))
    np.testing.assert_allclose(seen, network(P, IMAGES), rtol=1e-5)


def test_derivatives_that_jax_gives_its_own_functions_are_no_warning():
    with jax.softmax_custom_jvp(True):
        run(lambda p, x: head(p, jax.nn.softmax(stem(p, x))))
