"""The page of an explanation, which is looked at in a browser without a server or a network."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from lmjax import removals
from lmjax._utils import outputs
from lmjax._utils.atomic import atomic_write
from lmjax._utils.pages import document, is_by, packed, picture, resource
from lmjax._utils.text import printable
from lmjax.attribution import methods
from lmjax.attribution.methods import WHOLE
from lmjax.evaluation import Evaluator
from lmjax.explanation.classes import class_name
from lmjax.explanation.page.answers import answers_of, asked_of
from lmjax.explanation.page.maps import maps_of
from lmjax.explanation.page.partners import partners_of
from lmjax.explanation.page.pictures import pictures_of
from lmjax.explanation.render import first_attribution, record, removal_title, why_not

if TYPE_CHECKING:
    from lmjax.explanation.result import Explanation

GENERATOR = "lmjax explain"
SUFFIXES = (".html", ".htm")
_WHAT = "a page of an explanation"


def check_page(path: str | os.PathLike) -> Path:
    """Returns the path of a page, once it is known to be writable and free.

    Raises:
      ValueError: another suffix, or a file that is there and no page of an explanation.
      OSError: a folder that does not exist or cannot be written.
    """
    return outputs.check_output(path, suffixes=SUFFIXES, ours=is_page, what=_WHAT)


def is_page(path: Path) -> bool:
    """Returns whether a file is a page of an explanation."""
    return is_by(path, GENERATOR)


def check_free(path: Path) -> None:
    """Raises ValueError for a file that is there and no page of an explanation."""
    if path.exists():
        check_page(path)


def write_page(
    explanation: "Explanation",
    path: Path,
    evaluators: Mapping[str, Evaluator],
    key: jax.Array,
) -> None:
    """Writes the page of an explanation.

    Args:
      explanation: has results.
      path: of the page.
      evaluators: by removal; under `WHOLE` one that removes nothing.
      key: with which methods drew their samples.
    """
    page = render_page(explanation, evaluators, key)
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def render_page(
    explanation: "Explanation", evaluators: Mapping[str, Evaluator], key: jax.Array
) -> str:
    """Returns the page of an explanation; arguments as in `write_page`."""
    package = "lmjax.explanation.page"
    return document(
        title=f"{explanation.image.name}, explained",
        body=resource(package, "page.html"),
        generator=GENERATOR,
        style=resource(package, "page.css"),
        script=resource(package, "page.js"),
        data=_data(explanation, evaluators, key),
    )


def _data(
    explanation: "Explanation", evaluators: Mapping[str, Evaluator], key: jax.Array
) -> dict[str, Any]:
    """Returns all that the page's script shows."""
    image, classifier = explanation.image, explanation.classifier
    maps = maps_of(explanation)
    data = [each.data() for each in maps]
    for pair in explanation.results:
        mine = [i for i, each in enumerate(maps) if (each.method, each.removal) == pair]
        found = partners_of(explanation, pair, evaluators[pair[1]], key)
        for place, partners in zip(mine, found, strict=True):
            data[place]["partners"] = partners
    segments = explanation.segments
    areas = np.bincount(segments.ravel()) / segments.size
    shown = {
        name: _shown(explanation, name, evaluators[name], maps) for name in _names(explanation)
    }
    found = {i for each in shown.values() for i in _classes(each)} | {*explanation.targets}
    return {
        "image": {
            "name": printable(image.name),
            "height": image.pixels.shape[0],
            "width": image.pixels.shape[1],
            "picture": picture(image.pixels),
            "grey": picture(image.pixels.mean(axis=-1)),
        },
        "segments": {"labels": packed(segments), "shares": areas},
        "targets": explanation.targets,
        "classes": {str(i): printable(class_name(i, classifier)) for i in sorted(found)},
        "prediction": _prediction(explanation),
        "methods": [
            {"name": name, "title": methods.get(name).title} for name in explanation.methods
        ],
        "removals": [_removal(name) for name in shown],
        "maps": data,
        "absent": _absent(explanation, shown),
        "shown": shown,
        "colours": _colours(),
        "record": _recorded(explanation),
    }


def _names(explanation: "Explanation") -> list[str]:
    """Returns the removals of a page: those of results, or all where nothing is removed."""
    names = [name for name in explanation.removals if name != WHOLE]
    return names or list(explanation.config.removal or ())


def _shown(
    explanation: "Explanation", removal: str, evaluator: Evaluator, maps: list
) -> dict[str, Any]:
    """Returns pictures and answers under a removal, those of maps by their place among all."""
    asked = asked_of(explanation, maps, removal)
    found = pictures_of(explanation, evaluator.predictor, asked)
    singles, of_maps = asked.parts(answers_of(explanation, evaluator, asked))
    return {
        **found,
        "shown": dict(zip(asked.places, found["shown"], strict=True)),
        "hiddenAnswers": singles,
        "shownAnswers": dict(zip(asked.places, of_maps, strict=True)),
    }


def _classes(shown: dict[str, Any]) -> set[int]:
    """Returns the classes that are among the answers under a removal."""
    answers = [shown["hiddenAnswers"], *shown["shownAnswers"].values()]
    return {i for several in answers for each in several for i, _ in each["top"]}


def _prediction(explanation: "Explanation") -> dict[str, Any]:
    first, classifier = first_attribution(explanation), explanation.classifier
    label = explanation.image.label
    return {
        "name": printable(class_name(first.predicted_class, classifier)),
        "probability": first.predicted_probability,
        "label": None if label is None else printable(class_name(label, classifier)),
    }


def _removal(name: str) -> dict[str, str]:
    from lmjax import plots

    return {
        "name": name,
        "title": removal_title(name),
        "colour": plots.removal_colour(name),
        "description": removals.description(name),
    }


def _absent(explanation: "Explanation", shown: Mapping[str, Any]) -> dict[str, str]:
    """Returns why methods have no map under some removals, by "method/removal"."""
    pairs = [(method, removal) for method in explanation.methods for removal in shown]
    return {
        "/".join(pair): why_not(methods.get(pair[0]), pair[1])
        for pair in pairs
        if pair not in explanation.results and (pair[0], WHOLE) not in explanation.results
    }


def _colours() -> dict[str, Any]:
    """Returns the colour maps of figures, and how opaque heatmaps are."""
    from lmjax import plots

    return {
        "signed": plots.colour_table(signed=True),
        "unsigned": plots.colour_table(signed=False),
        "opacity": plots.OPACITY,
    }


def _recorded(explanation: "Explanation") -> list[tuple[str, str]]:
    """Returns the settings, weights and versions that the page lists at its end."""
    found = record(explanation)
    settings = {name: each for name, each in found["settings"].items() if each is not None}
    about = {name: _said(each) for name, each in settings.items()}
    about |= {name: str(found[name]) for name in ("image", "image_sha256", "weights_sha256")}
    about["versions"] = ", ".join(f"{name} {each}" for name, each in found["versions"].items())
    about["device"] = found["device"]
    return [(name, printable(each)) for name, each in about.items()]


def _said(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
