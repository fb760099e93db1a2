"""Ctrl-C and SIGTERM: commands stop soon, in one line, and what they finished is kept."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lmjax.cli.main import main

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
    return start(*STUDY, "--images", images, "--output", out)


def test_a_study_keeps_its_shards(tmp_path):
    """Here by SIGTERM; SIGINT begins the next test."""
    process = study(tmp_path, 500)
    wait_for(lambda: list(tmp_path.glob("rows-*/*.parquet")), process)
    status, error, seconds = interrupt(process, signal.SIGTERM)
    assert status == 143
    assert error.count(MESSAGE) == 1
    assert "Traceback" not in error
    assert seconds < 20  # 4 s and what a busy machine adds
    kept = sorted(tmp_path.glob("rows-*/*.parquet"))
    assert not list(tmp_path.glob("rows-*/.*"))
    before = {path: path.read_bytes() for path in kept}
    main([*STUDY, "--images", str(16 * len(kept)), "--output", str(tmp_path)])
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_after_all_is_done_changes_nothing(number):
    """Python takes a second to end; the command has succeeded by then."""
    code = "\n".join(
        (
            "import os, sys",
            "from lmjax.cli import main",
            "sys.argv = ['lmjax', 'models', '--help']",
            "main.main()",
            f"os.kill(os.getpid(), {int(number)})",
        )
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_signal_that_comes_too_late_to_stop_anything_does_not_end_the_process():
    code = "\n".join(
        (
            "import os, signal, time",
            "from lmjax.cli.interruption import interruptible",
            "with interruptible(last=True, grace=0.5):",
            "    os.kill(os.getpid(), signal.SIGTERM)",
            "    time.sleep(0.1)",
            "time.sleep(1)",
        )
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0
    assert ended.stderr.count(MESSAGE) == 1


@pytest.mark.parametrize("unsaved", [True, False])
def test_work_that_can_be_saved_is_waited_for(unsaved):
    code = "\n".join(
        (
            "import os, signal, time",
            "from lmjax._utils import interruption",
            "from lmjax.cli.interruption import interruptible",
            "with interruptible(last=True, grace=0.2):",
            f"    interruption.set_unsaved({unsaved})",
            "    os.kill(os.getpid(), signal.SIGTERM)",
            "    time.sleep(1)",
            "    print('saved')",
        )
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == ((0, "saved\n") if unsaved else (143, ""))


def train(out):
    numbers = {"--epochs": 1, "--images-per-epoch": 320, "--batch-size": 8, "--test-images": 8}
    numbers["--checkpoint-steps"] = 4
    options = [each for pair in numbers.items() for each in pair]
    return start("train", "digit-scenes", *options, "--output", out)


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


def explain(out):
    out.mkdir(exist_ok=True)
    settings = ("--method", "leave_one_out", "--removal", "layer", "grey", "--show-variants", "0")
    return start("explain", "scene:0", *settings, "--segmenter", "grid", "--output", out / "a.png")


def short_study(out):
    return study(out, 64)


def short_training(out):
    numbers = {"--epochs": 1, "--images-per-epoch": 96, "--batch-size": 8, "--test-images": 8}
    numbers["--checkpoint-steps"] = 2
    options = [each for pair in numbers.items() for each in pair]
    return start("train", "digit-scenes", *options, "--output", out)


# What is the same after any number of interruptions; the record of an explanation has times.
COMMANDS = {
    "explain": (explain, ("*.npz",)),
    "study": (short_study, ("rows-*/*.parquet", "rows.parquet", "*.csv")),
    "train": (short_training, ("*.safetensors",)),
}
MOMENTS = int(os.environ.get("LMJAX_MOMENTS", "40"))
# Of an interrupted command, at the most; a busy machine needs more.
SECONDS = float(os.environ.get("LMJAX_MOMENTS_SECONDS", "5"))


def catches(process, number):
    """Whether a process has a handler of its own for a signal, by what Linux says."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = re.search(r"SigCgt:\s*([0-9a-f]+)", status)
    return caught is not None and bool(int(caught[1], 16) >> (number - 1) & 1)


def results(out, patterns):
    paths = [path for pattern in patterns for path in sorted(out.glob(pattern))]
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux")
@pytest.mark.parametrize("command", COMMANDS)
def test_any_moment_will_do(command, tmp_path):
    """Interrupts at random moments, and goes on each time; the rest is as if nothing had been."""
    begin, patterns = COMMANDS[command]
    begun = time.monotonic()
    finish(begin(tmp_path / "whole"))
    length = time.monotonic() - begun
    expected = results(tmp_path / "whole", patterns)
    assert expected
    rng, interrupted, longest, round_of = random.Random(0), 0, 0.0, 0
    while interrupted < MOMENTS:
        out = tmp_path / str(round_of)
        process = begin(out)
        number = rng.choice([signal.SIGINT, signal.SIGTERM])
        wait_for(lambda process=process: catches(process, signal.SIGTERM), process)
        try:
            process.wait(rng.uniform(0, length))
        except subprocess.TimeoutExpired:
            status, error, seconds = interrupt(process, number)
            interrupted, longest = interrupted + 1, max(longest, seconds)
            assert status == 128 + number or status == 0, (status, error)
            if status:
                assert error.count(MESSAGE) == 1, error
            assert "Traceback" not in error
            if status:
                continue
        else:
            assert process.wait() == 0, process.communicate()
            process.communicate()
        assert results(out, patterns) == expected  # it came to its end
        round_of += 1
    finish(begin(tmp_path / str(round_of)))
    assert results(tmp_path / str(round_of), patterns) == expected
    assert longest < SECONDS
