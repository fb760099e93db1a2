"""Random keys that are none are errors, wherever a key is asked for."""

import jax
import numpy as np
import pytest

import lmjax
from lmjax._utils.keys import check_key
from tests.support import public_calls

NO_KEYS = [
    (0, "got 0"),
    (None, "got None"),
    ("0", "got '0'"),
    (np.zeros(2), r"got float64 \(2,\)"),
    (np.zeros((2, 2), np.uint32), r"got uint32 \(2, 2\)"),
    (jax.random.split(jax.random.key(0), 2), r"must be one key, got \(2,\); take one: key\[0\]"),
]


@pytest.mark.parametrize(
    "key",
    [
        jax.random.key(3),
        jax.random.PRNGKey(3),
        np.zeros(2, np.uint32),
        jax.random.key(1, impl="rbg"),
    ],
    ids=["typed", "words", "array", "rbg"],
)
def test_keys_are_keys(key):
    assert check_key(key) is key
    assert lmjax.masks.random_keep(4, 3, key=key).shape == (3, 4)


@pytest.mark.parametrize(("key", "message"), NO_KEYS, ids=lambda value: str(value)[:12])
def test_anything_else_is_an_error(key, message):
    with pytest.raises(ValueError, match=f"key must be (a random|one) key.*{message}|{message}"):
        check_key(key)


ASKED = [
    *(("masks", name) for name in ("random_keep", "random_orders", "quasi_random", "shapley_keep")),
    *(("attribution", name) for name in ("lime", "rise", "smoothgrad", "meaningful_perturbation")),
    *(("metrics", name) for name in ("mu_fidelity", "sensitivity_n", "win_rates", "f_fidelity")),
    ("removals", "make(gaussian_noise)"),
]


@pytest.mark.parametrize(("module", "name"), ASKED)
@pytest.mark.filterwarnings("ignore:.*fewer than 10 a segment:UserWarning")
def test_functions_check_their_keys(module, name):
    call = public_calls.calls(module)[name]
    for key in (3, jax.random.split(jax.random.key(0), 2)):
        with pytest.raises(ValueError, match="key must be"):
            call(key=key)
