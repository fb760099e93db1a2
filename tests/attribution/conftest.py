"""Programs that loop over hundreds of steps are compiled as for users: quick code would be slow."""

import importlib

import pytest

from tests.support.compilations import full_jit


@pytest.fixture(autouse=True, scope="session")
def _optimised_masks():
    with pytest.MonkeyPatch.context() as patch:
        for name in ("extremal_perturbation", "meaningful_perturbation"):
            module = importlib.import_module(f"lmjax.attribution.{name}")
            optimise = full_jit(module._optimise.__wrapped__, static_argnames="settings")
            patch.setattr(module, "_optimise", optimise)
        yield
