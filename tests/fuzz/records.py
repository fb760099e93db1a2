"""Folders of studies, trainings and explanations, with fields lost or changed."""

import functools
import json
import shutil
from pathlib import Path

import numpy as np

import lmjax
from lmjax import studies
from lmjax.data import DigitScenes
from lmjax.training import TrainingConfig, read_metrics, train
from lmjax.training.run_folder import RunFolder
from tests.fuzz.harness import damaged, kept_folder, pick, strange
from tests.studies import fakes
from tests.support.public_calls import NETWORK

_NETWORKS = {"a": fakes.network()}


def attempt(rng: np.random.Generator, folder: Path) -> str:
    of, use = pick(rng, ((_study, _use_study), (_study, _use_study), (_training, _use_training)))
    if rng.random() < 0.2:
        of, use = _explanation, _use_explanation
    out = folder / "run"
    shutil.copytree(of(), out)
    _change(rng, out)
    mine = folder / "mine.txt"
    mine.write_text("mine")
    before = _contents(out)
    try:
        use(rng, out)
    except (ValueError, OSError, TypeError):
        assert _contents(out) == before, "refused, and files were changed"
        raise
    finally:
        assert mine.read_text() == "mine"
    return "answer"


def _contents(out: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def _change(rng: np.random.Generator, out: Path) -> None:
    """Changes one file of a folder: a field of JSON, bytes of any."""
    files = sorted(path for path in out.rglob("*") if path.is_file())
    manifests = [path for path in files if path.suffix == ".json"]
    path = pick(rng, manifests) if manifests and rng.random() < 0.6 else pick(rng, files)
    if path.suffix == ".json" and rng.random() < 0.8:
        path.write_text(_changed_json(rng, path.read_text()))
    elif rng.random() < 0.15:
        path.unlink()
    else:
        path.write_bytes(damaged(rng, path.read_bytes()))


def _changed_json(rng: np.random.Generator, text: str) -> str:
    content = json.loads(text)
    holder, places = content, []
    while True:  # down to some field
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        if not keys:
            break
        key = pick(rng, keys)
        places.append((holder, key))
        if not isinstance(holder[key], dict | list) or rng.random() < 0.3:
            break
        holder = holder[key]
    holder, key = places[-1]
    how = int(rng.integers(5))
    if how == 0:
        del holder[key]
    elif how == 1:
        holder[key] = [holder[key]]
    elif how == 2 and isinstance(holder, dict):
        holder[pick(rng, ("x", "", "seed", "$x$"))] = holder.pop(key)
    elif how == 3 and rng.random() < 0.2:
        return pick(rng, ("null", "[]", "3", '"x"', "{}", "", "{", "[" * 5000))
    else:
        holder[key] = strange(rng)
    return json.dumps(content, default=lambda _: None)


@functools.cache
def _made() -> Path:
    return kept_folder()


@functools.cache
def _study() -> Path:
    out = _made() / "study"
    rows = studies.run(fakes.Brightness(), fakes.Source(5), models=_NETWORKS, output=out)
    studies.write(fakes.Brightness(), rows, out)
    return out


def _use_study(rng: np.random.Generator, out: Path) -> None:
    use = pick(rng, ("open", "report", "run", "errors", "write_seeds"))
    if use == "open":
        studies.runner.open_run(out)
    elif use == "errors":
        studies.errors(out)
    elif use == "run":
        studies.run(fakes.Brightness(), fakes.Source(5), models=_NETWORKS, output=out)
    else:
        with fakes.registered(fakes.Brightness):
            if use == "report":
                studies.report([out], out.parent / "report.html")
            else:
                studies.write_seeds(out, kinds={"a": ["a", "b"]})


_CONFIG = TrainingConfig(epochs=1, images_per_epoch=16, batch_size=8)


def _train(out: Path) -> Path:
    return train(
        lmjax.models.load("resnet18_digits"),
        DigitScenes("train", length=16),
        config=_CONFIG,
        output=out,
    )


@functools.cache
def _training() -> Path:
    """The folder of a training that is finished; without checkpoints, which are orbax's."""
    out = _made() / "training"
    _train(out)
    return out


def _use_training(rng: np.random.Generator, out: Path) -> None:
    use = pick(rng, ("metrics", "load", "claim"))
    if use == "metrics":
        read_metrics(out)
    elif use == "load":
        lmjax.models.load("resnet18_digits", weights=out)
    else:
        with RunFolder(out) as folder:
            folder.claim(json.loads((_training() / "manifest.json").read_text()))


@functools.cache
def _explanation() -> Path:
    out = _made() / "explanation"
    out.mkdir()
    _explain(out)
    return out


def _explain(out: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 36, 3)).astype(np.uint8)
    lmjax.explain(
        image,
        model=NETWORK,
        method=("leave_one_out",),
        removal=("grey",),
        segmenter="grid",
        show_variants=0,
        output=out / "a.png",
    )


def _use_explanation(rng: np.random.Generator, out: Path) -> None:
    _explain(out)
