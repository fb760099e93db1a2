"""Computation of an explanation: every method under every removal, and metrics of the results."""

import dataclasses
import difflib
import inspect
import os
import time
import warnings
from collections.abc import Callable, Sequence

import jax
import numpy as np

from lmjax.attribution.methods import WHOLE, attribute, check_samples, pairs
from lmjax.evaluation import Evaluator, Predictor
from lmjax.explanation.config import ExplanationConfig
from lmjax.explanation.defaults import choose
from lmjax.explanation.files import check_output, write
from lmjax.explanation.images import load_image
from lmjax.explanation.metrics import localisation, perturbation_curves
from lmjax.explanation.removals import removals_for
from lmjax.explanation.result import Explanation, Result
from lmjax.masks import segments as segmenters
from lmjax.models import Classifier, load
from lmjax.removals import Replace, make


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


@_with_options
def explain(
    image: str | os.PathLike | np.ndarray | None = None,
    *,
    config: ExplanationConfig | None = None,
    output: str | os.PathLike | None = None,
    **options,
) -> Explanation:
    """Explains what a network sees in an image, as the command `lmjax explain` does.

    A method evaluates the same coalitions under every removal, so that only the removal differs.
    (RISE and Sobol show segments by degrees under removals that paint, and round them under those
    that mask.) When one method fails, the results before it are written all the same.

    Example:
      >>> explanation = lmjax.explain("photo.jpg", method=("lime",), removal=("layer", "grey"))
      >>> explanation["lime", "layer"].attribution.heatmap
      >>> explanation.save("explanation.png")

    Args:
      image: path of a photograph; an array `[H, W, 3]`, uint8 or floats in [0, 1];
        `"photograph:NAME"` for one that scikit-image ships (astronaut, chelsea, coffee or rocket);
        `"scene:N"` for the N-th digit scene of the test split. None takes the photograph of a cat,
        or the first digit scene where no network for photographs is installed. All are resized and
        cropped as the network's preprocessing says.
      config: the settings; None takes the defaults.
      output: the figure to write, `.png`, `.pdf` or `.svg`; the arrays and the record go beside it,
        with the suffixes `.npz` and `.json`. None writes nothing (`Explanation.save` does later);
        the command writes explanation.png by default.
      **options: settings that replace those of `config`: `method`, `model`, `removal` and the other
        attributes of `lmjax.explanation.ExplanationConfig`.

    Raises:
      ValueError: an argument that is not allowed; says what is.
      OSError: an image or a checkpoint that cannot be read, an output that cannot be written.
    """
    config = _configure(config, options)
    chosen, model = choose(image, config.model)
    config = dataclasses.replace(config, model=model)
    removals = removals_for(config.removal, config.model)
    config = dataclasses.replace(config, removal=removals)
    file = image if isinstance(image, str | os.PathLike) else None
    files = () if output is None else check_output(output, file)
    classifier = _load(config)
    explained = load_image(chosen, classifier)
    segments = segmenters.make(
        config.segments, explained.pixels, argument="segments", n_segments=config.n_segments
    )
    check_samples(config.method, config.samples, int(segments.max()) + 1)
    explanation = Explanation(config, classifier, explained, segments, {}, files)
    evaluators = _evaluators(explanation, removals)
    soft_masks = {name: evaluators[name].soft_masks for name in removals}
    try:
        for pair in pairs(config.method, soft_masks):
            explanation.results[pair] = _explain(pair, explanation, evaluators)
    except (Exception, KeyboardInterrupt):
        if explanation.results and files:
            warnings.warn(f"wrote the results before the error to {files[0]}", stacklevel=2)
            write(explanation, files)
        raise
    if files:
        write(explanation, files)
    return explanation


def _configure(config: ExplanationConfig | None, options: dict) -> ExplanationConfig:
    """Returns the settings with some of them replaced; raises ValueError for an unknown one."""
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
    if not isinstance(config.model, str):
        assert config.model is not None  # chosen before
        return config.model
    return load(config.model, weights=config.weights, num_classes=config.num_classes)


def _keys(config: ExplanationConfig) -> jax.Array:
    """Returns two keys: of the methods, and of removals that draw noise."""
    return jax.random.split(jax.random.key(config.seed))


def _evaluators(explanation: Explanation, removals: Sequence[str]) -> dict[str, Evaluator]:
    """Makes an evaluator by removal; under `WHOLE` the one of methods that remove nothing."""
    config, classifier = explanation.config, explanation.classifier
    given = {"key": _keys(config)[1], "segments": explanation.segments}
    predictors = {name: Predictor(classifier, make(name, **given)) for name in removals}
    predictors[WHOLE] = Predictor(classifier)
    return {name: _evaluator(predictor, config) for name, predictor in predictors.items()}


def _evaluator(predictor: Predictor, config: ExplanationConfig) -> Evaluator:
    return Evaluator(predictor, engine=config.engine, batch_size=config.batch_size)


def _explain(
    pair: tuple[str, str], explanation: Explanation, evaluators: dict[str, Evaluator]
) -> Result:
    """Runs one method under one removal, and measures its attribution."""
    method, removal = pair
    config, classifier = explanation.config, explanation.classifier
    image, segments = explanation.image, explanation.segments
    start = time.perf_counter()
    attribution = attribute(
        method,
        evaluators[removal],
        image.pixels,
        segments,
        key=_keys(config)[0],
        samples=config.samples,
        target=find_class(config.target, classifier),
    )
    seconds = time.perf_counter() - start
    curves, metrics = {}, {}
    if config.metrics:
        curves = perturbation_curves(
            attribution,
            image.pixels,
            black=_evaluator(Predictor(classifier, Replace("black")), config),
            blur=_evaluator(Predictor(classifier, Replace("blur", sigma=5, radius=5)), config),
            own=None if removal == WHOLE else evaluators[removal],
        )
        metrics = {name: float(curve.normalised_auc) for name, curve in curves.items()}
    if image.object_mask is not None:
        metrics |= localisation(attribution, segments, image.object_mask)
    return Result(attribution, seconds, metrics, curves)


def find_class(target: str | int | None, classifier: Classifier) -> int | None:
    """Returns a class by its number or its name; None stays None.

    Raises:
      ValueError: a name that is none of the network's classes; hints at similar ones.
    """
    if target is None:
        return None
    names = classifier.class_names or ()
    if str(target) in names:
        return names.index(str(target))
    try:
        return int(target)
    except ValueError:
        near = difflib.get_close_matches(str(target), names, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(
            f"target {target!r} is no class of this network; give an index from 0 or a class "
            f"name{hint}"
        ) from None
