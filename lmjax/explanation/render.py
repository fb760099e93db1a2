"""What the explain command found, and how it is shown and kept: figure, arrays, record, table."""

import io
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from lmjax import plots
from lmjax._utils.atomic import atomic_write
from lmjax.attribution import Attribution
from lmjax.attribution.methods import METHODS, WHOLE
from lmjax.explanation.photograph import Picture
from lmjax.explanation.scores import HEADINGS
from lmjax.metrics import Curve
from lmjax.models import Classifier
from lmjax.models.checkpoints import weights_sha256
from lmjax.removals import registry as by_name

_RECORDED = ("lmjax", "jax", "jaxlib", "flax", "numpy", "scikit-image", "scikit-learn", "pillow")


class Result(NamedTuple):
    """One method under one removal.

    Attributes:
      attribution: for one class.
      seconds: it took, compilation included.
      numbers: metrics by name, see `lmjax.explanation.scores`.
      curves: deletion and insertion by name, where asked for.
    """

    attribution: Attribution
    seconds: float
    numbers: dict[str, float]
    curves: dict[str, Curve]


class Explanation(NamedTuple):
    """What `lmjax.explain.explain` computed and wrote.

    Attributes:
      picture: the image as the network saw it.
      segments: `[H, W]`.
      results: by (method, removal), in the order in which they were computed.
      files: the figure, the arrays and the record.
    """

    picture: Picture
    segments: np.ndarray
    results: dict[tuple[str, str], Result]
    files: tuple[Path, Path, Path]

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(method for method, _ in self.results))

    @property
    def removals(self) -> tuple[str, ...]:
        """Those under which something was computed."""
        return tuple(dict.fromkeys(removal for _, removal in self.results))


def write(explanation: Explanation, classifier: Classifier, settings: dict) -> None:
    """Figure, arrays and record: all three are made before the first is written."""
    suffix = explanation.files[0].suffix[1:].lower()
    figure, contents = io.BytesIO(), io.BytesIO()
    plots.save(draw(explanation, classifier), figure, format=suffix)
    np.savez_compressed(contents, **arrays(explanation))
    text = json.dumps(record(explanation, classifier, settings), indent=2, default=str) + "\n"
    written = (figure.getvalue(), contents.getvalue(), text.encode())
    for file, content in zip(explanation.files, written):
        with atomic_write(file) as path:
            path.write_bytes(content)


def class_name(index: int, classifier: Classifier) -> str:
    """The name of a class, or its number where the network's classes have no names."""
    return classifier.class_names[index] if classifier.class_names else f"class {index}"


def removal_title(name: str) -> str:
    """The name of a removal as figures and tables show it."""
    return "nothing removed" if name == WHOLE else by_name.title(name)


def arrays(explanation: Explanation) -> dict[str, np.ndarray]:
    """Image, segments and object; of each result, under "method/removal/", what it has of scores,
    heatmap, standard error, intercept, R^2, and the values of its curves."""
    picture = explanation.picture
    found = {"image": picture.image, "segments": explanation.segments}
    if picture.object_mask is not None:
        found["object_mask"] = picture.object_mask
    for (method, removal), result in explanation.results.items():
        names = ("scores", "heatmap", "standard_error", "intercept", "r2")
        each = {name: getattr(result.attribution, name) for name in names}
        each |= {name: curve.values for name, curve in result.curves.items()}
        found |= {f"{method}/{removal}/{k}": v for k, v in each.items() if v is not None}
    return found


def record(explanation: Explanation, classifier: Classifier, settings: dict) -> dict[str, Any]:
    """What was asked for, what came out (results by "method/removal"), and with which software."""
    results = {}
    for pair, result in explanation.results.items():
        attribution = result.attribution
        results["/".join(pair)] = {
            name: float(getattr(attribution, name))
            for name in ("r2", "intercept")
            if getattr(attribution, name) is not None
        } | {
            "variants": attribution.num_variants,
            "seconds": round(result.seconds, 3),
            **result.numbers,
        }
    first = _first(explanation)
    return {
        "settings": settings,
        "image": explanation.picture.name,
        "image_sha256": explanation.picture.sha256,
        "weights_sha256": weights_sha256(classifier.variables),
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


def draw(explanation: Explanation, classifier: Classifier):
    """The figure: one row of panels for one method, a grid of methods and removals for several."""
    picture = explanation.picture
    target = f"“{class_name(_first(explanation).target, classifier)}”"
    asked = f"What does {target} depend on?"
    outlined = "" if picture.object_mask is None else "outlined in green: the object"
    shown = {
        "image_title": _image_title(explanation, classifier),
        "object_mask": picture.object_mask,
    }
    if len(explanation.methods) > 1:
        return plots.comparison(
            picture.image,
            explanation.segments,
            [_row(explanation, name, target) for name in explanation.methods],
            columns=[removal_title(name) for name in explanation.removals],
            title=f"{asked} {outlined.capitalize()}".strip(),
            **shown,
        )
    (name,) = explanation.methods
    method, row = METHODS[name], _row(explanation, name, target)
    asked = f"What speaks for {target}?" if method.signed else asked
    variants = f"{_variants(explanation, name)} for each removal"
    return plots.explanation(
        picture.image,
        explanation.segments,
        [_with_title(panel, *each) for panel, each in zip(row.panels, explanation.results.items())],
        title=", ".join(filter(None, (f"{asked} {method.title}", variants, outlined))),
        colour_label=row.colour_label,
        signed=method.signed,
        **shown,
    )


def summary(explanation: Explanation) -> str:
    """A table of what was found, and where the files are."""
    results = explanation.results.values()
    columns = {
        "\nmethod": [METHODS[method].title for method, _ in explanation.results],
        "\nremoval": [removal_title(removal) for _, removal in explanation.results],
        "\nR²": [_number(result.attribution.r2) for result in results],
    }
    for name, heading in HEADINGS.items():
        columns[heading] = [_number(result.numbers.get(name)) for result in results]
    columns["\nvariants"] = [str(result.attribution.num_variants) for result in results]
    columns["\nvariants/s"] = [
        f"{result.attribution.num_variants / result.seconds:.0f}" for result in results
    ]
    if len(explanation.methods) == 1:
        del columns["\nmethod"]
    lines = _table({head: cells for head, cells in columns.items() if set(cells) != {"-"}})
    return "\n".join([*lines, "", *(f"wrote {file}" for file in explanation.files)])


def _image_title(explanation: Explanation, classifier: Classifier) -> str:
    first, label = _first(explanation), explanation.picture.label
    predicted = class_name(first.predicted_class, classifier)
    title = f"predicted: {predicted} ({first.predicted_probability:.0%})"
    return title if label is None else f"{title}\ntrue class: {class_name(label, classifier)}"


def _row(explanation: Explanation, name: str, target: str) -> plots.Row:
    """The heatmaps of one method, one for each removal, None where there is none."""
    method, panels = METHODS[name], []
    for removal in explanation.removals:
        result = explanation.results.get((name, removal))
        panels.append(result and plots.Panel(_found(result), _shown(result, method.level)))
    return plots.Row(
        f"{method.title}\n{_variants(explanation, name)}",
        panels,
        colour_label=method.unit.format(target),
        signed=method.signed,
    )


def _with_title(panel: plots.Panel, pair: tuple[str, str], result: Result) -> plots.Panel:
    """A panel under the name of its removal, with all that is known of its heatmap."""
    r2 = "" if result.attribution.r2 is None else f"R² {result.attribution.r2:.2f}"
    second = ", ".join(filter(None, (r2, panel.title)))
    return panel._replace(title=f"{removal_title(pair[1])}\n{second}".strip())


def _found(result: Result) -> str:
    found = result.numbers.get("relevance_rank_accuracy")
    return "" if found is None else f"object found {found:.0%}"


def _shown(result: Result, level: bool) -> np.ndarray:
    heatmap = result.attribution.heatmap
    return heatmap - heatmap.mean() if level else heatmap


def _variants(explanation: Explanation, name: str) -> str:
    counts = {
        result.attribution.num_variants
        for (method, _), result in explanation.results.items()
        if method == name
    }
    unit = "variant" if max(counts) == 1 else "variants"
    return f"{' to '.join(map(str, sorted({min(counts), max(counts)})))} {unit}"


def _table(columns: dict[str, list[str]]) -> list[str]:
    """Lines of a table with headings of two lines; names to the left, numbers to the right."""
    lines = []
    for heading, cells in columns.items():
        cells = [*heading.split("\n"), *cells]
        width = max(map(len, cells))
        left = heading in ("\nmethod", "\nremoval")
        lines.append([cell.ljust(width) if left else cell.rjust(width) for cell in cells])
    return ["  ".join(line).rstrip() for line in zip(*lines)]


def _number(value) -> str:
    return "-" if value is None else f"{value:.2f}"


def _first(explanation: Explanation) -> Attribution:
    """All attributions are of one image and one class: the first tells which."""
    return next(iter(explanation.results.values())).attribution
