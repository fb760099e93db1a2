"""Command lines: options left out, repeated, or with strange numbers, names and paths."""

import contextlib
import dataclasses
import functools
import io
import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import jax
import numpy as np
from PIL import Image

import lmjax
from lmjax import studies
from lmjax.cli.main import main
from lmjax.explanation import ExplanationConfig
from lmjax.models import checkpoints
from lmjax.models.preprocessing import Preprocessing
from lmjax.training import TrainingConfig
from tests.fuzz.harness import STRANGE_NUMBERS, STRANGE_TEXT, kept_folder, pick
from tests.training.small_network import Small

NETWORK = "fuzz_small"
_CLASSES = "a", "b", "c"
_SEEN = 32
_STUDY = ("--models", NETWORK, "--source", "folder:images,masks=images", "--output", "run")
_TRAIN = ("--source", "folder:images", "--epochs", "1", "--batch-size", "1", "--output", "run")
_EXPLAIN = (
    "--model",
    NETWORK,
    "--segmenter",
    "grid",
    "--num-samples",
    "12",
    "--show-variants",
    "0",
)
_EXPLAIN = (*_EXPLAIN, "--output", "new.png")
_CONVERT = ("weights.safetensors", "converted.safetensors")
_BASES = (
    *(("explain", "a.png", *_EXPLAIN), ("explain", "a.png", "$x$.png", *_EXPLAIN)),
    *(("convert", *_CONVERT), ("models",), ("data", "list"), ("data", "wordnet")),
    *(
        ("study", "report", "run", "--output", "new.html"),
        ("study", "seeds", "run", "--kinds", "a=b"),
    ),
    *(("train", "network", NETWORK, *_TRAIN), ("train", "digit-scenes", "--output", "run")),
)
_KINDS = tuple(name for name in studies.names())
_MORE = {
    "explain": ("--output",),
    "study": (
        *("--images", "--already-sized", "--formats", "--engine", "--batch-size", "--shard"),
        *("--retry-errors", "--dry-run", "--processes", "--output", "--models", "--source"),
    ),
    "train": ("--num-classes", "--test", "--test-images", "--checkpoint-steps", "--output"),
    "convert": ("--tag", "--no-ema"),
    "models": ("--tags",),
    "data": ("--output", "--data-dir"),
}
# Names that would do much work, or ask the network.
_HEAVY = {"wordnet"}


class Started(BaseException):
    """Raised where work would start that is not for here."""


def attempt(rng: np.random.Generator, folder: Path) -> str:
    arguments = _arguments(rng)
    _furnish(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    status, error = _run(arguments, folder)
    shown = f"{arguments}: {status}: {error[-600:]}"
    for path, content in before.items():
        assert path.is_file(), f"{path.name} was deleted: {shown}"
        assert path.read_bytes() == content, f"{path.name} was overwritten: {shown}"
    if status == "started":
        return "answer"
    assert "Traceback" not in error, shown
    if status == 1:
        last = error.strip().splitlines()[-1]
        assert last.startswith("lmjax: error: "), f"no error in one line: {shown}"
        assert len(last) < 1500, f"a long line: {shown}"
        others = error.strip().splitlines()[:-1]
        assert all(line.startswith("lmjax: ") or "%|" in line for line in others), shown
    assert status in (0, 1, 2), shown
    return "refused" if status else "answer"


def _arguments(rng: np.random.Generator) -> list[str]:
    if rng.random() < 0.3:
        kind = pick(rng, _KINDS)
        base = ["study", kind, *_STUDY, "--images", "1"]
        fields = dataclasses.fields(studies.get(kind))
        options = [f"--{each.name.replace('_', '-')}" for each in fields]
    else:
        base = list(pick(rng, _BASES))
        config = {"explain": ExplanationConfig, "train": TrainingConfig}.get(base[0])
        fields = dataclasses.fields(config) if config else ()
        options = [f"--{each.name.replace('_', '-')}" for each in fields]
    options += _MORE[base[0]]
    values = (
        *map(str, STRANGE_NUMBERS),
        *STRANGE_TEXT,
        *(
            "grey",
            "layer@2",
            "lime",
            "rise",
            "slic",
            "png",
            "0/1",
            "1/2",
            "run",
            "a.png",
            "mine.json",
        ),
        *("new.png", "images", "weights.safetensors", NETWORK, "3", "20", "0.5"),
    )
    for _ in range(int(rng.integers(1, 3))):
        how = rng.random()
        if how < 0.8 and options:
            option = pick(rng, options)
            given = [str(pick(rng, values)) for _ in range(pick(rng, (0, 1, 1, 1, 1, 2)))]
            if option in base and rng.random() < 0.8:
                at = base.index(option)
                base[at + 1 : at + 2] = given
            else:
                base += [option, *given]
        elif how < 0.9 and len(base) > 1:
            del base[int(rng.integers(1, len(base)))]
        else:
            base.insert(int(rng.integers(1, len(base) + 1)), str(pick(rng, values)))
    if base[:2] == ["data", "wordnet"] and "--output" not in base:
        base.append("--help")
    return [text.replace("\0", "") for text in base]


def _furnish(folder: Path) -> None:
    """Files of strangers that are there already."""
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (20, 24, 3)).astype(np.uint8))
    for name in _CLASSES:
        (folder / "images" / name).mkdir(parents=True)
        picture.save(folder / "images" / name / "p.png")
    for name in ("a.png", "$x$.png"):
        picture.save(folder / name)
    for name in ("mine.json", "results.npz", "explanation.json", "report.html", "x"):
        (folder / name).write_text("mine")
    (folder / "weights.safetensors").write_bytes(_weights().read_bytes())


@functools.cache
def _weights() -> Path:
    """Registers the network; returns the file of its weights."""
    path = kept_folder() / "small.safetensors"
    target = checkpoints.abstract_variables(Small(num_classes=3))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: abs(rng.normal(size=leaf.shape)) + 0.1, target)
    checkpoints.save_safetensors(path, checkpoints.to_state_dict(variables))
    seen = Preprocessing(resize=_SEEN, crop=_SEEN, mean=(0.5,) * 3, std=(0.2,) * 3)
    if NETWORK not in lmjax.models.names():
        about = {"description": "Of the fuzz tests.", "class_names": _CLASSES, "weights": path}
        lmjax.models.register(NETWORK, Small, preprocessing=seen, **about)
    return path


def _start(*_, **__):
    raise Started


@contextlib.contextmanager
def _no_work() -> Iterator[None]:
    """Trainings end before their first step, and nothing is fetched or read from databases."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch("lmjax.training.loop._steps", _start))
        stack.enter_context(mock.patch("lmjax.data.imagenet.wordnet.check_similarity", _start))
        stack.enter_context(mock.patch("urllib.request.OpenerDirector.open", _start))
        stack.enter_context(mock.patch.dict(os.environ, {"LMJAX_COMPILATION_CACHE": "0"}))
        yield


def _run(arguments: list[str], folder: Path) -> tuple[int | str, str]:
    """Returns the exit status and standard error."""
    out, error, status = io.StringIO(), io.StringIO(), 0
    _weights()
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(error),
    ):
        try:
            with _no_work():
                main(arguments)
        except SystemExit as stop:
            status = stop.code or 0
        except Started:
            return "started", error.getvalue()
        except Exception as raised:
            raised.__notes__ = [str(arguments)]
            raise RuntimeError(f"{type(raised).__name__} {raised!s:.300}: {arguments}") from raised
    if isinstance(status, str):
        return 1, f"{error.getvalue()}{status}\n"
    return status, error.getvalue() + (out.getvalue() if status == 2 else "")
