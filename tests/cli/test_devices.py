"""`lmjax study --devices`: the CPU as several devices."""

import subprocess
import sys
from pathlib import Path

import jax
import pyarrow.parquet as pq
import pytest

from lmjax._utils.processes import usable_cores
from lmjax.cli import devices
from lmjax.cli.main import main
from tests.support import small_digits

ROOT = Path(__file__).parents[2]
STUDY = ["study", "removal", "--removals", "layer", "grey", "--fractions", "0.5", "--images", "3"]
ENGINE = ["--engine", "dense", "--batch-size", "4"]


def run(folder, *arguments):
    network = folder.parent / "network"
    network.mkdir()
    command = [sys.executable, "-m", "tests.support.small_command", network, *STUDY, *ENGINE]
    command += ["--output", folder, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


@pytest.mark.skipif(usable_cores() < 2, reason="needs two cores")
def test_a_study_divides_the_cpu_and_its_numbers_stay(tmp_path, monkeypatch):
    small_digits.replace(monkeypatch, tmp_path)
    main([*STUDY, *ENGINE, "--output", str(tmp_path / "one")])  # on the device of this process
    ended = run(tmp_path / "two", "--devices", "2")
    assert ended.returncode == 0, ended.stderr
    assert "divided" not in ended.stdout
    one, two = (pq.read_table(tmp_path / each / "rows.parquet") for each in ("one", "two"))
    assert one.equals(two)


def test_there_is_a_device_for_each_core_unless_something_else_is_said(monkeypatch):
    chosen = {}
    monkeypatch.setattr(jax.config, "update", lambda name, value: chosen.update({name: value}))
    monkeypatch.setattr(devices, "_configured", lambda: -1)
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    for cores, expected in ((1, 1), (2, 2), (64, 8)):
        monkeypatch.setattr(devices, "usable_cores", lambda cores=cores: cores)
        assert devices.divide_cpu(None) is (cores > 1)
        assert chosen == {"jax_num_cpu_devices": expected}
    assert not devices.divide_cpu(5)
    assert chosen == {"jax_num_cpu_devices": 5}
    chosen.clear()
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=3")
    assert not devices.divide_cpu(None)
    monkeypatch.delenv("XLA_FLAGS")
    monkeypatch.setattr(devices, "_configured", lambda: 3)  # JAX_NUM_CPU_DEVICES=3
    assert not devices.divide_cpu(None)
    assert not chosen


def test_where_jax_runs_already_its_devices_are_those_there_are(monkeypatch):
    found = len(jax.local_devices())
    assert not devices.divide_cpu(None)
    devices.check_devices(None)
    devices.check_devices(found)
    with pytest.raises(ValueError, match=f"devices must be {found}, as JAX has .* got 7"):
        devices.check_devices(7)
    said = f"the CPU is divided into {found} devices for JAX; --devices says how many"
    assert devices.describe_devices() == said
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(ValueError, match="JAX runs on gpu here; leave it out"):
        devices.check_devices(1)
    assert not devices.describe_devices()


@pytest.mark.parametrize("number", ["0", "100000"])
def test_other_numbers_are_refused_in_a_line(number, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*STUDY, "--devices", number])
    assert "devices must be a whole number from 1 to" in str(ended.value)
    assert "\n" not in str(ended.value).strip()
