"""Settings of the whole suite: silent broadcasting across ranks is an error, as are warnings."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="session")
def _strict_jax():
    jax.config.update("jax_numpy_rank_promotion", "raise")
