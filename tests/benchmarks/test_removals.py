"""Small runs of `benchmarks.removals`."""

import numpy as np
import pytest

from benchmarks import removals
from lmjax.removals import make


@pytest.mark.usefixtures("small_networks")
def test_costs_are_printed_for_each_removal(capsys):
    removals.cost(("grey", "ring"), "small", variants=2, rounds=1, batch_size=2)
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [row.split("|")[1].strip() for row in rows[2:]] == ["grey", "ring"]


def test_the_direct_solution_is_harmonic():
    rng = np.random.default_rng(0)
    image, mask = rng.random((12, 15, 3)).astype(np.float32), rng.random((12, 15)) < 0.3
    expected = removals.direct(image, mask)
    np.testing.assert_allclose(make("harmonic").paint(image, mask[None])[0], expected, atol=1e-4)
