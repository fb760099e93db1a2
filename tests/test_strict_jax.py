"""Every public function runs under JAX's strict promotion of types and its checker of leaks."""

import gc
import importlib.util

import jax
import pytest

from tests.support import public_calls

OPENCV = {"make(telea)", "make(navier_stokes)"}


def calls_of(module):
    calls = dict(public_calls.calls(module))
    if importlib.util.find_spec("cv2") is None:
        calls = {name: call for name, call in calls.items() if name not in OPENCV}
    return calls


@pytest.mark.parametrize("module", public_calls.MODULES)
def test_every_public_function_has_an_example(module):
    public = public_calls.public(public_calls.MODULES[module][0])
    assert public - public_calls.NOT_CALLED <= public_calls.calls(module).keys()


@pytest.mark.parametrize("module", public_calls.MODULES)
@pytest.mark.filterwarnings("ignore:.*fewer than 10 a segment:UserWarning")
def test_public_functions_run_under_strict_settings(module):
    for name, call in calls_of(module).items():
        gc.freeze()  # the checker of leaks collects after every trace
        try:
            with jax.numpy_dtype_promotion("strict"), jax.checking_leaks():
                jax.block_until_ready(call())
        except Exception as error:
            raise AssertionError(f"{module}.{name}: {error}") from error


def test_the_settings_find_what_they_are_for():
    def mixes(x):
        return x + jax.numpy.arange(3)

    with jax.numpy_dtype_promotion("strict"), pytest.raises(Exception, match="promotion"):
        mixes(jax.numpy.ones(3))
    kept = []
    with jax.checking_leaks(), pytest.raises(Exception, match="Leaked"):
        jax.eval_shape(lambda x: kept.append(x * 2), 1.0)
