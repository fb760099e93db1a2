import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax._utils.summary import brief, summarize


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, "3"),
        (np.int64(3), "3"),
        (0.123456, "0.1235"),
        (np.float32(0.5), "0.5"),
        (jnp.float32(0.25), "0.25"),
        ((4, 2), "(4, 2)"),
        (tuple(range(5)), "(0, 1, 2, ... 5 in all)"),
        (np.array([[1.5, -2]]), "float64[1, 2] from -2 to 1.5"),
        (jnp.arange(3), "int32[3] from 0 to 2"),
        (np.array([True, False]), "bool[2] from 0 to 1"),
        (np.zeros((0, 2)), "float64[0, 2]"),
        (None, "None"),
    ],
)
def test_values_in_a_few_words(value, expected):
    assert summarize(value) == expected


class Long:
    def __repr__(self):
        return 300 * "x"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("grey", "'grey'"),
        (np.float32([0, 1, 0.5]), "[0.0, 1.0, 0.5]"),
        (jnp.zeros((4, 5)), "float32[4, 5] from 0 to 0"),
        (jax.random.key(0), "key<fry>[]"),
        (test_values_in_a_few_words, "test_values_in_a_few_words"),
        (Long(), 97 * "x" + "..."),
    ],
)
def test_settings_in_a_few_words(value, expected):
    assert brief(value) == expected


def test_tracers_in_a_few_words():
    texts = []
    jax.jit(lambda x: texts.extend([brief(x), summarize(x)]))(jnp.zeros(3))
    assert all("Tracer" in text and len(text) <= 100 for text in texts)
