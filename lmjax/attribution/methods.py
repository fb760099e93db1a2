"""Attribution methods by name, as the commands call them.

A method is one line in `METHODS`. What it needs of segments and key is read off its signature.
"""

import dataclasses
import inspect
import itertools
from collections.abc import Callable, Sequence

import jax
import numpy as np

from lmjax import attribution
from lmjax.removals import registry as by_name

WHOLE = "whole"  # in the place of a removal's name, for methods that remove nothing


@dataclasses.dataclass(frozen=True)
class Method:
    """An attribution method.

    Attributes:
      title: its name in figures and tables.
      run: the function of `lmjax.attribution`.
      unit: what its scores are, with {} for the class.
      spend: (variants, S) -> options of `run` that make it evaluate about so many variants, or None
        where they are too few. None where the method has no such option.
      signed: whether scores below 0 speak against the class.
      level: whether only differences between scores tell where the class is: figures then show
        scores from the mean of their map on.
      removals: under which the method runs: "every"; "painted", those that blend image and
        baseline; "none", where nothing is removed and it runs once.
    """

    title: str
    run: Callable
    unit: str
    _: dataclasses.KW_ONLY
    spend: Callable[[int, int], dict[str, int] | None] | None = None
    signed: bool = True
    level: bool = False
    removals: str = "every"


def _samples(variants: int, num_segments: int) -> dict[str, int] | None:
    return {"num_samples": variants} if variants >= 2 else None


def _banzhaf_samples(variants: int, num_segments: int) -> dict[str, int] | None:
    return _samples(variants, num_segments) if variants >= 32 else None


def _kernelshap_samples(variants: int, num_segments: int) -> dict[str, int] | None:
    """The whole image and nothing are evaluated besides."""
    fewest = min(2 * num_segments + 4, 2**num_segments - 2)
    return {"num_samples": variants - 2} if variants - 2 >= fewest else None


def _permutations(variants: int, num_segments: int) -> dict[str, int] | None:
    """Orders are followed both ways; the whole image and nothing are evaluated besides."""
    count = (variants - 2) // max(2 * (num_segments - 1), 1)
    return {"num_permutations": count} if count >= 2 else None


def _designs(variants: int, num_segments: int) -> dict[str, int] | None:
    """Powers of two: only those are balanced."""
    count = variants // (num_segments + 1)
    return {"num_designs": 2 ** (count.bit_length() - 1)} if count >= 2 else None


def _gradcam(predictor, image, *, target=None) -> attribution.Attribution:
    """Behind the last block."""
    return attribution.gradcam(*predictor.classifier.cut(), image, target=target)


_EFFECT = "effect of a segment on the probability of {}"
_FALL = "fall of the probability of {} where hidden"

METHODS = {
    "lime": Method("LIME", attribution.lime, _EFFECT, spend=_samples),
    "kernelshap": Method(
        "KernelSHAP",
        attribution.kernelshap,
        "Shapley value, probability of {}",
        spend=_kernelshap_samples,
    ),
    "shapley": Method(
        "permutation Shapley",
        attribution.permutation_shapley,
        "Shapley value, probability of {}",
        spend=_permutations,
    ),
    "banzhaf": Method(
        "Banzhaf", attribution.banzhaf, "Banzhaf value, probability of {}", spend=_banzhaf_samples
    ),
    "occlusion": Method("occlusion", attribution.occlusion, _FALL),
    "leave_one_out": Method("leave one out", attribution.leave_one_out, _FALL),
    "leave_one_in": Method(
        "leave one in", attribution.leave_one_in, "rise of the probability of {} where shown alone"
    ),
    "rise": Method(
        "RISE",
        attribution.rise,
        "probability of {} where visible, from the map's mean",
        spend=_samples,
        level=True,
    ),
    "sobol": Method(
        "Sobol",
        attribution.sobol,
        "share of the variance of the probability of {}",
        spend=_designs,
        signed=False,
    ),
    "hsic": Method(
        "HSIC",
        attribution.hsic,
        "dependence (HSIC) of the probability of {}",
        spend=_samples,
        signed=False,
    ),
    "meaningful": Method(
        "meaningful perturbation",
        attribution.meaningful_perturbation,
        "how far hidden, so that the probability of {} falls",
        signed=False,
        removals="painted",
    ),
    "extremal": Method(
        "extremal perturbation",
        attribution.extremal_perturbation,
        "how many of the masks that raise the logit of {} show it",
        signed=False,
        removals="painted",
    ),
    "gradient": Method(
        "gradient",
        attribution.gradient,
        "gradient of the logit of {}, its size",
        signed=False,
        removals="none",
    ),
    "gradient_times_input": Method(
        "gradient x input",
        attribution.gradient_times_input,
        "gradient of the logit of {}, times the colour",
        removals="none",
    ),
    "integrated_gradients": Method(
        "integrated gradients",
        attribution.integrated_gradients,
        "share in the logit of {}, from black on",
        removals="none",
    ),
    "smoothgrad": Method(
        "SmoothGrad",
        attribution.smoothgrad,
        "gradient of the logit of {} under noise, its size",
        signed=False,
        removals="none",
    ),
    "gradcam": Method(
        "Grad-CAM", _gradcam, "Grad-CAM of the logit of {}", signed=False, removals="none"
    ),
}


def attribute(
    name: str,
    predictor: Callable,
    image,
    segments: np.ndarray,
    *,
    key: jax.Array,
    samples: int | None = None,
    target: int | None = None,
    batch_size: int | None = None,
) -> attribution.Attribution:
    """Runs a method by its name, one of `METHODS`.

    Args:
      predictor, image, target, batch_size: as in `lmjax.attribution`.
      segments: `[H, W]`, for methods that score segments.
      key: for methods that draw.
      samples: variants to evaluate, about; None leaves it to the method. Methods with no number of
        samples ignore it.

    Raises:
      ValueError: too few samples, and all that the method raises.
    """
    method = METHODS[name]
    given = {"segments": segments, "key": key, "target": target, "batch_size": batch_size}
    takes = inspect.signature(method.run).parameters
    options = {option: value for option, value in given.items() if option in takes}
    if samples is not None and method.spend is not None:
        options |= _spend(name, samples, int(segments.max()) + 1)
    return method.run(predictor, image, **options)


def check_methods(names: Sequence[str]) -> tuple[str, ...]:
    """The names, each once; raises ValueError for none, and for one that is not in `METHODS`."""
    unknown = [name for name in names if name not in METHODS]
    if unknown or not names:
        raise ValueError(
            f"method must be one or more of {', '.join(METHODS)}; got "
            f"{', '.join(unknown) or 'none'}"
        )
    return tuple(dict.fromkeys(names))


def check_samples(names: Sequence[str], samples: int | None, num_segments: int) -> None:
    """Raises ValueError where samples are too few for a method, or mean nothing to any of them."""
    if samples is None:
        return
    sampling = [name for name in names if METHODS[name].spend is not None]
    if not sampling:
        known = ", ".join(name for name, method in METHODS.items() if method.spend is not None)
        raise ValueError(
            f"samples means nothing to {', '.join(names)}; leave it out, or add one of {known}"
        )
    for name in sampling:
        _spend(name, samples, num_segments)


def pairs(methods: Sequence[str], removals: Sequence[str]) -> list[tuple[str, str]]:
    """(method, removal) to run, method by method.

    A method that needs a removal that paints runs under those among `removals`; one that removes
    nothing runs once, under `WHOLE`.

    Raises:
      ValueError: a method that can run under none of the removals.
    """
    chosen = []
    for name in methods:
        under = {
            "every": removals,
            "painted": list(filter(by_name.soft_masks, removals)),
            "none": [WHOLE],
        }[METHODS[name].removals]
        if not under:
            raise ValueError(
                f"removal must hold one that paints for method {name}, one of "
                f"{', '.join(filter(by_name.soft_masks, by_name.names()))}; "
                f"got {', '.join(removals)}"
            )
        chosen += [(name, removal) for removal in under]
    return chosen


def _spend(name: str, samples: int, num_segments: int) -> dict[str, int]:
    """The options that make a method evaluate about `samples` variants."""
    spend = METHODS[name].spend
    options = spend(samples, num_segments)
    if options is None:
        fewest = next(n for n in itertools.count(2) if spend(n, num_segments))
        raise ValueError(
            f"samples must be {fewest} or more for {name} with {num_segments} segments, got "
            f"{samples}"
        )
    return options
