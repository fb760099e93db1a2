"""Images with different numbers of segments share their compiled programs.

Each program takes memory maps that are never given back, of which a process has 65,530.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lmjax
from tests.support.compilations import counted

IMAGE = np.random.default_rng(0).random((32, 32, 3)).astype(np.float32)
WEIGHTS = jnp.asarray(np.random.default_rng(1).normal(size=(32 * 32 * 3, 4)), jnp.float32)
SEGMENTED = {
    "lime": {"key": jax.random.key(0), "num_samples": 256},
    "kernelshap": {"key": jax.random.key(0), "num_samples": 256},
    "banzhaf": {"key": jax.random.key(0)},
    "interactions": {"key": jax.random.key(0), "num_samples": 1700},
    "permutation_shapley": {"key": jax.random.key(0), "num_permutations": 9},
    "leave_one_out": {},
    "leave_one_in": {},
}


def network(image, masks):
    return (image[None] * masks[..., None]).reshape(len(masks), -1) @ WEIGHTS


def stripes(count):
    return np.arange(32 * 32).reshape(32, 32) * count // (32 * 32)


@pytest.mark.filterwarnings("ignore:256 samples")
@pytest.mark.parametrize("name", SEGMENTED)
def test_another_number_of_segments_compiles_nothing(name):
    def explain(count):
        method = getattr(lmjax.attribution, name)
        return method(network, IMAGE, stripes(count), **SEGMENTED[name])

    explain(20)
    with counted() as compiled:
        for count in (23, 26, 29):
            assert explain(count).scores.shape == (count,)
    assert compiled == []
