"""Two processes that share each batch; one is killed, and both start again."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from lmjax.training import read_metrics
from tests.cluster import ROOT, free_port, start, wait_for
from tests.training import a_run, one_mesh

MODULE = one_mesh.__name__
WEIGHTS = "resnet18_digits.safetensors"


def two(out, *images):
    """The processes, the second of which may stall."""
    port = free_port()
    return start(MODULE, port, 0, out), start(MODULE, port, 1, out, *images)


def finish(processes):
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs


def metrics(out):
    return read_metrics(out).drop_columns(["seconds"]).to_pylist()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    finish(two(out))
    return out


def test_two_processes_train_as_two_devices_of_one(uninterrupted, tmp_path):
    flags = "--xla_force_host_platform_device_count=4"  # of which the run takes two
    subprocess.run(
        [sys.executable, a_run.__file__, tmp_path, "3", "2"],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        cwd=ROOT,
        check=True,
    )
    losses, expected = (read_metrics(each)["loss"].to_numpy() for each in (uninterrupted, tmp_path))
    np.testing.assert_allclose(losses[:8], expected[:8], rtol=1e-4)
    np.testing.assert_allclose(losses, expected, rtol=2e-2)  # rounding grows from step to step
    tested = [row["test_accuracy"] for row in metrics(uninterrupted)]
    assert [i for i, accuracy in enumerate(tested, 1) if accuracy is not None] == [8, 16, 24]


def test_a_process_is_killed_and_the_training_goes_on(uninterrupted, tmp_path):
    first, second = two(tmp_path, 4 * 11)  # half of each batch of 8: stalls at the twelfth
    try:
        wait_for(lambda: (tmp_path / "checkpoints" / "00000009").exists(), first, second)
        second.send_signal(signal.SIGKILL)
        first.communicate(timeout=240)
    finally:
        for process in (first, second):
            process.kill()
            process.communicate()
    assert first.returncode not in (0, -signal.SIGKILL), "it notices that the other has died"
    assert not (tmp_path / WEIGHTS).exists()
    assert len(metrics(tmp_path)) == 9

    finish(two(tmp_path))
    assert metrics(tmp_path) == metrics(uninterrupted)
    assert (tmp_path / WEIGHTS).read_bytes() == (uninterrupted / WEIGHTS).read_bytes()
