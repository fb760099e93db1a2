"""A small run of `benchmarks.transform`."""

import pytest

from benchmarks import transform


@pytest.mark.usefixtures("small_networks")
def test_traced_and_written_networks_are_compared(capsys, monkeypatch):
    small = transform.photograph(32)
    monkeypatch.setattr(transform, "photograph", lambda size: small)
    transform.main(("small",), variants=4, rounds=1)
    lines = [
        line.split("|") for line in capsys.readouterr().out.splitlines() if line.startswith("|")
    ]
    head, _, *rows = lines
    assert [row[2].strip() for row in rows] == transform.ENGINES
    error = [cell.strip() for cell in head].index("error")
    assert all(float(row[error]) < 1e-5 for row in rows)
