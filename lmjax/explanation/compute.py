"""Explain one image: attribution methods under removals, as a figure, arrays and a record."""

import os
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from lmjax.attribution.methods import WHOLE, attribute, check_methods, check_samples, pairs
from lmjax.evaluation import Predictor
from lmjax.explanation import scores
from lmjax.explanation.photograph import Picture, read_picture
from lmjax.explanation.render import Explanation, Result, summary, write
from lmjax.masks import segments as segmenters
from lmjax.models import Classifier, load, registry
from lmjax.removals import registry as by_name

__all__ = ["explain", "summary"]

SEGMENTERS = ("slic", "grid", "quickshift", "felzenszwalb")
FORMATS = (".png", ".pdf", ".svg")


def explain(
    image: str | None = None,
    *,
    method: Sequence[str] = ("lime",),
    model: str = "resnet18_digits",
    weights: str | None = None,
    num_classes: int | None = None,
    segments: str = "slic",
    n_segments: int = 50,
    samples: int | None = None,
    removal: Sequence[str] | None = None,
    metrics: bool = False,
    target: str | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    output: str | os.PathLike = "explanation.png",
) -> Explanation:
    """Explains what a network sees in an image, and writes a figure, a `.npz` and a `.json`.

    A method evaluates the same coalitions under every removal, so that only the removal differs.
    (RISE and Sobol show segments by degrees under removals that paint, and round them under those
    that mask.) When one method fails, what was computed before is written all the same.

    Args:
      image: path of a photograph, `"scene:N"` for the N-th digit scene of the test split, or None
        for the first.
      method: some of `lmjax.attribution.methods.METHODS`.
      model, weights, num_classes: as in `lmjax.models.load`.
      segments: one of `SEGMENTERS`.
      n_segments: about how many; `"slic"` only.
      samples: variants that each method that samples evaluates under each removal, about; None
        leaves it to the methods.
      removal: some of `lmjax.removals.names()`; None takes layer masking (token dropping in a
        vision transformer), grey and black. A method that needs a removal that paints runs under
        those among them; one that removes nothing runs once.
      metrics: follow deletion and insertion too, `lmjax.explanation.scores.follow`.
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
        "method": check_methods(method),
        "model": model,
        "weights": weights,
        "num_classes": num_classes,
        "segments": segments,
        "n_segments": n_segments,
        "samples": samples,
        "removal": _check_removals(removal, model),
        "metrics": metrics,
        "target": target,
        "seed": seed,
        "batch_size": batch_size,
    }
    chosen = pairs(settings["method"], settings["removal"])
    files = _check_output(output, image)
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be from 0 to 2^32 - 1, got {seed}")
    classifier = load(model, weights=weights, num_classes=num_classes)
    picture = read_picture(image, classifier)
    labels = make_segments(picture.image, segments, n_segments=n_segments)
    check_samples(settings["method"], samples, int(labels.max()) + 1)
    explanation = Explanation(picture, labels, {}, files)
    try:
        for pair in chosen:
            explanation.results[pair] = _result(pair, classifier, picture, labels, settings)
    except (Exception, KeyboardInterrupt):
        if explanation.results:
            warnings.warn(f"wrote what was done before, to {files[0]}", stacklevel=2)
            write(explanation, classifier, settings)
        raise
    write(explanation, classifier, settings)
    return explanation


def _result(
    pair: tuple[str, str], classifier: Classifier, picture: Picture, labels, settings: dict
) -> Result:
    """One method under one removal, and what is measured of it."""
    method, removal = pair
    key, noise_key = jax.random.split(jax.random.key(settings["seed"]))
    predictor = Predictor(classifier)
    if removal != WHOLE:
        predictor = Predictor(classifier, by_name.make(removal, key=noise_key, segments=labels))
    start = time.perf_counter()
    attribution = attribute(
        method,
        predictor,
        picture.image,
        labels,
        key=key,
        samples=settings["samples"],
        target=find_class(settings["target"], classifier),
        batch_size=settings["batch_size"],
    )
    seconds = time.perf_counter() - start
    curves, numbers = {}, {}
    if settings["metrics"]:
        curves = scores.follow(
            attribution,
            picture.image,
            classifier=classifier,
            predictor=None if removal == WHOLE else predictor,
            batch_size=settings["batch_size"],
        )
        numbers = {name: float(curve.normalised_auc) for name, curve in curves.items()}
    if picture.object_mask is not None:
        numbers |= scores.localise(attribution, labels, picture.object_mask)
    return Result(attribution, seconds, numbers, curves)


def make_segments(image: np.ndarray, name: str, *, n_segments: int = 50) -> np.ndarray:
    """Segments `[H, W]` of an image by the name of a segmenter, one of `SEGMENTERS`."""
    if name not in SEGMENTERS:
        raise ValueError(f"segments must be one of {', '.join(SEGMENTERS)}; got {name!r}")
    options = {"n_segments": n_segments} if name == "slic" else {}
    return getattr(segmenters, name)(image, **options)


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


def _check_removals(names: Sequence[str] | None, model: str) -> tuple[str, ...]:
    """The names, each once; by default those that suit the network."""
    module = registry.network(model).build()
    if names is None:
        return "token_dropping" if module.masking.where == "tokens" else "layer", "grey", "black"
    if not names:
        known = ", ".join(by_name.names())
        raise ValueError(f"removal must be one or more of {known}; got none")
    for name in names:
        by_name.check_fits(name, module.masking)
    return tuple(dict.fromkeys(map(by_name.canonical, names)))


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
