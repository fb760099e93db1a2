"""The command line in processes of its own: start-up, errors in one line, exit codes."""

import re
import subprocess
import sys

import pytest

from lmjax import removals
from lmjax.attribution.methods import METHODS

LMJAX = [sys.executable, "-c", "from lmjax.cli.main import main; main()"]


def run(*arguments, cwd=None):
    return subprocess.run(
        [*LMJAX, *arguments], capture_output=True, text=True, cwd=cwd, stdin=subprocess.DEVNULL
    )


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from lmjax.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'jax', 'flax', 'torch', 'numpy', 'skimage', 'sklearn', 'matplotlib'}\n"
        "print('loaded:', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "explain" in done.stdout
    assert "loaded: []" in done.stdout


@pytest.mark.parametrize(
    "command", [["explain"], ["train", "network"], ["train", "digit-scenes"], ["convert"]]
)
def test_every_command_has_help(command):
    done = run(*command, "--help")
    assert done.returncode == 0
    assert "usage: lmjax" in done.stdout


def test_help_names_all_methods_and_removals():
    done = run("explain", "--help")
    described = done.stdout.split("--method")[1].split("--model")[0]
    assert set(METHODS) <= set(re.findall(r"\w+", described))
    described = done.stdout.split("--removal")[1].split("--metrics")[0]
    assert set(removals.names()) <= set(re.findall(r"\w+", described))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["explain", "nowhere.png"], "nowhere.png"),
        (["explain", "--target", "11"], "target"),
        (["explain", "--method", "lime", "shap"], "kernelshap"),
        (["explain", "--model", "resnet18", "--weights", "x.pth"], "x.pth"),
        (["convert", "x.pth", "x.safetensors"], "x.pth"),
        (["train", "digit-scenes", "--epochs", "0"], "epochs"),
        (["train", "network", "resnet17", "--source", "digit-scenes"], "resnet18"),
    ],
)
def test_bad_input_is_one_line_without_a_traceback(arguments, message, tmp_path):
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("lmjax: error: ")
    assert message in line
    assert not list(tmp_path.iterdir())


def test_unknown_options_are_refused():
    done = run("explain", "--removl", "layer")
    assert done.returncode == 2
    assert "--removal" in done.stderr + done.stdout


def test_models_lists_networks_and_tags():
    done = run("models", "--tags")
    line = next(line for line in done.stdout.splitlines() if line.startswith("resnet50 "))
    assert line.split()[:4] == ["resnet50", "25,557,032", "224", "x"]
    assert line.endswith("dense, visible, shared")
    assert "\n  torchvision/resnet50.IMAGENET1K_V2\n" in done.stdout


def test_explain_prints_a_table(tmp_path):
    done = run("explain", "--samples", "50", "--removal", "black", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "black" in done.stdout
    assert "lmjax: warning: 50 samples" in done.stderr
    names = ["explanation.json", "explanation.npz", "explanation.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
