"""Masks that are optimised in hundreds of steps are compiled to run fast: quick code is slow."""

import importlib

import pytest

from tests.support.compilations import loop_jit


@pytest.fixture(autouse=True, scope="session")
def _optimised_masks():
    with pytest.MonkeyPatch.context() as patch:
        for name in ("extremal_perturbation", "meaningful_perturbation"):
            module = importlib.import_module(f"lmjax.attribution.{name}")
            patch.setattr(module, "_optimise", _by_steps(module._optimise))
        yield


def _by_steps(optimise):
    of_many = loop_jit(optimise.__wrapped__, static_argnames="settings")

    def run(*arrays, settings):
        return (of_many if settings.iterations > 50 else optimise)(*arrays, settings=settings)

    return run
