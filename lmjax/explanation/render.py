"""Forms of an explanation: a figure, arrays, a record and a table."""

import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from lmjax import __version__, removals
from lmjax._utils.text import one_line
from lmjax.attribution import Attribution, methods
from lmjax.attribution.methods import WHOLE
from lmjax.explanation.classes import class_name
from lmjax.explanation.metrics import HEADINGS
from lmjax.explanation.result import of_class
from lmjax.models import Classifier
from lmjax.models.checkpoints import weights_sha256
from lmjax.removals.registry import file_hashes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lmjax import plots
    from lmjax.explanation.result import Explanation, Result
    from lmjax.explanation.variants import Variant

_RECORDED = ("jax", "jaxlib", "flax", "numpy", "scikit-image", "pillow")


def removal_title(name: str) -> str:
    """Returns the name of a removal as figures and tables show it."""
    return "nothing removed" if name == WHOLE else removals.title(name)


def arrays(explanation: "Explanation") -> dict[str, np.ndarray]:
    """Returns the arrays of an explanation by name.

    These are image, segments and object mask; and of each result, under "method/removal/", its
    scores and heatmap and, where it has them, standard error, intercept, R^2 and values of curves.
    """
    image = explanation.image
    found = {"image": image.pixels, "segments": explanation.segments}
    if image.object_mask is not None:
        found["object_mask"] = image.object_mask
    for (method, removal), result in explanation.results.items():
        names = ("scores", "heatmap", "standard_error", "intercept", "r2")
        each = {name: getattr(result.attribution, name) for name in names}
        each |= {name: curve.values for name, curve in result.curves.items()}
        found |= {f"{method}/{removal}/{k}": v for k, v in each.items() if v is not None}
    return found


def record(explanation: "Explanation") -> dict[str, Any]:
    """Returns settings, results by "method/removal" and versions of software, for a JSON file."""
    classifier, results = explanation.classifier, {}
    for pair, result in explanation.results.items():
        attribution = result.attribution
        results["/".join(pair)] = {
            name: np.asarray(getattr(attribution, name), float).tolist()
            for name in ("r2", "intercept")
            if getattr(attribution, name) is not None
        } | {
            "variants": attribution.num_variants,
            "seconds": round(result.seconds, 3),
            "compiling": round(result.compiling, 3),
            **({} if result.shares is None else result.shares._asdict()),
            **result.metrics,
        }
    files = file_hashes(explanation.config.removal or ())
    return {
        "settings": vars(explanation.config),
        "image": explanation.image.name,
        "image_sha256": explanation.image.sha256,
        "weights_sha256": _weights_sha256(classifier),
        **({"files_sha256": files} if files else {}),
        **_classes(explanation),
        "true_label": explanation.image.label,
        "results": results,
        "versions": {"lmjax": __version__}
        | {name: version(name) for name in _RECORDED}
        | {"python": platform.python_version(), "platform": platform.platform()},
        "device": jax.devices()[0].device_kind,
    }


def _weights_sha256(classifier: Classifier) -> str | None:
    """Returns the hash of a classifier's weights; None for a function that has none in JAX."""
    variables = getattr(classifier, "variables", None)
    return None if variables is None else weights_sha256(variables)


def _classes(explanation: "Explanation") -> dict[str, Any]:
    """Returns the classes explained and predicted; of several classes explained, lists."""
    classifier, first = explanation.classifier, first_attribution(explanation)
    names: Any = [class_name(target, classifier) for target in explanation.targets]
    return {
        "target": first.target,
        "target_name": names if isinstance(first.target, tuple) else names[0],
        "target_probability": np.asarray(first.probability, float).tolist(),
        "predicted": first.predicted_class,
        "predicted_name": class_name(first.predicted_class, classifier),
        "predicted_probability": float(first.predicted_probability),
    }


def draw(explanation: "Explanation") -> "Figure":
    """Draws a row of panels for one method and class, and a grid for several of either."""
    from lmjax import plots

    image = explanation.image
    view = None if image.photograph is None else plots.View(image.photograph, *image.corner)
    shown: dict[str, Any] = {
        "image_title": _image_title(explanation),
        "object_mask": image.object_mask,
        "variants": [_shown_variant(explanation, variant) for variant in explanation.variants],
        "view": view,
        "note": _note(explanation),
    }
    outlined = "" if image.object_mask is None else "outlined in green: the object"
    if len(explanation.methods) == len(explanation.targets) == 1:
        return _draw_row(explanation, outlined, shown)
    return _draw_grid(explanation, outlined, shown)


def _draw_row(explanation: "Explanation", outlined: str, shown: dict[str, Any]) -> "Figure":
    """Draws the heatmaps of one method for one class."""
    from lmjax import plots

    row = _row(explanation, explanation.methods[0], 0)
    parts = (_asked(explanation, row.signed), outlined)
    return plots.explanation(
        explanation.image.pixels,
        explanation.segments,
        [_headed(panel) for panel in row.panels],
        title=", ".join(filter(None, parts)),
        colour_label=row.colour_label,
        signed=row.signed,
        **shown,
    )


def _draw_grid(explanation: "Explanation", outlined: str, shown: dict[str, Any]) -> "Figure":
    """Draws the heatmaps of several methods, or for several classes."""
    from lmjax import plots

    rows = [
        _row(explanation, method, index)
        for index in range(len(explanation.targets))
        for method in explanation.methods
    ]
    signed = len(explanation.methods) == 1 and rows[0].signed
    parts = (_asked(explanation, signed), outlined.capitalize())
    return plots.comparison(
        explanation.image.pixels,
        explanation.segments,
        rows,
        columns=[removal_title(name) for name in explanation.removals],
        title=" ".join(filter(None, parts)),
        **shown,
    )


def _note(explanation: "Explanation") -> str:
    """Returns how to read what a figure shows without saying what it is."""
    parts = []
    if any(result.attribution.r2 is not None for result in explanation.results.values()):
        parts.append(
            "R²: how well a linear model of the segments predicts variants that it was not fitted "
            "to; near 0, the map means nothing."
        )
    pictures = [
        each.pictures[name] for each in explanation.variants for name in explanation.removals
    ]
    if any(np.isnan(picture).any() for picture in pictures):
        parts.append("Checks: the network is shown nothing there.")
    return " ".join(parts)


def _asked(explanation: "Explanation", signed: bool) -> str:
    """Returns the question that a figure answers, and by which method, where it is one."""
    names = [f"“{class_name(each, explanation.classifier)}”" for each in explanation.targets]
    what = names[0] if len(names) == 1 else f"the {len(names)} most probable classes"
    does = "does" if len(names) == 1 else "do"
    asked = f"What speaks for {what}?" if signed else f"What {does} {what} depend on?"
    if len(explanation.methods) > 1:
        return asked
    name = next(iter(explanation.methods))
    return f"{asked} {methods.get(name).title}, {_variants(explanation, name)} for each removal"


def table(*explanations: "Explanation") -> str:
    """Returns results as lines of text, a line for each method, removal and class.

    Images and classes are named where there is more than one.
    """
    return laid_out([lines(each) for each in explanations])


def lines(explanation: "Explanation") -> list[dict[str, str]]:
    """Returns the lines of a table about one image: cells by heading, which has two lines."""
    return [
        _line(explanation, index, pair, result)
        for index in range(len(explanation.targets))
        for pair, result in explanation.results.items()
    ]


def _line(
    explanation: "Explanation", index: int, pair: tuple[str, str], result: "Result"
) -> dict[str, str]:
    """Returns the line of one result and class, which goes by its place among all."""
    attribution = of_class(result.attribution, index)
    metrics = {
        heading: _number(None if index else result.metrics.get(name))
        for name, heading in HEADINGS.items()
    }
    return {
        "\nimage": one_line(explanation.image.name),
        "\nclass": class_name(attribution.target, explanation.classifier),
        "\nprobability": _number(attribution.probability),
        "\nmethod": methods.get(pair[0]).title,
        "\nremoval": removal_title(pair[1]),
        "\nR²": _number(_r2(attribution)),
        **metrics,
        "share\nshown": _share(result),
        "\nvariants": str(result.attribution.num_variants),
        "\nvariants/s": _rate(result),
        "compiling\nseconds": f"{result.compiling:.1f}",
    }


def laid_out(tables: Sequence[list[dict[str, str]]]) -> str:
    """Returns one table of the lines of several images as text.

    Args:
      tables: `lines` of each image.
    """
    together = [line for each in tables for line in each]
    columns = {heading: [line[heading] for line in together] for heading in together[0]}
    left_out = {heading for heading, cells in columns.items() if set(cells) == {"-"}}
    one_image, one_method = len(tables) == 1, len(set(columns["\nmethod"])) == 1
    left_out |= {"\nimage"} if one_image else set()
    left_out |= {"\nmethod"} if one_method else set()
    if one_image and len(set(zip(columns["\nclass"], columns["\nprobability"]))) == 1:
        left_out |= {"\nclass", "\nprobability"}
    return "\n".join(
        _lines({head: cells for head, cells in columns.items() if head not in left_out})
    )


def _share(result: "Result") -> str:
    """Returns the share of the image that the network is shown, where masks show another."""
    shares = result.shares
    return f"{shares.shown:.0%} (masks {shares.visible:.0%})" if shares and shares.note() else "-"


def _rate(result: "Result") -> str:
    """Returns variants in a second, compilation left out."""
    seconds = result.seconds - result.compiling
    return f"{result.attribution.num_variants / seconds:.0f}" if seconds > 0 else "-"


def _image_title(explanation: "Explanation") -> str:
    classifier = explanation.classifier
    first, label = first_attribution(explanation), explanation.image.label
    predicted = class_name(first.predicted_class, classifier)
    title = f"predicted: {predicted} ({first.predicted_probability:.0%})"
    if explanation.image.photograph is not None:
        title += "\nthe network sees the frame"
    return title if label is None else f"{title}\ntrue class: {class_name(label, classifier)}"


def _row(explanation: "Explanation", name: str, index: int) -> "plots.Row":
    """Returns the heatmaps of one method for one class, a panel for each removal."""
    from lmjax import plots

    method, target = methods.get(name), explanation.targets[index]
    shown = class_name(target, explanation.classifier)
    panels = [_panel(explanation, name, removal, index) for removal in explanation.removals]
    title = [f"{method.title}\n{_variants(explanation, name)}"]
    if len(explanation.targets) > 1:
        probability = of_class(first_attribution(explanation), index).probability
        title = [method.title] if len(explanation.methods) > 1 else []
        title.append(f"{shown}\n{probability:.0%}" if title == [] else f"{shown} {probability:.0%}")
    return plots.Row(
        "\n".join(title),
        panels,
        colour_label=method.unit_of(f"“{shown}”", explanation.config.objective),
        signed=method.signed,
    )


def _panel(explanation: "Explanation", name: str, removal: str, index: int) -> "plots.Panel":
    """Returns the heatmap of one method under one removal, or why there is none."""
    from lmjax import plots

    method, result = methods.get(name), explanation.results.get((name, removal))
    coloured = None if removal == WHOLE else removal
    if result is None:
        return plots.Panel("", None, coloured, why_not(method, removal))
    attribution = of_class(result.attribution, index)
    title = noted(result, attribution, index)
    return plots.Panel(title, drawn(attribution, name), coloured, meaningless(attribution))


def noted(result: "Result", attribution: Attribution, index: int) -> str:
    """Returns what figures say of a heatmap: R², how well it finds the object, shares shown.

    Args:
      result: of the method.
      attribution: its attribution for one class.
      index: of the class among those that are explained.
    """
    r2 = _r2(attribution)
    found = result.metrics.get("relevance_rank_accuracy") if index == 0 else None
    parts = (
        "" if r2 is None else f"R² {r2:.2f}",
        "" if found is None else f"object found {found:.0%}",
    )
    shares = "" if result.shares is None else result.shares.note()
    return "\n".join(filter(None, (", ".join(filter(None, parts)), shares)))


def drawn(attribution: Attribution, method: str) -> np.ndarray:
    """Returns the heatmap `[H, W]` of one class as figures draw it."""
    heatmap = attribution.heatmap
    return heatmap - heatmap.mean() if methods.get(method).centred else heatmap


def _headed(panel: "plots.Panel") -> "plots.Panel":
    """Returns a panel titled with its removal as well."""
    return panel._replace(title=f"{removal_title(panel.removal or WHOLE)}\n{panel.title}".strip())


def why_not(method: methods.Method, removal: str) -> str:
    """Returns why a method did not run under a removal."""
    if removal == WHOLE:
        return "runs under a removal"
    return "removes nothing" if method.under == "none" else "needs a removal that blends"


def meaningless(attribution: Attribution) -> str:
    """Returns why the scores of one class mean nothing; "" where they may mean something."""
    scores = attribution.scores
    if not scores.any() or (scores.size > 1 and np.ptp(scores) == 0):
        return "no segment changes the output"
    if attribution.r2 is None or attribution.r2 > 0:
        return ""
    if np.isnan(attribution.r2):
        few = attribution.num_variants <= scores.size + 1
        return "too few variants for its segments" if few else "the output hardly changes"
    return f"R² {attribution.r2:.2f}: variants are predicted no better than by their mean"


def _r2(attribution: Attribution) -> float | None:
    """Returns R² of one class; None where there is none, or nothing to fit."""
    if attribution.r2 is None or np.isnan(attribution.r2) or np.ptp(attribution.scores) == 0:
        return None
    return float(attribution.r2)


def _shown_variant(explanation: "Explanation", variant: "Variant") -> "plots.Shown":
    """Returns a variant with the network's answers under each removal."""
    from lmjax import plots

    count = int(explanation.segments.max()) + 1
    names = explanation.removals
    return plots.Shown(
        variant.mask,
        f"one variant: {variant.num_hidden} of {count} segments hidden",
        [variant.pictures[name] for name in names],
        [_answer(explanation, variant.probabilities[name]) for name in names],
        [None if name == WHOLE else name for name in names],
    )


def _answer(explanation: "Explanation", probabilities: np.ndarray) -> str:
    """Returns the class predicted, and beside it the one that is explained."""
    target, predicted = explanation.targets[0], int(probabilities.argmax())
    each = [predicted] if target == predicted else [predicted, target]
    return "\n".join(
        f"{class_name(index, explanation.classifier)} ({_percent(probabilities[index])})"
        for index in each
    )


def _percent(probability: float) -> str:
    return f"{probability:.0%}" if probability >= 0.01 else "< 1%"


def _variants(explanation: "Explanation", name: str) -> str:
    counts = {
        result.attribution.num_variants
        for (method, _), result in explanation.results.items()
        if method == name
    }
    unit = "variant" if max(counts) == 1 else "variants"
    return f"{' to '.join(map(str, sorted({min(counts), max(counts)})))} {unit}"


def _lines(columns: dict[str, list[str]]) -> list[str]:
    """Lays out a table with headings of two lines, names to the left and numbers to the right."""
    lines = []
    for heading, cells in columns.items():
        cells = [*heading.split("\n"), *cells]
        width = max(map(len, cells))
        left = heading in ("\nimage", "\nclass", "\nmethod", "\nremoval")
        lines.append([cell.ljust(width) if left else cell.rjust(width) for cell in cells])
    return ["  ".join(line).rstrip() for line in zip(*lines)]


def _number(value) -> str:
    return "-" if value is None else f"{value:.2f}"


def first_attribution(explanation: "Explanation") -> Attribution:
    """Returns the first attribution; all are of one image and the same classes."""
    return next(iter(explanation.results.values())).attribution
