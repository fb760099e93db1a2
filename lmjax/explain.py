"""Explain one image: LIME under several removals, as a figure, arrays and a record."""

import hashlib
import io
import json
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image, UnidentifiedImageError

from lmjax import plots
from lmjax.atomic import atomic_write
from lmjax.attribution import Attribution, lime
from lmjax.masking import LayerMasking, PartialConvolution, Replace
from lmjax.masking.replace import BASELINES
from lmjax.metrics import relevance_rank_accuracy
from lmjax.models import Classifier, load
from lmjax.perturbation import Predictor, random_keep
from lmjax.perturbation import segments as segmenters

SEGMENTERS = ("slic", "grid", "quickshift", "felzenszwalb")
INSIDE_NETWORK = {
    "layer": LayerMasking(),
    "no_padding": LayerMasking(padding="none"),
    "partial": PartialConvolution(),
}
REMOVALS = (*INSIDE_NETWORK, *BASELINES)
FORMATS = (".png", ".pdf", ".svg")
SCENE = "scene:"
_DEFAULT_SCENE = 0
_RECORDED = ("lmjax", "jax", "jaxlib", "flax", "numpy", "scikit-image", "scikit-learn", "pillow")
_TITLES = {
    "layer": "layer masking",
    "no_padding": "masking without padding",
    "partial": "partial convolution",
}


class Picture(NamedTuple):
    """An image as the network sees it.

    Attributes:
      name: file name or scene.
      image: float32 `[H, W, C]` in [0, 1].
      label: the true class, where known.
      object_mask: `[H, W]` bool, where known.
      sha256: of the file, or None for a scene.
    """

    name: str
    image: np.ndarray
    label: int | None = None
    object_mask: np.ndarray | None = None
    sha256: str | None = None


class Explanation(NamedTuple):
    """What `explain` computed and wrote.

    Attributes:
      picture: the image as the network saw it.
      attributions: by removal.
      object_found: by removal, the share of the object found; None where no object is known.
      seconds: by removal, compilation included.
      files: the figure, the arrays and the record.
    """

    picture: Picture
    attributions: dict[str, Attribution]
    object_found: dict[str, float] | None
    seconds: dict[str, float]
    files: tuple[Path, Path, Path]


def explain(
    image: str | None = None,
    *,
    model: str = "resnet18_digits",
    weights: str | None = None,
    num_classes: int | None = None,
    segments: str = "slic",
    n_segments: int = 50,
    samples: int = 1000,
    removal: Sequence[str] = ("layer", "grey", "black"),
    target: str | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    output: str | os.PathLike = "explanation.png",
) -> Explanation:
    """Explains what a network sees in an image, and writes a figure, a `.npz` and a `.json`.

    The same coalitions are evaluated under every removal, so that only the removal differs.

    Args:
      image: path of a photograph, `"scene:N"` for the N-th digit scene of the test split, or None
        for the first.
      model, weights, num_classes: as in `lmjax.models.load`.
      segments: one of `SEGMENTERS`.
      n_segments: about how many; `"slic"` only.
      samples: variants evaluated under each removal.
      removal: some of `REMOVALS`.
      target: class to explain, an index or a class name; None explains the predicted class.
      seed: of everything random; the same seed gives the same result.
      batch_size: as in `lmjax.evaluate`.
      output: the figure, `.png`, `.pdf` or `.svg`. The arrays and the record go beside it, with the
        suffixes `.npz` and `.json`.

    Raises:
      ValueError: an argument that is not allowed; says what is.
      OSError: an image or a checkpoint that cannot be read, an output that cannot be written.
    """
    settings = {
        "image": image,
        "model": model,
        "weights": weights,
        "num_classes": num_classes,
        "segments": segments,
        "n_segments": n_segments,
        "samples": samples,
        "removal": _check_removals(removal),
        "target": target,
        "seed": seed,
        "batch_size": batch_size,
    }
    files = _check_output(output, image)
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be from 0 to 2^32 - 1, got {seed}")
    classifier = load(model, weights=weights, num_classes=num_classes)
    picture = read_picture(image, classifier)
    labels = make_segments(picture.image, segments, n_segments=n_segments)
    explanation = _attribute(classifier, picture, labels, settings, files)
    _write(explanation, classifier, settings)
    return explanation


def _attribute(
    classifier: Classifier, picture: Picture, labels: np.ndarray, settings: dict, files: tuple
) -> Explanation:
    """LIME under each removal, on the same coalitions."""
    target = find_class(settings["target"], classifier)
    lime_key, noise_key = _keys(settings["seed"])
    attributions, seconds = {}, {}
    for name in settings["removal"]:
        start = time.perf_counter()
        attributions[name] = lime(
            Predictor(classifier, make_removal(name, key=noise_key, segments=labels)),
            picture.image,
            labels,
            key=lime_key,
            target=target,
            num_samples=settings["samples"],
            batch_size=settings["batch_size"],
        )
        seconds[name] = time.perf_counter() - start
    found = None
    if picture.object_mask is not None:
        found = {
            name: relevance_rank_accuracy(attribution.heatmap, picture.object_mask)
            for name, attribution in attributions.items()
        }
    return Explanation(picture, attributions, found, seconds, files)


def _keys(seed: int) -> tuple[jax.Array, jax.Array]:
    """The keys of the coalitions and of noise baselines."""
    lime_key, noise_key = jax.random.split(jax.random.key(seed))
    return lime_key, noise_key


def _write(explanation: Explanation, classifier: Classifier, settings: dict) -> None:
    """Figure, arrays and record: all three are made before the first is written."""
    suffix = explanation.files[0].suffix[1:].lower()
    figure, arrays = io.BytesIO(), io.BytesIO()
    plots.save(_figure(explanation, classifier), figure, format=suffix)
    np.savez_compressed(arrays, **_arrays(explanation, settings))
    record = json.dumps(_record(explanation, settings, classifier), indent=2, default=str) + "\n"
    contents = (figure.getvalue(), arrays.getvalue(), record.encode())
    for file, content in zip(explanation.files, contents):
        with atomic_write(file) as path:
            path.write_bytes(content)


def read_picture(image: str | None, classifier: Classifier) -> Picture:
    """A photograph or a digit scene, preprocessed for a classifier; see `explain`."""
    preprocessing = classifier.preprocessing
    if image is None or str(image).startswith(SCENE):
        from lmjax.data import DigitScenes

        index = _DEFAULT_SCENE if image is None else _scene_index(str(image))
        scene = DigitScenes("test", length=index + 1)[index]
        return Picture(
            name=f"{SCENE}{index}",
            image=preprocessing(scene.image),
            # Another network has other classes: its names do not tell what the digit is.
            label=scene.label if classifier.class_names == DigitScenes.class_names else None,
            object_mask=preprocessing.for_mask(scene.object_mask),
        )
    path = Path(image)
    if not path.is_file():
        raise FileNotFoundError(
            f"image {path} is not a file; give a photograph, {SCENE}N, or nothing for {SCENE}0"
        )
    content = path.read_bytes()
    try:
        with Image.open(path) as photograph:
            pixels = preprocessing(photograph)
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"image {path} cannot be read: {error}; give a whole PNG, JPEG, WebP or other picture "
            "that Pillow reads"
        ) from error
    return Picture(path.name, pixels, sha256=hashlib.sha256(content).hexdigest())


def make_segments(image: np.ndarray, name: str, *, n_segments: int = 50) -> np.ndarray:
    """Segments `[H, W]` of an image by the name of a segmenter, one of `SEGMENTERS`."""
    if name not in SEGMENTERS:
        raise ValueError(f"segments must be one of {', '.join(SEGMENTERS)}; got {name!r}")
    options = {"n_segments": n_segments} if name == "slic" else {}
    return getattr(segmenters, name)(image, **options)


def make_removal(name: str, *, key: jax.Array, segments: np.ndarray):
    """A removal by its name, one of `REMOVALS`."""
    if name in INSIDE_NETWORK:
        return INSIDE_NETWORK[name]
    return Replace(name, key=key, segments=segments)


def find_class(target: str | int | None, classifier: Classifier) -> int | None:
    """A class by its index or its name; None stays None."""
    if target is None:
        return None
    names = classifier.class_names or ()
    if str(target) in names:
        return names.index(str(target))
    try:
        return int(target)
    except ValueError:
        import difflib

        near = difflib.get_close_matches(str(target), names, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(
            f"target {target!r} is no class of this network; give an index from 0 or a class "
            f"name{hint}"
        ) from None


def class_name(index: int, classifier: Classifier) -> str:
    """The name of a class, or its number where the network's classes have no names."""
    return classifier.class_names[index] if classifier.class_names else f"class {index}"


def removal_title(name: str) -> str:
    """The name of a removal as figures and tables show it."""
    return _TITLES.get(name, name.replace("_", " "))


def _scene_index(image: str) -> int:
    number = image.removeprefix(SCENE)
    if not number.isdecimal():
        raise ValueError(f"image {image!r}: give a number after {SCENE}, from 0")
    return int(number)


def _check_removals(names: Sequence[str]) -> tuple[str, ...]:
    unknown = [name for name in names if name not in REMOVALS]
    if unknown or not names:
        raise ValueError(
            f"removal must be one or more of {', '.join(REMOVALS)}; got "
            f"{', '.join(unknown) or 'none'}"
        )
    return tuple(dict.fromkeys(names))


def _check_output(output: str | os.PathLike, image: str | None) -> tuple[Path, Path, Path]:
    """The three files to write, once it is clear that they can be written."""
    path = Path(output)
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"output must end in {', '.join(FORMATS)}; got {path}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"output folder {path.parent} does not exist; create it first")
    files = (path, path.with_suffix(".npz"), path.with_suffix(".json"))
    for file in files:
        if file.is_dir():
            raise IsADirectoryError(f"output {file} is a folder; give another name")
    if image is not None and path.exists() and Path(image).exists() and path.samefile(image):
        raise ValueError(f"output {path} is the image itself; give another name")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OSError(f"output {path} cannot be written: {error.strerror}") from error
    return files


def _weights_hash(classifier: Classifier) -> str:
    """sha256 over all weights, in the order of their names."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(classifier.variables):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


def _arrays(explanation: Explanation, settings: dict) -> dict[str, np.ndarray]:
    picture = explanation.picture
    first = next(iter(explanation.attributions.values()))
    coalitions = random_keep(
        len(np.unique(first.segments)), settings["samples"], key=_keys(settings["seed"])[0]
    )
    arrays = {
        "image": picture.image,
        "segments": first.segments,
        "coalitions": np.asarray(coalitions),
    }
    if picture.object_mask is not None:
        arrays["object_mask"] = picture.object_mask
    for name, attribution in explanation.attributions.items():
        arrays |= {
            f"{name}/scores": attribution.scores,
            f"{name}/heatmap": attribution.heatmap,
            f"{name}/intercept": attribution.intercept,
            f"{name}/r2": attribution.r2,
        }
    return arrays


def _record(explanation: Explanation, settings: dict, classifier: Classifier) -> dict[str, Any]:
    first = next(iter(explanation.attributions.values()))
    results = {
        name: {
            "r2": float(attribution.r2),
            "intercept": float(attribution.intercept),
            "object_found": explanation.object_found and explanation.object_found[name],
            "variants": attribution.num_variants,
            "seconds": round(explanation.seconds[name], 3),
        }
        for name, attribution in explanation.attributions.items()
    }
    return {
        "settings": settings,
        "image": explanation.picture.name,
        "image_sha256": explanation.picture.sha256,
        "weights_sha256": _weights_hash(classifier),
        "method": "LIME",
        "target": first.target,
        "target_name": class_name(first.target, classifier),
        "target_probability": float(first.probability),
        "predicted": first.predicted_class,
        "predicted_name": class_name(first.predicted_class, classifier),
        "predicted_probability": float(first.predicted_probability),
        "true_label": explanation.picture.label,
        "results": results,
        "versions": {name: version(name) for name in _RECORDED}
        | {"python": platform.python_version(), "platform": platform.platform()},
        "device": jax.devices()[0].device_kind,
    }


def _figure(explanation: Explanation, classifier: Classifier):
    picture, attributions = explanation.picture, explanation.attributions
    first = next(iter(attributions.values()))
    predicted = class_name(first.predicted_class, classifier)
    target = class_name(first.target, classifier)
    image_title = f"predicted: {predicted} ({first.predicted_probability:.0%})"
    if picture.label is not None:
        image_title += f"\ntrue class: {class_name(picture.label, classifier)}"
    panels = []
    for name, attribution in attributions.items():
        second = f"R² {attribution.r2:.2f}"
        if explanation.object_found:
            second += f", object found {explanation.object_found[name]:.0%}"
        panels.append(plots.Panel(f"{removal_title(name)}\n{second}", attribution.heatmap))
    outlined = ", outlined in green: the object" if explanation.object_found else ""
    return plots.explanation(
        picture.image,
        first.segments,
        panels,
        title=f"What speaks for “{target}”? LIME, {first.num_variants} variants for each removal"
        + outlined,
        image_title=image_title,
        colour_label=f"effect of a segment on the probability of “{target}”",
        object_mask=picture.object_mask,
    )


def summary(explanation: Explanation) -> str:
    """A short table of what was found and where the files are."""
    width = max(len(removal_title(name)) for name in explanation.attributions)
    lines = [f"{'removal':<{width}}  {'R²':>5}  {'object found':>12}  {'variants/s':>10}"]
    for name, attribution in explanation.attributions.items():
        found = f"{explanation.object_found[name]:.0%}" if explanation.object_found else "-"
        rate = attribution.num_variants / explanation.seconds[name]
        title = f"{removal_title(name):<{width}}"
        lines.append(f"{title}  {attribution.r2:>5.2f}  {found:>12}  {rate:>10.0f}")
    lines += ["", *(f"wrote {file}" for file in explanation.files)]
    return "\n".join(lines)
