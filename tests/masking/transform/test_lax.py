"""Every function of `jax.lax` on a masked image: the identities hold, or it is a clear error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from lmjax.masking import LayerMaskError, layer_mask
from lmjax.masking.transform.plain import ELEMENTWISE
from tests.support.compilations import quick_jit
from tests.support.masked_functions import hidden_as

N, H, W, C = SHAPE = (4, 4, 6, 4)
EVERYTHING, NOTHING = 2, 3
MASKS = np.random.default_rng(0).random(SHAPE[:3]) < 0.5
MASKS[EVERYTHING], MASKS[NOTHING] = True, False
IMAGES = np.random.default_rng(1).uniform(0.2, 0.8, SHAPE).astype(np.float32)
HIDDEN = hidden_as(np.nan, IMAGES, MASKS)
KERNEL = np.random.default_rng(2).normal(size=(3, 3, C, C)).astype(np.float32)
MATRIX = np.random.default_rng(3).normal(size=(C, C)).astype(np.float32)
NHWC = ("NHWC", "HWIO", "NHWC")
INDEX = np.array([[0], [2]])
TAKEN = lax.GatherDimensionNumbers((0, 1, 2), (3,), (3,))
PUT = lax.ScatterDimensionNumbers((0, 1, 2), (3,), (3,))

# Ways to call a function of an image `[N, H, W, C]`.
CALLS = {
    "f(x)": lambda f, x: f(x),
    "f(x, x)": lambda f, x: f(x, x),
    "f(x, number)": lambda f, x: f(x, jnp.float32(2)),
    "f(x, x, x)": lambda f, x: f(x, x, x),
    "f(0, x, 1)": lambda f, x: f(jnp.float32(0), x, jnp.float32(1)),
    "f(x > 0, x, x)": lambda f, x: f(x > 0.5, x, x),
    "f(x > 0)": lambda f, x: f(x > 0.5),
    "f(x > 0, x > 0)": lambda f, x: f(x > 0.5, x > 0.3),
    "f(whole)": lambda f, x: f((x * 9).astype(jnp.int32)),
    "f(whole, whole)": lambda f, x: f((x * 9).astype(jnp.int32), (x * 7).astype(jnp.int32)),
    "f(x, 2)": lambda f, x: f(x, 2),
    "f(x, channels)": lambda f, x: f(x, 3),
    "f(x, rows)": lambda f, x: f(x, 1),
    "f(x, batch)": lambda f, x: f(x, 0),
    "f(x, axis=channels)": lambda f, x: f(x, axis=3),
    "f(x, axis=rows)": lambda f, x: f(x, axis=1),
    "f(x, channels, type)": lambda f, x: f(x, 3, jnp.int32),
    "f(x, rows, type)": lambda f, x: f(x, 1, jnp.int32),
    "f(x, (channels,))": lambda f, x: f(x, (3,)),
    "f(x, (rows, columns))": lambda f, x: f(x, (1, 2)),
    "f(x, (batch,))": lambda f, x: f(x, (0,)),
    "f(x, axes)": lambda f, x: f(x, (0, 2, 1, 3)),
    "f(x, merged)": lambda f, x: f(x, (N, H * W, C)),
    "f(x, shape)": lambda f, x: f(x, (N, H, W, C)),
    "f(x, longer)": lambda f, x: f(x, (2, N, H, W, C), (1, 2, 3, 4)),
    "f(x, sizes)": lambda f, x: f(x, (2,)),
    "f(x, type)": lambda f, x: f(x, jnp.float16),
    "f(x, as int)": lambda f, x: f(x, jnp.int32),
    "f([x, x], channels)": lambda f, x: f([x, x], 3),
    "f([x, x], rows)": lambda f, x: f([x, x], 1),
    "f([x, x], batch)": lambda f, x: f([x, x], 0),
    "pad": lambda f, x: f(x, jnp.float32(0), ((0, 0, 0), (1, 1, 0), (1, 2, 0), (0, 0, 0))),
    "pad between": lambda f, x: f(x, jnp.float32(0), ((0, 0, 0), (0, 0, 1), (0, 0, 0), (0, 0, 0))),
    "slice channels": lambda f, x: f(x, (0, 0, 0, 1), (N, H, W, 3)),
    "slice rows": lambda f, x: f(x, (0, 1, 0, 0), (N, 3, W, C)),
    "slice a batch": lambda f, x: f(x, (1, 0, 0, 0), (2, H, W, C)),
    "slice in dim": lambda f, x: f(x, 1, 3, 1, 2),
    "dynamic": lambda f, x: f(x, (0, 1, 0, 0), (N, 2, W, C)),
    "dynamic in dim": lambda f, x: f(x, 1, 2, 1),
    "update": lambda f, x: f(x, x[:, :1], (0, 1, 0, 0)),
    "update in dim": lambda f, x: f(x, x[:, :1], 1, 1),
    "split channels": lambda f, x: f(x, (1, 3), 3),
    "split rows": lambda f, x: f(x, (1, 3), 1),
    "window": lambda f, x: f(x, (1, 2, 2, 1), (1, 1, 1, 1), "SAME"),
    "reduce window": lambda f, x: f(x, -np.inf, lax.max, (1, 2, 2, 1), (1, 1, 1, 1), "VALID"),
    "reduce window by product": lambda f, x: f(
        x, 1.0, lax.mul, (1, 2, 2, 1), (1, 1, 1, 1), "VALID"
    ),
    "reduce": lambda f, x: f(x, np.float32(0), lax.add, (1, 2)),
    "reduce by product": lambda f, x: f(x, np.float32(1), lax.mul, (1, 2)),
    "reduce by a function": lambda f, x: f(x, np.float32(0), lambda a, b: a + 2 * b, (1, 2)),
    "convolution": lambda f, x: f(x, KERNEL, (1, 1), "SAME", dimension_numbers=NHWC),
    "convolution, strides": lambda f, x: f(x, KERNEL, (2, 2), "SAME", dimension_numbers=NHWC),
    "convolution of patches": lambda f, x: f(x, (3, 3), (1, 1), "SAME", dimension_numbers=NHWC),
    "convolution, local": lambda f, x: f(
        x, jnp.ones((H, W, 9 * C, 2)), (1, 1), "SAME", (3, 3), dimension_numbers=NHWC
    ),
    "transposed": lambda f, x: f(x, KERNEL, (2, 2), "SAME", dimension_numbers=NHWC),
    "product": lambda f, x: f(x, MATRIX, (((3,), (0,)), ((), ()))),
    "batched product": lambda f, x: f(x, x, (((3,), (3,)), ((0,), (0,)))),
    "product over batch": lambda f, x: f(x, x, (((0,), (0,)), ((), ()))),
    "batched matmul": lambda f, x: f(x, jnp.swapaxes(x, 2, 3)),
    "gather": lambda f, x: f(x, INDEX, TAKEN, (N, H, W, 1)),
    "scatter": lambda f, x: f(x, INDEX, x[..., :2], PUT),
    "sorted keys": lambda f, x: f([x[..., 0], x[..., 1]], dimension=2),
    "clip": lambda f, x: f(0.3, x, 0.6),
    "cond": lambda f, x: f(True, jnp.sin, jnp.cos, x),
    "cond by x": lambda f, x: f(x[0, 0, 0, 0] > 0, jnp.sin, jnp.cos, x),
    "map": lambda f, x: f(lambda row: row * 2, x),
    "scan": lambda f, x: f(lambda c, k: (c * k, k), x, jnp.arange(3.0)),
    "scan over x": lambda f, x: f(lambda c, k: (c + k, k), jnp.zeros(SHAPE[1:]), x),
    "associative": lambda f, x: f(jnp.add, x, axis=1),
    "loop": lambda f, x: f(0, 3, lambda i, y: y * i, x),
    "while": lambda f, x: f(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * 2), (0, x)),
    "while by x": lambda f, x: f(lambda y: y.sum() < 9, lambda y: y * 2, x),
    "linear solve": lambda f, x: f(lambda y: 2 * y, x, lambda _, b: b / 2, lambda _, b: b / 2),
    "root": lambda f, x: f(
        lambda y: y - x, x, lambda g, y: y - g(y), lambda g, y: y / g(jnp.ones_like(y))
    ),
    "named": lambda f, x: f(x, "name"),
    "precision": lambda f, x: f(x, 5, 7),
    "composite": lambda f, x: f(lambda y: y * 2, name="my.op")(x),
    "platforms": lambda f, x: f(x, cpu=jnp.sin, default=lambda x: jnp.sin(x)),
}
FUNCTIONS = sorted(
    name
    for name, f in vars(lax).items()
    if callable(f) and not name.startswith("_") and not isinstance(f, type)
)


def calls_of(function):
    """The calls that JAX accepts, and that give arrays of numbers made from the image."""
    for call in CALLS.values():

        def run(_, x, call=call):
            leaves = jax.tree.leaves(call(function, x))
            return [y.astype(jnp.float32) if y.dtype == bool else y for y in leaves]

        try:
            closed = jax.make_jaxpr(run)((), jnp.asarray(IMAGES))
        except Exception:
            continue
        if closed.eqns and not any(
            jnp.issubdtype(v.dtype, jax.dtypes.extended) for v in closed.out_avals
        ):
            yield run
        if {equation.primitive.name for equation in closed.eqns} <= ELEMENTWISE:
            return  # other calls of it are elementwise too


def goes_through(function):
    """Whether a function can be masked; if not, its error says so."""
    try:
        jax.eval_shape(layer_mask(function), (), IMAGES, MASKS)
    except LayerMaskError as error:
        if "layer_mask cannot go through" not in str(error):
            raise
        return False
    except Exception:
        if has_a_program(function):
            raise
        return False
    return True


def has_a_program(function):
    """Some functions are traced, but run on no CPU."""
    try:
        quick_jit(function).trace((), IMAGES).lower().compile()
    except Exception:
        return False
    return True


def program_of(functions):
    """One program of all functions: what they give, and what they give under masks."""
    pairs = [(function, layer_mask(function)) for function in functions]

    @quick_jit
    def run(images, hidden):
        return [(own((), images), masked((), hidden, MASKS)) for own, masked in pairs]

    return run.trace(IMAGES, IMAGES).lower().compile()


def check(functions):
    """Returns how many can run; what runs keeps the identities."""
    functions = [function for function in functions if goes_through(function)]
    try:
        run = program_of(functions)
    except Exception:
        functions = [function for function in functions if has_a_program(function)]
        run = program_of(functions)
    with_nan, with_images = run(IMAGES, HIDDEN), run(IMAGES, IMAGES)
    for (plain, results), (_, others) in zip(with_nan, with_images):
        for y, other, own in zip(results, others, plain):
            np.testing.assert_array_equal(y, other)
            assert y.shape == own.shape
            assert y.dtype == own.dtype
            if 0 < y.ndim < 6 and len(y) == N:
                np.testing.assert_allclose(y[EVERYTHING], own[EVERYTHING], rtol=1e-5, atol=1e-6)
    return len(functions)


NEEDED = {  # by networks
    *("add", "exp", "max", "dot_general", "conv_general_dilated", "reduce_window", "concatenate"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_keeps_the_identities_or_is_an_error(name):
    number = check(calls_of(getattr(lax, name)))
    assert number or name not in NEEDED


def test_what_networks_need_is_there():
    assert set(FUNCTIONS) >= NEEDED
