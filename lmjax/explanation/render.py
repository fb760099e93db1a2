"""Forms of an explanation: a figure, arrays, a record and a table."""

import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from lmjax import removals
from lmjax.attribution import Attribution, methods
from lmjax.attribution.methods import WHOLE
from lmjax.explanation.metrics import HEADINGS
from lmjax.models import Classifier
from lmjax.models.checkpoints import weights_sha256

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lmjax import plots
    from lmjax.explanation.result import Explanation, Result

_RECORDED = ("lmjax", "jax", "jaxlib", "flax", "numpy", "scikit-image", "scikit-learn", "pillow")


def class_name(index: Any, classifier: Classifier) -> str:
    """Returns the name of a class, or its number where the network's classes have no names."""
    return classifier.class_names[index] if classifier.class_names else f"class {index}"


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
            name: float(getattr(attribution, name))
            for name in ("r2", "intercept")
            if getattr(attribution, name) is not None
        } | {
            "variants": attribution.num_variants,
            "seconds": round(result.seconds, 3),
            **result.metrics,
        }
    first = first_attribution(explanation)
    return {
        "settings": vars(explanation.config),
        "image": explanation.image.name,
        "image_sha256": explanation.image.sha256,
        "weights_sha256": _weights_sha256(classifier),
        "target": first.target,
        "target_name": class_name(first.target, classifier),
        "target_probability": float(first.probability),
        "predicted": first.predicted_class,
        "predicted_name": class_name(first.predicted_class, classifier),
        "predicted_probability": float(first.predicted_probability),
        "true_label": explanation.image.label,
        "results": results,
        "versions": {name: version(name) for name in _RECORDED}
        | {"python": platform.python_version(), "platform": platform.platform()},
        "device": jax.devices()[0].device_kind,
    }


def _weights_sha256(classifier: Classifier) -> str | None:
    """Returns the hash of a classifier's weights; None for a function that has none in JAX."""
    variables = getattr(classifier, "variables", None)
    return None if variables is None else weights_sha256(variables)


def draw(explanation: "Explanation") -> "Figure":
    """Draws a row of panels for one method, and a grid of methods and removals for several."""
    from lmjax import plots

    image = explanation.image
    target = f"“{class_name(first_attribution(explanation).target, explanation.classifier)}”"
    asked = f"What does {target} depend on?"
    outlined = "" if image.object_mask is None else "outlined in green: the object"
    shown = {"image_title": _image_title(explanation), "object_mask": image.object_mask}
    if len(explanation.methods) > 1:
        return plots.comparison(
            image.pixels,
            explanation.segments,
            [_row(explanation, name, target) for name in explanation.methods],
            columns=[removal_title(name) for name in explanation.removals],
            title=f"{asked} {outlined.capitalize()}".strip(),
            **shown,
        )
    name = next(iter(explanation.methods))
    method, row = methods.get(name), _row(explanation, name, target)
    asked = f"What speaks for {target}?" if method.signed else asked
    variants = f"{_variants(explanation, name)} for each removal"
    return plots.explanation(
        image.pixels,
        explanation.segments,
        [
            _with_title(panel, *each)
            for panel, each in zip(filter(None, row.panels), explanation.results.items())
        ],
        title=", ".join(filter(None, (f"{asked} {method.title}", variants, outlined))),
        colour_label=row.colour_label,
        signed=method.signed,
        **shown,
    )


def table(explanation: "Explanation") -> str:
    """Returns the results as lines of text, a line for each method and removal."""
    results = explanation.results.values()
    columns = {
        "\nmethod": [methods.get(method).title for method, _ in explanation.results],
        "\nremoval": [removal_title(removal) for _, removal in explanation.results],
        "\nR²": [_number(result.attribution.r2) for result in results],
    }
    for name, heading in HEADINGS.items():
        columns[heading] = [_number(result.metrics.get(name)) for result in results]
    columns["\nvariants"] = [str(result.attribution.num_variants) for result in results]
    columns["\nvariants/s"] = [
        f"{result.attribution.num_variants / result.seconds:.0f}" for result in results
    ]
    if len(explanation.methods) == 1:
        del columns["\nmethod"]
    return "\n".join(
        _lines({head: cells for head, cells in columns.items() if set(cells) != {"-"}})
    )


def _image_title(explanation: "Explanation") -> str:
    classifier = explanation.classifier
    first, label = first_attribution(explanation), explanation.image.label
    predicted = class_name(first.predicted_class, classifier)
    title = f"predicted: {predicted} ({first.predicted_probability:.0%})"
    return title if label is None else f"{title}\ntrue class: {class_name(label, classifier)}"


def _row(explanation: "Explanation", name: str, target: str) -> "plots.Row":
    """Returns the heatmaps of one method, one for each removal, None where there is none."""
    from lmjax import plots

    method, panels = methods.get(name), []
    for removal in explanation.removals:
        result = explanation.results.get((name, removal))
        panels.append(result and plots.Panel(_found(result), _shown(result, method.centred)))
    return plots.Row(
        f"{method.title}\n{_variants(explanation, name)}",
        panels,
        colour_label=method.unit.format(target),
        signed=method.signed,
    )


def _with_title(panel: "plots.Panel", pair: tuple[str, str], result: "Result") -> "plots.Panel":
    """Returns a panel titled with its removal and the metrics of its heatmap."""
    r2 = "" if result.attribution.r2 is None else f"R² {result.attribution.r2:.2f}"
    second = ", ".join(filter(None, (r2, panel.title)))
    return panel._replace(title=f"{removal_title(pair[1])}\n{second}".strip())


def _found(result: "Result") -> str:
    found = result.metrics.get("relevance_rank_accuracy")
    return "" if found is None else f"object found {found:.0%}"


def _shown(result: "Result", centred: bool) -> np.ndarray:
    heatmap = result.attribution.heatmap
    return heatmap - heatmap.mean() if centred else heatmap


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
        left = heading in ("\nmethod", "\nremoval")
        lines.append([cell.ljust(width) if left else cell.rjust(width) for cell in cells])
    return ["  ".join(line).rstrip() for line in zip(*lines)]


def _number(value) -> str:
    return "-" if value is None else f"{value:.2f}"


def first_attribution(explanation: "Explanation") -> Attribution:
    """Returns the first attribution; all are of one image and one class."""
    return next(iter(explanation.results.values())).attribution
