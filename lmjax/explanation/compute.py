"""Computation of an explanation: every method under every removal, and metrics of the results."""

import dataclasses
import difflib
import inspect
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import jax
import numpy as np
from PIL.Image import Image

from lmjax._utils.compiling import compiling
from lmjax._utils.notices import said_once
from lmjax._utils.progress import described
from lmjax._utils.renamed import old_names, with_new_names
from lmjax.attribution import methods
from lmjax.attribution.methods import WHOLE, attribute, check_budget, check_samples, pairs
from lmjax.evaluation import Evaluator, Predictor
from lmjax.evaluation.shares import Observed
from lmjax.explanation.classes import check_count, find_class, most_probable
from lmjax.explanation.config import ExplanationConfig
from lmjax.explanation.defaults import choose, is_scene
from lmjax.explanation.files import Files, check_output, check_outputs, remove_page, write
from lmjax.explanation.images import load_image
from lmjax.explanation.metrics import localisation, perturbation_curves
from lmjax.explanation.page import write_page
from lmjax.explanation.removals import removals_for
from lmjax.explanation.render import laid_out, lines, removal_title
from lmjax.explanation.result import Explanation, Explanations, Result, Written, of_class
from lmjax.explanation.several import explain_each
from lmjax.explanation.variants import Variant, show
from lmjax.masks import segments as segmenters
from lmjax.models import Classifier, load
from lmjax.models.calibrations import check_calibrations
from lmjax.models.loading import load_trained
from lmjax.removals import Replace, make
from lmjax.removals.held_out import removals_by_image


def _with_options(function: Callable) -> Callable:
    """Shows the settings one by one in the signature, for `help` and completion."""
    signature = inspect.signature(function)
    *own, _ = signature.parameters.values()
    settings = [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type
        )
        for field in dataclasses.fields(ExplanationConfig)
    ]
    function.__signature__ = signature.replace(parameters=[*own, *settings])
    return function


@overload
def explain(
    image: str | os.PathLike | np.ndarray | Image | None = None,
    *,
    config: ExplanationConfig | None = None,
    output: str | os.PathLike | None = None,
    **options: Any,
) -> Explanation: ...
@overload
def explain(
    image: Sequence[str | os.PathLike | np.ndarray | Image],
    *,
    config: ExplanationConfig | None = None,
    output: str | os.PathLike | None = None,
    **options: Any,
) -> Explanations: ...
@_with_options
def explain(
    image: Any = None,
    *,
    config: ExplanationConfig | None = None,
    output: str | os.PathLike | None = None,
    **options,
) -> Explanation | Explanations:
    """Explains what a network sees in an image, as the command `lmjax explain` does.

    A method evaluates the same coalitions under every removal, so that only the removal differs.
    (RISE and Sobol show segments by degrees under removals that paint, and wholly or not at all
    under those that mask.) When one method fails, the results before it are written all the same.

    Example:
      >>> explanation = lmjax.explain(
      ...     image, model=classifier, method="leave_one_out", removal="layer", segmenter="grid"
      ... )  # or of "photo.jpg", or ["cat.jpg", "dog.jpg"]
      >>> explanation["leave_one_out", "layer"].attribution.heatmap.shape
      (16, 16)

    Args:
      image: path of a photograph, or one that Pillow has opened, which is read alike; an array
        `[H, W, 3]`, uint8 or floats in [0, 1]; `"photograph:NAME"` for one that is installed with
        lmjax (astronaut, chelsea, china, coffee, flower, hopper, rocket); `"scene:N"` for the N-th
        digit scene of the test split. None takes the photograph of a cat, or the first digit scene
        where no network for photographs is installed. All are resized and cropped as the network's
        preprocessing says. A list or a tuple of these gives explanations of all by one network,
        which is loaded and compiled once. All are kept in memory, some megabytes each; the command
        keeps its table alone.
      config: the settings; None takes the defaults.
      output: the figure to write, `.png`, `.jpg`, `.pdf` or `.svg`; the arrays and the record go
        beside it, with the suffixes `.npz` and `.json`, and with `html=True` a page, `.html`. The
        page of an earlier explanation is removed there; its figure stays where it has another
        suffix. None writes nothing (`Explanation.save` does later); the command writes
        explanation.png by default. Of several images, a folder, in which files are named after
        them, or a figure, whose name goes before theirs; names that are too long are cut.
      **options: settings that replace those of `config`: `method`, `model`, `removal` and the other
        attributes of `lmjax.explanation.ExplanationConfig`.

    Returns:
      An `Explanation`; of several images `Explanations`, a sequence of them.

    Raises:
      ValueError: an argument that is not allowed; says what is. Of several images, only if none
        could be explained.
      OSError: an image or a checkpoint that cannot be read, an output that cannot be written.

    Warns:
      UserWarning: one of several images that could not be explained, and why.
    """
    with said_once():
        return _explain_all(image, _configure(config, options), output)


def explain_into_files(
    images: Sequence[Any], *, config: ExplanationConfig, output: str | os.PathLike
) -> Written:
    """Explains several images as `explain`, and keeps no more of each than a table needs.

    Args:
      images, config, output: as in `explain`.

    Raises:
      ValueError, OSError: as `explain`.

    Warns:
      UserWarning: as `explain`.
    """
    with said_once():
        explain_one = _explain_one(images, config, output)

        def explain_briefly(i: int) -> tuple[list[dict[str, str]], Files]:
            explanation = explain_one(i)
            return lines(explanation), explanation.files

        found, failures = explain_each(images, explain_briefly)
    files = tuple(file for _, each in found for file in each)
    return Written(laid_out([each for each, _ in found]), files, tuple(failures))


def _explain_all(image: Any, config: ExplanationConfig, output) -> Explanation | Explanations:
    """Explains an image or several, as `explain`."""
    if isinstance(image, list | tuple):
        found, failures = explain_each(image, _explain_one(image, config, output))
        return Explanations(tuple(found), tuple(failures))
    image, config = _choose(image, image, config)
    file = image if isinstance(image, str | os.PathLike) else None
    files = () if output is None else check_output(output, file, page=config.html)
    held_out = removals_by_image(config.removal or ())
    return _explain_image(image, config, _load(config), files, held_out)


def _explain_one(
    images: Sequence[Any], config: ExplanationConfig, output: str | os.PathLike | None
) -> Callable[[int], Explanation]:
    """Checks all but the images; returns a function that explains one by its number."""
    images, config = _choose(images, _leading(images), config)
    outputs: list[Files] = [()] * len(images)
    if output is not None:
        outputs = check_outputs(output, images, page=config.html)
    classifier, held_out = _load(config), removals_by_image(config.removal or ())

    def explain_one(i: int) -> Explanation:
        return _explain_image(images[i], config, classifier, outputs[i], held_out)

    return explain_one


def _choose(images: Any, leading: Any, config: ExplanationConfig) -> tuple[Any, ExplanationConfig]:
    """Returns what is explained, and the settings with the network and the removals filled in.

    Args:
      images: what is explained, or None.
      leading: the image whose kind decides on the network.
      config: the settings.
    """
    chosen, model = choose(leading, config.model)
    config = dataclasses.replace(config, model=model)
    config = dataclasses.replace(config, removal=removals_for(config.removal, config.model))
    return (chosen if images is None else images), config


def _leading(images: Sequence[Any]) -> Any:
    """Returns the first photograph, or where all are digit scenes the first of them."""
    if not images:
        raise ValueError("image must be one or more images; got an empty list")
    if any(each is None for each in images):
        raise ValueError("image must be a list of images; one of them is None")
    return next((each for each in images if not is_scene(each)), images[0])


def _explain_image(
    image: Any,
    config: ExplanationConfig,
    classifier: Classifier,
    files: Files,
    held_out: Mapping[str, str],
) -> Explanation:
    """Explains one image, and writes the files; raises ValueError for one that is held out."""
    explained = load_image(image, classifier)
    if made := held_out.get(explained.hash):
        raise ValueError(
            f"removal {made} was made from image {explained.name} itself, among others; explain "
            "other images, or make a file of others for it with `lmjax data`"
        )
    segments = segmenters.make(
        config.segmenter,
        explained.pixels,
        argument="segmenter",
        patch_size=getattr(classifier, "patch_size", None) if config.snap_to_patches else None,
        n_segments=config.n_segments,
    )
    num_segments = int(segments.max()) + 1
    samples = check_samples(config.method, config.num_samples, num_segments)
    if config.budget is not None:
        check_budget(config.method, config.budget, num_segments)
    explanation = Explanation(config, classifier, explained, segments, {}, (), files)
    evaluators = _evaluators(explanation)
    soft_masks = {name: evaluators[name].soft_masks for name in config.removal or ()}
    asked = pairs(config.method, soft_masks)
    target, variants = _show(explanation, {name: evaluators[name] for _, name in asked})
    explanation = dataclasses.replace(explanation, variants=variants)
    try:
        for pair in asked:
            explanation.results[pair] = _explain(
                pair, explanation, evaluators, target, samples[pair[0]]
            )
    except (Exception, KeyboardInterrupt):
        if explanation.results and files:
            warnings.warn(f"wrote the results before the error to {files[0]}", stacklevel=2)
            write(explanation, files)
            remove_page(files[0])
        raise
    if files:
        write(explanation, files)
        remove_page(files[0])
        _write_page(explanation, files)
    return explanation


def write_all(explanation: Explanation, files: Files) -> None:
    """Writes figure, arrays and record, and then the page, where there is a path for one."""
    write(explanation, files)
    _write_page(explanation, files)


def _write_page(explanation: Explanation, files: Files) -> None:
    """Writes the page, where there is a path for one."""
    for path in files[3:]:
        write_page_of(explanation, path)


def write_page_of(explanation: Explanation, path: Path) -> None:
    """Writes the page of an explanation, for which the network is asked again."""
    key, _ = _keys(explanation.config)
    write_page(explanation, path, _evaluators(explanation), key)


def _configure(config: ExplanationConfig | None, options: dict) -> ExplanationConfig:
    """Returns the settings with some of them replaced; raises ValueError for an unknown one."""
    options = with_new_names(old_names(ExplanationConfig), options, "explain", stacklevel=4)
    known = [field.name for field in dataclasses.fields(ExplanationConfig)]
    unknown = [name for name in options if name not in known]
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise TypeError(
            f"explain() has no option {unknown[0]!r}; its options are {', '.join(known)}{hint}"
        )
    return dataclasses.replace(config or ExplanationConfig(), **options)


def _load(config: ExplanationConfig) -> Classifier:
    """Returns the network, once target, classes and calibrations are known to be its own."""
    classifier = config.model
    if isinstance(classifier, str) and config.weights is not None and config.num_classes is None:
        classifier = load_trained(classifier, config.weights)
    elif isinstance(classifier, str):
        classifier = load(classifier, weights=config.weights, num_classes=config.num_classes)
    assert classifier is not None  # chosen before
    find_class(config.target, classifier)
    check_calibrations(config.removal or (), {str(config.model): classifier})
    if classifier.class_names:
        check_count(config.top_k, len(classifier.class_names))
    return classifier if config.crop else _without_crop(classifier)


def _without_crop(classifier: Classifier) -> Classifier:
    """Returns the network with a preprocessing that leaves photographs whole."""
    size = getattr(getattr(classifier, "module", None), "image_size", None)
    if size is not None:
        raise ValueError(
            f"crop=False (--no-crop) is for networks that take images of any size, and this one "
            f"takes {size} x {size} pixels only; leave it out, or take another model"
        )
    preprocessing = dataclasses.replace(classifier.preprocessing, crop=None)
    return dataclasses.replace(classifier, preprocessing=preprocessing)


def _keys(config: ExplanationConfig) -> jax.Array:
    """Returns two keys: of the methods, and of removals that draw noise."""
    return jax.random.split(jax.random.key(config.seed))


def _evaluators(explanation: Explanation) -> dict[str, Evaluator]:
    """Makes an evaluator by removal; under `WHOLE` the one of methods that remove nothing."""
    config, classifier = explanation.config, explanation.classifier
    given = {"key": _keys(config)[1], "segments": explanation.segments}
    predictors = {name: Predictor(classifier, make(name, **given)) for name in config.removal or ()}
    predictors[WHOLE] = Predictor(classifier)
    return {name: _evaluator(predictor, config) for name, predictor in predictors.items()}


def _show(
    explanation: Explanation, evaluators: dict[str, Evaluator]
) -> tuple[int | tuple[int, ...] | None, tuple[Variant, ...]]:
    """Returns the class or classes to explain (None: the predicted one), and variants to show."""
    config, classifier = explanation.config, explanation.classifier
    target = find_class(config.target, classifier)
    if config.top_k == 1 and config.show_variants == 0:
        return target, ()
    if config.show_variants == 0:
        evaluators = dict([next(iter(evaluators.items()))])
    image, segments = explanation.image.pixels, explanation.segments
    key = _keys(config)[0]
    whole, variants = show(config.show_variants, image, segments, evaluators, key=key)
    return target if config.top_k == 1 else most_probable(whole, config.top_k), variants


def _evaluator(predictor: Predictor, config: ExplanationConfig) -> Evaluator:
    return Evaluator(predictor, engine=config.engine, batch_size=config.batch_size)


def _explain(
    pair: tuple[str, str],
    explanation: Explanation,
    evaluators: dict[str, Evaluator],
    target: int | tuple[int, ...] | None,
    samples: int | None,
) -> Result:
    """Runs one method under one removal, and measures its attribution."""
    method, removal = pair
    config, classifier = explanation.config, explanation.classifier
    image, segments = explanation.image, explanation.segments
    evaluator = Observed(**vars(evaluators[removal]))
    start = time.perf_counter()
    about = methods.get(method).title, removal_title(removal)
    with compiling() as compiled, described(*about):
        attribution = attribute(
            method,
            evaluator,
            image.pixels,
            segments,
            key=_keys(config)[0],
            num_samples=samples,
            evaluations=config.budget,
            target=target,
            objective=config.objective,
        )
    seconds = time.perf_counter() - start
    first = of_class(attribution, 0)
    curves, metrics = {}, {}
    if config.metrics:
        with described(*about, "metrics"):
            curves = perturbation_curves(
                first,
                image.pixels,
                black=_evaluator(Predictor(classifier, Replace("black")), config),
                blur=_evaluator(Predictor(classifier, Replace("rise_blur")), config),
                own=None if removal == WHOLE else evaluators[removal],
            )
        metrics = {name: float(curve.normalised_auc) for name, curve in curves.items()}
    if image.object_mask is not None:
        metrics |= localisation(first, segments, image.object_mask)
    shares = None if removal == WHOLE else evaluator.shares(attribution.num_variants)
    return Result(attribution, seconds, compiled(), metrics, curves, shares)
