"""`lmjax study --devices`: the CPU as several devices."""

import os
import subprocess
import sys

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest

from lmjax.cli import devices
from lmjax.cli.main import main

STUDY = ["study", "removal", "--removals", "layer", "grey", "--fractions", "0.5", "--images", "3"]
ENGINE = ["--engine", "dense", "--batch-size", "4"]


def run(folder, *arguments, env=None):
    command = [sys.executable, "-m", "lmjax", *STUDY, *ENGINE, "--output", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | (env or {}))


@pytest.mark.skipif(devices._cores() < 2, reason="needs two cores")
def test_a_study_divides_the_cpu_and_its_numbers_stay(tmp_path):
    main([*STUDY, *ENGINE, "--output", str(tmp_path / "one")])  # on the device of this process
    ended = run(tmp_path / "two", "--devices", "2")
    assert ended.returncode == 0, ended.stderr
    assert "divided" not in ended.stdout
    one, two = (pq.read_table(tmp_path / each / "rows.parquet") for each in ("one", "two"))
    assert one.equals(two)


def test_what_is_chosen_is_said(monkeypatch, capsys):
    chosen = {}
    monkeypatch.setattr(jax.config, "update", lambda name, value: chosen.update({name: value}))
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    for cores, expected in ((1, 1), (2, 2), (64, 8)):
        monkeypatch.setattr(devices, "_cores", lambda cores=cores: cores)
        assert devices.divide_cpu(None) is (cores > 1)
        assert chosen == {"jax_num_cpu_devices": expected}
    devices.tell(None, by_default=True)
    found = len(jax.local_devices())
    said = f"the CPU is divided into {found} devices for JAX; --devices says how many\n"
    assert capsys.readouterr().out == said
    chosen.clear()
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=3")
    assert not devices.divide_cpu(None)
    assert not chosen
    assert not devices.divide_cpu(5)
    assert chosen == {"jax_num_cpu_devices": 5}


def test_where_jax_runs_already_its_devices_are_those_there_are(capsys):
    assert np.isfinite(float(jax.numpy.ones(())))
    assert not devices.divide_cpu(None)
    devices.tell(None, by_default=False)
    assert capsys.readouterr().out == ""
    devices.tell(len(jax.local_devices()), by_default=False)
    message = "devices must be left out here, where JAX uses 1 of cpu"
    with pytest.raises(ValueError, match=message):
        devices.tell(7, by_default=False)


@pytest.mark.parametrize("number", ["0", "100000"])
def test_other_numbers_are_refused_in_a_line(number, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*STUDY, "--devices", number])
    assert "devices must be a whole number from 1 to" in str(ended.value)
    assert "\n" not in str(ended.value).strip()
