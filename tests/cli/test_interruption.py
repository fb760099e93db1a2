"""Ctrl-C and SIGTERM: commands stop soon, in one line, and what they finished is kept."""

import os
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest

MESSAGE = "lmjax: interrupted; what is finished is kept (once more ends at once)"


def start(*arguments):
    command = [sys.executable, "-m", "lmjax", *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def finish(process):
    error = process.communicate(timeout=600)[1]
    assert process.returncode == 0, error


def interrupt(process, number):
    """Sends a signal; returns the exit status, the lines on standard error, and the seconds."""
    begun = time.monotonic()
    process.send_signal(number)
    error = process.communicate(timeout=90)[1]
    return process.returncode, error, time.monotonic() - begun


def wait_for(there, process):
    while not there():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


STUDY = ("study", "removal", "--orders", "random", "--removals", "black", "--fractions", "0", "0.5")


def study(out, images):
    return start(*STUDY, "--images", images, "--out", out)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_study_keeps_its_shards(tmp_path, number):
    process = study(tmp_path, 500)
    wait_for(lambda: list(tmp_path.glob("rows-*/*.parquet")), process)
    status, error, seconds = interrupt(process, number)
    assert status == 128 + number
    assert error.count(MESSAGE) == 1
    assert "Traceback" not in error
    assert seconds < 20  # 4 s and what a busy machine adds
    kept = sorted(tmp_path.glob("rows-*/*.parquet"))
    assert not list(tmp_path.glob("rows-*/.*"))
    before = {path: path.read_bytes() for path in kept}
    finish(study(tmp_path, 16 * len(kept)))
    assert {path: path.read_bytes() for path in kept} == before
    assert pq.read_table(tmp_path / "rows.parquet").num_rows == 2 * 16 * len(kept)


def test_a_second_interrupt_ends_at_once(tmp_path):
    process = study(tmp_path, 500)
    wait_for((tmp_path / "manifest.json").exists, process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode in (130, 143)


def train(out):
    numbers = {"--epochs": 1, "--images-per-epoch": 320, "--batch-size": 8, "--test-images": 8}
    numbers["--checkpoint-steps"] = 4
    options = [each for pair in numbers.items() for each in pair]
    return start("train", "digit-scenes", *options, "--out", out)


@pytest.mark.slow
def test_a_training_writes_a_checkpoint_and_goes_on(tmp_path):
    finish(train(tmp_path / "whole"))
    parts = tmp_path / "parts"
    process = train(parts)
    wait_for(lambda: list(parts.glob("checkpoints/[0-9]*")), process)
    status, error, _ = interrupt(process, signal.SIGINT)
    assert status == 130
    assert error.count(MESSAGE) == 1
    assert os.listdir(parts / "checkpoints")
    finish(train(parts))
    names = [next((tmp_path / each).glob("*.safetensors")) for each in ("whole", "parts")]
    assert names[0].read_bytes() == names[1].read_bytes()
