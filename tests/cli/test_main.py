"""The command line: start-up, help, errors in one line, exit codes, modules of one's own."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import lmjax
from lmjax.attribution import methods
from lmjax.cli.main import COMMANDS, main, take_imports
from lmjax.explanation import ExplanationConfig, Failure
from lmjax.explanation.result import Written
from lmjax.models import registry


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from lmjax.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'jax', 'flax', 'torch', 'numpy', 'skimage', 'sklearn', 'matplotlib'}\n"
        "print('loaded:', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    for name in COMMANDS:
        assert name in done.stdout
    assert "--import MODULE" in done.stdout
    assert "loaded: []" in done.stdout


@pytest.mark.parametrize(
    "command",
    [
        *(["explain"], ["convert"], ["models"], ["data", "list"], ["data", "wordnet"]),
        ["data", "cutout-scenes"],
        *(["train", "network"], ["train", "digit-scenes"], ["study", "report"], ["study"]),
    ],
)
def test_every_command_has_help(run, command):
    status, out, _ = run(*command, "--help")
    assert status == 0
    assert f"usage: lmjax {' '.join(command)}" in out
    assert "`lmjax.data" not in out  # names are listed in its place


@pytest.fixture
def help_of(run):
    """The help of an option of `lmjax explain`, from its name to the next option."""
    _, out, _ = run("explain", "--help")
    text = re.sub(r"[│\s]+", " ", out)
    return lambda option: text.split(f" {option} ")[1].split(" --")[0]


def test_help_names_all_that_is_registered(help_of):
    for option, names in (
        ("--method", methods.names()),
        ("--removal", lmjax.removals.names()),
        ("--segmenter", lmjax.segments.names()),
    ):
        assert set(names) <= set(re.findall(r"\w+", help_of(option))), option


def test_options_show_what_they_take(help_of):
    assert help_of("--num-samples").startswith("INT ")
    assert help_of("--target").startswith("INT|STR ")
    assert help_of("--removal").startswith("[STR [STR ...]] ")
    assert help_of("--model").startswith("STR ")
    assert help_of("--engine").startswith("{auto,dense,visible,shared} ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["explain", "nowhere.png"], "nowhere.png"),
        (["explain", "--model", "resnet18_digits", "--target", "11"], "target"),
        (["explain", "--method", "lime", "shap"], "kernelshap"),
        (["explain", "a.jpg", "b.jpg", "--model", "resnet18_digits", "--top-k", "11"], "top_k"),
        (["explain", "--top-k", "2", "--target", "cat"], "leave one of them out"),
        (["explain", "--model", "resnet18", "--weights", "x.pth"], "x.pth"),
        (["explain", "--batch-size", "0"], "batch_size must be a whole number, 1 or more"),
        (["convert", "x.pth", "x.safetensors"], "x.pth"),
        (["train", "digit-scenes", "--epochs", "0"], "epochs"),
        (["train", "network", "resnet17", "--source", "digit-scenes"], "resnet18"),
        (["data", "cutout-scenes", "--stamps", "none"], "apt-get install tuxpaint-stamps-default"),
        (["bench"], "bench is gone; use python -m benchmarks"),
        (["--import"], "--import needs the name of a module"),
        (["explain", "--import", "no.such"], "--import no.such failed: ModuleNotFoundError"),
    ],
)
def test_bad_input_is_one_line_without_a_traceback(run, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(*arguments)
    assert (status, out) == (1, "")
    (line,) = err.strip().splitlines()
    assert line.startswith("lmjax: error: ")
    assert message in line
    assert not list(tmp_path.iterdir())


def test_unknown_options_are_refused(run):
    status, out, err = run("explain", "--removl", "layer")
    assert status == 2
    assert "--removal" in out + err


def test_warnings_are_one_line(run, monkeypatch):
    import warnings

    def explain(*_, **__):
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.warn("few\nsamples", stacklevel=1)
        raise KeyboardInterrupt

    monkeypatch.setattr(lmjax, "explain", explain, raising=False)
    assert run("explain") == (130, "", "lmjax: warning: few samples\n")


def test_commands_give_explain_what_was_asked_for(run, monkeypatch):
    asked = []

    def explain(image, *, config, output):
        asked.append((image, config, output))
        raise ValueError("enough")

    monkeypatch.setattr(lmjax, "explain", explain, raising=False)
    run("explain")
    options = ("--method", "rise", "lime", "--target", "cat", "--engine", "dense", "--metrics")
    run("explain", "a.jpg", *options, "--removal", "grey", "--output", "b.svg")
    settings = {"method": ("rise", "lime"), "target": "cat", "engine": "dense", "metrics": True}
    expected = [
        (None, ExplanationConfig(), "explanation.png"),
        ("a.jpg", ExplanationConfig(**settings, removal=("grey",)), "b.svg"),
    ]
    assert [(image, vars(config), str(output)) for image, config, output in asked] == [
        (image, vars(config), output) for image, config, output in expected
    ]
    assert all(isinstance(config, ExplanationConfig) for _, config, _ in asked)


def test_several_images_go_to_explain_together(run, monkeypatch):
    asked = []

    def explain(images, *, config, output):
        asked.append((images, config.top_k, config.crop, str(output)))
        return Written("table", (Path("a.png"),), (Failure("b.jpg", OSError("damaged")),))

    monkeypatch.setattr("lmjax.cli.explain.explain_into_files", explain)
    status, out, err = run("explain", "a.jpg", "b.jpg", "--top-k", "3", "--no-crop")
    assert asked == [(("a.jpg", "b.jpg"), 3, False, "explanations")]
    assert (status, err) == (1, "lmjax: error: 1 of 2 images left out: b.jpg\n")
    assert out == "table\n\nwrote a.png\n"  # of those that are there
    run("explain", "a.jpg", "b.jpg", "--output", "run.pdf")
    assert asked[1][3] == "run.pdf"


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("RESOURCE_EXHAUSTED: much")])
def test_out_of_memory_says_what_helps(run, monkeypatch, error):
    def explain(*_, **__):
        raise error

    monkeypatch.setattr(lmjax, "explain", explain, raising=False)
    message = "lmjax: error: out of memory; use a smaller --batch-size or fewer segments\n"
    assert run("explain") == (1, "", message)


def test_mistakes_in_the_code_have_a_traceback(monkeypatch):
    def explain(*_, **__):
        raise RuntimeError("a mistake")

    monkeypatch.setattr(lmjax, "explain", explain, raising=False)
    with pytest.raises(RuntimeError, match="a mistake"):
        main(["explain"])


def test_imports_stand_anywhere():
    arguments = ["--import", "a", "study", "removal", "--import=b.c", "--images", "9"]
    assert take_imports(arguments) == (["a", "b.c"], ["study", "removal", "--images", "9"])
    assert take_imports(["explain", "a=b.png"]) == ([], ["explain", "a=b.png"])


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """A module in the working directory that registers a segmenter."""
    (tmp_path / "own_segments.py").write_text(
        "import lmjax\nlmjax.segments.register('own', lmjax.segments.boxes, description='Boxes.')\n"
    )
    (tmp_path / "broken_module.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("own_segments", None)
    if "own" in lmjax.segments.names():
        lmjax.segments._REGISTRY.unregister("own")


@pytest.mark.usefixtures("own_module")
@pytest.mark.parametrize("first", [True, False])
def test_modules_are_imported_before_options_are_read(run, first):
    given, own = ("explain", "--help"), ("--import", "own_segments")
    status, out, _ = run(*(own + given if first else given + own))
    assert status == 0
    assert re.search(r"slic_near,[\s│]+own", out)


@pytest.mark.usefixtures("own_module")
def test_a_broken_module_is_one_line(run):
    status, _, err = run("models", "--import", "broken_module")
    assert status == 1
    assert err.startswith("lmjax: error: --import broken_module failed: ZeroDivisionError: div")
    assert err.count("\n") == 1


def test_models_lists_networks_and_tags(run):
    _, out, _ = run("models", "--tags")
    line = next(line for line in out.splitlines() if line.startswith("resnet50 "))
    assert line.split()[:4] == ["resnet50", "25,557,032", "224", "x"]
    assert line.endswith("dense, visible, shared")
    assert "\n  torchvision/resnet50.IMAGENET1K_V2\n" in out
    assert {line.split()[0] for line in out.splitlines()} >= set(registry.names())


def test_version(capsys):
    main(["--version"])
    assert capsys.readouterr().out == f"lmjax {lmjax.__version__}\n"


def test_the_list_of_networks_has_a_heading(capsys):
    main(["models"])
    heading, first, *_ = capsys.readouterr().out.splitlines()
    assert heading.split() == ["network", "parameters", "pixels", "weights", "engines"]
    assert first.startswith("resnet18 ")
    assert heading.index("engines") == first.index("dense")
