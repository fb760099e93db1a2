"""Attribution methods by name: the registry that `lmjax explain` chooses from.

A method is a function like those of `lmjax.attribution`. What it needs of segments and key is read
off its signature.
"""

import dataclasses
import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import jax
import numpy as np

from lmjax import attribution
from lmjax._utils.checks import check_choice, check_function, check_whole
from lmjax._utils.notices import warn
from lmjax._utils.registry import Registry
from lmjax._utils.renamed import renamed
from lmjax._utils.summary import brief
from lmjax.attribution.halves import choose_halves
from lmjax.evaluation.evaluator import Evaluator
from lmjax.evaluation.objectives import Objective

WHOLE = "whole"
"""Stands in the place of a removal's name for methods that remove nothing."""

Budget = Callable[[int, int], dict[str, int] | None]
UNDER = ("every", "blending", "none")
_MOST_SEGMENTS = 10**5


@dataclasses.dataclass(frozen=True)
class Method:
    """An attribution method, and how figures and tables show it.

    Attributes:
      function: (predictor or `lmjax.Evaluator`, image `[H, W, C]`) -> `Attribution`. It is given
        those of `segments`, `key`, `target` and `objective` that its signature has.
      title: its name in figures and tables.
      unit: the unit of its scores, with {} for the class, and {objective} for what is explained of
        it, such as "logit".
      budget: (variants, S) -> options of the function that make it evaluate about that number of
        variants, or None where they are too few. None for a method without such an option.
      signed: whether scores below 0 count against the class.
      centred: whether only differences between scores are meaningful: figures then show scores
        minus the mean of their map.
      under: the removals that the method runs under: "every"; "blending", those that take soft
        masks; "none", where nothing is removed and it runs once.
    """

    function: Callable[..., attribution.Attribution]
    title: str
    unit: str
    _: dataclasses.KW_ONLY
    budget: Budget | None = None
    signed: bool = True
    centred: bool = False
    under: Literal["every", "blending", "none"] = "every"

    def __post_init__(self):
        check_function("function", self.function, "of images")
        check_choice("under", self.under, UNDER)

    @property
    def takes_objective(self) -> bool:
        """Whether the function has an option `objective`."""
        return "objective" in inspect.signature(self.function).parameters

    def unit_of(self, class_name: str, objective: str | None = None) -> str:
        """Returns the unit of scores for a class; without an objective, of the function's own."""
        if objective is None and self.takes_objective:
            objective = inspect.signature(self.function).parameters["objective"].default
        objective = objective if isinstance(objective, str) else "output"
        return self.unit.format(class_name, objective=objective)


_REGISTRY: Registry[Method | Callable] = Registry("method", "lmjax.methods")


def register(
    name: str,
    function: Callable[..., attribution.Attribution],
    *,
    description: str,
    title: str | None = None,
    unit: str | None = None,
    budget: Budget | None = None,
    signed: bool = True,
    centred: bool = False,
    under: Literal["every", "blending", "none"] = "every",
) -> None:
    """Adds an attribution method that `lmjax explain` takes by its name.

    Example:
      >>> def largest(predictor, image, segments, *, target=None): ...
      >>> lmjax.attribution.methods.register("largest", largest, description="The largest segment.")
      >>> lmjax.explain("photo.jpg", method="largest")

    Args:
      name: as users write it.
      function, budget, signed, centred, under: as in `Method`. Without `budget`, a function with an
        option `num_samples` is given the number of variants as that.
      description: one line.
      title: None takes the name, with spaces for underscores.
      unit: as in `Method`; None takes "score for {}".

    Raises:
      ValueError: a name that cannot be written on a command line, or a built-in one; a function
        that is none; `under` of another value.
    """
    method = _complete(name, function)
    given = {"title": title, "unit": unit, "budget": budget}
    given = {option: value for option, value in given.items() if value is not None}
    method = dataclasses.replace(method, signed=signed, centred=centred, under=under, **given)
    _REGISTRY.register(name, method, description=description)


def names() -> tuple[str, ...]:
    """Returns the names of the methods, those of other packages included."""
    return _REGISTRY.names()


def description(name: str) -> str:
    """Returns the line that describes a method."""
    return _REGISTRY.description(name)


def new_name(name: str) -> str:
    """Returns a name as it is; of a method that was renamed the new name, with a warning."""
    return _REGISTRY.new_name(name)


def get(name: str) -> Method:
    """Returns the method of a name.

    Raises:
      ValueError: another name; lists those there are.
    """
    found = _REGISTRY.get(name)
    return found if isinstance(found, Method) else _complete(name, found)


def _complete(name: str, function: Callable) -> Method:
    """Returns a function as a method, with the defaults of `register`."""
    check_function(f"method {name!r}", function, "of images")
    samples = "num_samples" in inspect.signature(function).parameters
    return Method(
        function,
        title=name.replace("_", " "),
        unit="score for {}",
        budget=_samples if samples else None,
    )


@renamed(samples="num_samples")
def attribute(
    name: str,
    evaluator: Callable | Evaluator,
    image,
    segments: np.ndarray,
    *,
    key: jax.Array,
    num_samples: int | None = None,
    evaluations: int | None = None,
    target: int | Sequence[int] | None = None,
    objective: Objective | None = None,
) -> attribution.Attribution:
    """Explains a prediction with the method of a name.

    Args:
      name: one of `names()`.
      evaluator: a predictor or an `lmjax.Evaluator`.
      image, target: as in `lmjax.attribution`.
      segments: `[H, W]`, for methods that score segments.
      key: for methods that draw at random.
      num_samples: about how many variants to evaluate; None leaves it to the method. Methods
        without a number of samples ignore it.
      evaluations: upper limit on evaluations; give it instead of `num_samples`.
      objective: as in `lmjax.attribution`; None leaves it to the method.

    Raises:
      ValueError: too few samples, an objective for a method that takes none, and all that the
        method raises.
    """
    if objective is not None:
        check_objective_of([name])
    method = get(name)
    given = {"segments": segments, "key": key, "target": target}
    takes = inspect.signature(method.function).parameters
    options = {option: value for option, value in given.items() if option in takes}
    if objective is not None:
        options["objective"] = objective
    if evaluations is not None and "evaluations" in takes:
        options["evaluations"] = evaluations
    elif (variants := num_samples if evaluations is None else evaluations) is not None:
        options |= _spend(name, variants, int(segments.max()) + 1)
    found = method.function(evaluator, image, **options)
    if not isinstance(found, attribution.Attribution):
        raise ValueError(
            f"method {name} must return an lmjax.attribution.Attribution; got {brief(found)}"
        )
    return found


def check_methods(chosen: Sequence[str]) -> tuple[str, ...]:
    """Returns the names, each once; raises ValueError for none, and for one that is unknown."""
    if isinstance(chosen, str) or not isinstance(chosen, Sequence) or not chosen:
        got = chosen if isinstance(chosen, str) or np.size(chosen) else "none"
        raise ValueError(f"method must be one or more of {', '.join(names())}; got {got}")
    return tuple(dict.fromkeys(map(_REGISTRY.check, chosen)))


def check_objective_of(chosen: Sequence[str]) -> None:
    """Raises ValueError where one of the methods takes no objective."""
    for name in check_methods(chosen):
        if not get(name).takes_objective:
            raise ValueError(
                f"objective has no effect on method {name}, whose function does not take one; "
                "leave one of them out, or give the function an option objective"
            )


def check_sampling(option: str, chosen: Sequence[str]) -> list[str]:
    """Returns the methods that sample; raises ValueError where none does, so an option is idle.

    Args:
      option: its name, for the error.
      chosen: names of methods.
    """
    sampling = [name for name in check_methods(chosen) if get(name).budget is not None]
    if not sampling:
        known = ", ".join(name for name in names() if get(name).budget is not None)
        raise ValueError(
            f"{option} has no effect on {', '.join(chosen)}; leave it out, or add one of {known}"
        )
    return sampling


@renamed(samples="num_samples")
def check_samples(
    chosen: Sequence[str], num_samples: int | None, num_segments: int
) -> dict[str, int | None]:
    """Returns how many variants each method is to evaluate under each removal, before any does.

    Of several methods, those that need more than `num_samples` get the fewest that they need,
    as long as one of them can do with `num_samples`.

    Args:
      chosen: names of methods.
      num_samples: about how many variants were asked for; None leaves it to the methods.
      num_segments: S.

    Raises:
      ValueError: samples are too few for all of the methods, or none of them samples.

    Warns:
      UserWarning: a method gets more; once in a call of `lmjax.explain`.
    """
    chosen = check_methods(chosen)
    num_segments = check_whole("num_segments", num_segments, least=1, most=_MOST_SEGMENTS)
    if num_samples is None:
        return dict.fromkeys(chosen)
    samples = check_whole("num_samples", num_samples)
    sampling = check_sampling("num_samples", chosen)
    needed = {name: _fewest(name, num_segments) for name in sampling}
    short = {name: fewest for name, fewest in needed.items() if samples < fewest}
    if len(short) == len(sampling):
        _spend(sampling[0], samples, num_segments)
    if short:
        more = ", ".join(f"{name} gets {fewest}" for name, fewest in short.items())
        message = f"num_samples {samples} are too few with {num_segments} segments: {more}"
        warn("samples of methods", message, stacklevel=2)
    return {**dict.fromkeys(chosen), **dict.fromkeys(sampling, samples), **short}


def check_budget(chosen: Sequence[str], budget: int, num_segments: int) -> None:
    """Checks that a number of evaluations is enough for every method, before any runs.

    Args:
      chosen: names of methods.
      budget: the most variants that each may evaluate under each removal.
      num_segments: S.

    Raises:
      ValueError: too few for one of the methods, or none of them samples.

    Warns:
      UserWarning: a method does not sample, and evaluates what it needs; once in a call of
        `lmjax.explain`.
    """
    sampling = check_sampling("budget", chosen)
    budget = check_whole("budget", budget, least=1)
    num_segments = check_whole("num_segments", num_segments, least=1, most=_MOST_SEGMENTS)
    needed = {name: _fewest_evaluations(name, num_segments) for name in sampling}
    short = {name: fewest for name, fewest in needed.items() if budget < fewest}
    if short:
        more = ", ".join(f"{fewest} for {name}" for name, fewest in short.items())
        raise ValueError(
            f"budget must be at least {more}, with {num_segments} segments; got {budget}"
        )
    if unbounded := [name for name in check_methods(chosen) if name not in sampling]:
        message = (
            f"budget {budget} does not bound {', '.join(unbounded)}, which evaluate what they need"
        )
        warn("budget of methods", message, stacklevel=2)


def pairs(chosen: Sequence[str], removals: Mapping[str, bool]) -> list[tuple[str, str]]:
    """Returns the (method, removal) to run, method by method.

    A method that needs soft masks runs under the removals that take them; one that removes nothing
    runs once, under `WHOLE`.

    Args:
      chosen: names of methods.
      removals: name of each removal -> whether it takes soft masks.

    Raises:
      ValueError: a method that can run under none of the removals.
    """
    if not isinstance(removals, Mapping):
        raise ValueError(
            "removals must be a mapping from names to whether they take soft masks; got "
            f"{brief(removals)}"
        )
    found = []
    for name in check_methods(chosen):
        under = {
            "every": list(removals),
            "blending": [removal for removal, soft_masks in removals.items() if soft_masks],
            "none": [WHOLE],
        }[get(name).under]
        if not under:
            raise ValueError(
                f"removal must hold one that takes soft masks for method {name}, such as grey; got "
                f"{', '.join(removals)}"
            )
        found += [(name, removal) for removal in under]
    return found


def _spend(name: str, samples: int, num_segments: int) -> dict[str, int]:
    """Returns the options that make a method evaluate about `samples` variants, if it has any."""
    budget = get(name).budget
    if budget is None:
        return {}
    options = budget(samples, num_segments)
    if options is None:
        raise ValueError(
            f"num_samples must be {_fewest(name, num_segments)} or more for {name} with "
            f"{num_segments} segments, got {samples}"
        )
    return options


def _fewest(name: str, num_segments: int) -> int:
    """Returns the fewest samples that a method can do with."""
    budget = get(name).budget
    assert budget is not None
    return next(n for n in itertools.count(2) if budget(n, num_segments))


def _fewest_evaluations(name: str, num_segments: int) -> int:
    """Returns the fewest evaluations that a method can do with, the whole image included."""
    fewest = _fewest(name, num_segments)
    if name in _COUNTING_THE_IMAGE or (name == "banzhaf" and fewest == 2**num_segments):
        return fewest
    return fewest + 1


def _samples(variants: int, num_segments: int) -> dict[str, int] | None:
    return {"num_samples": variants} if variants >= 2 else None


def _banzhaf_samples(variants: int, num_segments: int) -> dict[str, int] | None:
    return _samples(variants, num_segments) if variants >= min(32, 2**num_segments) else None


def _kernelshap_samples(variants: int, num_segments: int) -> dict[str, int] | None:
    """Leaves two variants for the whole image and for nothing visible."""
    fewest = min(2 * num_segments + 4, 2 ** min(num_segments, 40) - 2)
    return {"num_samples": variants - 2} if variants - 2 >= fewest else None


def _permutations(variants: int, num_segments: int) -> dict[str, int] | None:
    """Counts both directions of an order; the whole image and nothing visible are shared."""
    if num_segments == 1:  # whose order costs nothing
        return {"num_permutations": 2}
    count = (variants - 2) // (2 * (num_segments - 1))
    return {"num_permutations": count} if count >= 2 else None


def _designs(variants: int, num_segments: int) -> dict[str, int] | None:
    """Rounds down to a power of two: only those are balanced."""
    count = variants // (num_segments + 1)
    return {"num_designs": 2 ** (count.bit_length() - 1)} if count >= 2 else None


def _evaluations(variants: int, num_segments: int) -> dict[str, int] | None:
    return {"evaluations": variants} if variants >= 5 else None


def _of_last_layer(cam: Callable[..., attribution.Attribution]) -> Callable:
    """Returns a map of a layer as a method, which takes the last layer with positions."""

    def explain(
        predictor, image, *, target=None, objective: Objective = "logit"
    ) -> attribution.Attribution:
        features, head = choose_halves(None, predictor)
        return cam(features, head, image, target=target, objective=objective)

    explain.__doc__ = cam.__doc__
    return explain


# Of these methods, the numbers of variants include the whole image.
_COUNTING_THE_IMAGE = frozenset(["lime", "kernelshap", "permutation_shapley", "scorecam"])
_EFFECT = "effect of a segment on the {objective} of {}"
_FALL = "fall of the {objective} of {} where hidden"
_BUILTIN = {
    "lime": Method(attribution.lime, "LIME", _EFFECT, budget=_samples),
    "kernelshap": Method(
        attribution.kernelshap,
        "KernelSHAP",
        "Shapley value, {objective} of {}",
        budget=_kernelshap_samples,
    ),
    "permutation_shapley": Method(
        attribution.permutation_shapley,
        "permutation Shapley",
        "Shapley value, {objective} of {}",
        budget=_permutations,
    ),
    "banzhaf": Method(
        attribution.banzhaf, "Banzhaf", "Banzhaf value, {objective} of {}", budget=_banzhaf_samples
    ),
    "occlusion": Method(attribution.occlusion, "occlusion", _FALL),
    "leave_one_out": Method(attribution.leave_one_out, "leave one out", _FALL),
    "leave_one_in": Method(
        attribution.leave_one_in, "leave one in", "rise of the {objective} of {} where shown alone"
    ),
    "rise": Method(
        attribution.rise,
        "RISE",
        "{objective} of {} where visible, from the map's mean",
        budget=_samples,
        centred=True,
    ),
    "sobol": Method(
        attribution.sobol,
        "Sobol",
        "share of the variance of the {objective} of {}",
        budget=_designs,
        signed=False,
    ),
    "hsic": Method(
        attribution.hsic,
        "HSIC",
        "dependence (HSIC) of the {objective} of {}",
        budget=_samples,
        signed=False,
    ),
    "meaningful_perturbation": Method(
        attribution.meaningful_perturbation,
        "meaningful perturbation",
        "how far hidden, so that the {objective} of {} falls",
        signed=False,
        under="blending",
    ),
    "extremal_perturbation": Method(
        attribution.extremal_perturbation,
        "extremal perturbation",
        "how many of the masks that raise the {objective} of {} show it",
        signed=False,
        under="blending",
    ),
    "gradient": Method(
        attribution.gradient,
        "gradient",
        "gradient of the {objective} of {}, its size",
        signed=False,
        under="none",
    ),
    "gradient_times_input": Method(
        attribution.gradient_times_input,
        "gradient x input",
        "gradient of the {objective} of {}, times the colour",
        under="none",
    ),
    "integrated_gradients": Method(
        attribution.integrated_gradients,
        "integrated gradients",
        "share in the {objective} of {}, from black on",
        under="none",
    ),
    "smoothgrad": Method(
        attribution.smoothgrad,
        "SmoothGrad",
        "gradient of the {objective} of {} under noise, its size",
        signed=False,
        under="none",
    ),
    "expected_gradients": Method(
        attribution.expected_gradients,
        "expected gradients",
        "share in the {objective} of {}, from other images on",
        under="none",
    ),
    "fullgrad": Method(
        attribution.fullgrad,
        "FullGrad",
        "sizes of all contributions to the {objective} of {}",
        signed=False,
        under="none",
    ),
    "gradcam": Method(
        _of_last_layer(attribution.gradcam),
        "Grad-CAM",
        "Grad-CAM of the {objective} of {}",
        signed=False,
        under="none",
    ),
    "gradcam_plus_plus": Method(
        _of_last_layer(attribution.gradcam_plus_plus),
        "Grad-CAM++",
        "Grad-CAM++ of the {objective} of {}",
        signed=False,
        under="none",
    ),
    "hirescam": Method(
        _of_last_layer(attribution.hirescam),
        "HiResCAM",
        "HiResCAM of the {objective} of {}",
        under="none",
    ),
    "layercam": Method(
        _of_last_layer(attribution.layercam),
        "LayerCAM",
        "LayerCAM of the {objective} of {}",
        signed=False,
        under="none",
    ),
    "scorecam": Method(
        attribution.scorecam,
        "Score-CAM",
        "Score-CAM of the {objective} of {}",
        budget=_evaluations,
        signed=False,
    ),
    "ablationcam": Method(
        attribution.ablationcam,
        "Ablation-CAM",
        "Ablation-CAM of the {objective} of {}",
        signed=False,
    ),
}

for _name, _method in _BUILTIN.items():
    _description = (_method.function.__doc__ or _method.title).splitlines()[0]
    _REGISTRY.register(_name, _method, description=_description, builtin=True)

_REGISTRY.renamed(
    shapley="permutation_shapley",
    meaningful="meaningful_perturbation",
    extremal="extremal_perturbation",
)
