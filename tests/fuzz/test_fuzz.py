"""Inputs of strangers: `pytest -m fuzz -n 0`; a few of each kind in the ordinary suite.

Environment variables: LMJAX_FUZZ_INPUTS, how many in all (10,000 by default); LMJAX_FUZZ_SECONDS,
the most seconds of a kind (1200); LMJAX_FUZZ_SEED, of the inputs (0).
"""

import os

import numpy as np
import pytest

import lmjax
from tests.fuzz import arrays, checkpoints, commands, harness, pictures, records, tables

KINDS = {
    "arrays": arrays.attempt,
    "pictures": pictures.attempt,
    "checkpoints": checkpoints.attempt,
    "tables": tables.attempt,
    "commands": commands.attempt,
    "records": records.attempt,
}
# Shares of all inputs: kinds that compile or train have fewer.
SHARES = {
    "arrays": 0.40,
    "pictures": 0.20,
    "checkpoints": 0.15,
    "tables": 0.10,
    "commands": 0.08,
    "records": 0.07,
}
FEW = {"arrays": 12, "pictures": 40, "checkpoints": 20, "tables": 20, "commands": 10}


@pytest.fixture(autouse=True)
def _own_network_is_forgotten():
    yield
    if commands.NETWORK in lmjax.models.names():
        lmjax.models.registry._registry().unregister(commands.NETWORK)
        commands._weights.cache_clear()


def check(counts, record_property):
    record_property("fuzz", dict(counts.outcomes))
    shown = "\n\n".join(f"{each.kind} {each.number}: {each.text}" for each in counts.findings)
    assert not counts.findings, f"{len(counts.findings)} findings\n{shown}"


@pytest.mark.parametrize("kind", FEW)
def test_a_few_inputs(kind, tmp_path, record_property):
    counts = harness.run(kind, KINDS[kind], tmp_path, inputs=FEW[kind], seconds=60, seed=1)
    check(counts, record_property)


@pytest.mark.fuzz
@pytest.mark.parametrize("kind", KINDS)
def test_many_inputs(kind, tmp_path, record_property):
    total = int(os.environ.get("LMJAX_FUZZ_INPUTS", "10000"))
    seconds = float(os.environ.get("LMJAX_FUZZ_SECONDS", "1200"))
    seed = int(os.environ.get("LMJAX_FUZZ_SEED", "0"))
    limits = {"inputs": round(total * SHARES[kind]), "seconds": seconds, "seed": seed}
    with harness.memory_limit():
        counts = harness.run(kind, KINDS[kind], tmp_path, **limits)
    check(counts, record_property)


def test_shares_add_up():
    assert SHARES.keys() == KINDS.keys()
    assert sum(SHARES.values()) == pytest.approx(1)


def test_inputs_are_the_same_in_every_run(tmp_path):
    seen = []

    def attempt(rng, folder):
        seen.append(rng.integers(2**32, size=3).tolist())
        return "answer"

    for name, first in (("a", 0), ("b", 2)):
        (tmp_path / name).mkdir()
        harness.run("x", attempt, tmp_path / name, inputs=3, seconds=9, seed=5, first=first)
    assert seen[2] == seen[3]
    assert len({tuple(each) for each in seen}) == 5


def raising(error):
    def attempt(rng, folder):
        raise error

    return attempt


def own_error(rng, folder):
    lmjax.segments.grid(np.zeros((4, 4, 3)), size=0)


@pytest.mark.parametrize(
    ("attempt", "outcome"),
    [
        (own_error, "refused"),
        (lambda rng, folder: (folder / "none").read_text(), "refused"),
        (lambda rng, folder: "answer", "answer"),
        (raising(ValueError("not of lmjax")), "FINDING"),
        (raising(KeyError("x")), "FINDING"),
        (raising(harness.Hang()), "FINDING"),
    ],
)
def test_outcomes(attempt, outcome, tmp_path):
    counts = harness.run("x", attempt, tmp_path, inputs=1, seconds=9, seed=0)
    assert dict(counts.outcomes) == {outcome: 1}
    assert len(counts.findings) == (outcome == "FINDING")


def test_a_kind_ends_when_its_time_is_over(tmp_path):
    counts = harness.run("x", own_error, tmp_path, inputs=7, seconds=-1, seed=0)
    assert dict(counts.outcomes) == {"not reached": 7}
