"""Cores that a process may use, and processes that were forked after JAX had started."""

import subprocess
import sys

from lmjax._utils import processes

PROGRAM = """
import os
import numpy as np
import lmjax

def evaluate():
    image, masks = np.zeros((4, 4, 3), np.float32), np.ones((2, 4, 4), bool)
    return lmjax.evaluate(lambda image, masks: masks.sum((1, 2))[:, None] * 1.0, image, masks)

{first}
child = os.fork()
if child == 0:
    try:
        print("answers", evaluate().shape, flush=True)
    except RuntimeError as error:
        print("refused:", error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


def run(first):
    program = [sys.executable, "-W", "ignore", "-c", PROGRAM.format(first=first)]
    return subprocess.run(program, capture_output=True, text=True, timeout=120, check=True).stdout


def test_a_process_forked_after_an_evaluation_says_so():
    """It would hang."""
    assert "refused: this process was forked after JAX had started" in run("evaluate()")


def test_a_process_forked_before_evaluates():
    assert "answers (2, 1)" in run("")


def test_a_containers_quota_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(processes, "_QUOTA", tmp_path / "cpu.max")
    cores = processes.usable_cores()
    for text, expected in (("max 100000\n", cores), ("50000 100000\n", 1), ("900000000 1", cores)):
        (tmp_path / "cpu.max").write_text(text)
        assert processes.usable_cores() == expected
