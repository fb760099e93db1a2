"""The registry of studies: names for the command line, reports, and studies from other packages."""

import dataclasses
from typing import TypeVar

from lmjax._utils.registry import Registry
from lmjax._utils.summary import brief
from lmjax.studies.study import Study

StudyClass = TypeVar("StudyClass", bound=type[Study])

_EXPERIMENTS = "lmjax.studies.experiments"
_REGISTRY: Registry[type[Study]] = Registry("study", "lmjax.studies")
for _name, _where, _description in (
    ("removal", "removal:SegmentRemoval", "Removes growing fractions of an image's segments."),
    ("shape", "shape:MaskShape", "Removes the object, or a mask of the same shape elsewhere."),
    ("lime", "lime_quality:LimeQuality", "Scores LIME under several removals."),
    ("consistency", "consistency:Consistency", "Compares explanations by removal and by network."),
    ("baselines", "baselines:BaselineDependence", "Compares heatmaps by removal and by setting."),
    ("linearity", "linearity:FeatureLinearity", "Compares features of patches with their sum."),
    ("concordance", "concordance:Concordance", "Compares images with their shrunk copies."),
    ("in_domain", "in_domain:InDomainJudges", "Scores methods by networks that know a removal."),
    ("contest", "contest:RemovalContest", "Ranks removals by several judges, and by cost."),
):
    _REGISTRY.register(_name, f"{_EXPERIMENTS}.{_where}", description=_description, builtin=True)


def register(study: StudyClass) -> StudyClass:
    """Adds a study to `lmjax study` and to reports, under its `name`; also a class decorator.

    A package can instead declare an entry point of the group `lmjax.studies`, whose name is the
    study's name and whose object is its class.

    Args:
      study: a dataclass that is a `Study`. Its name can be registered again, which replaces the
        class; the studies of lmjax cannot be replaced.

    Returns:
      The class.

    Raises:
      ValueError: not such a class, a name with spaces or punctuation, or the name of a study of
        lmjax.
    """
    needed = ("name", "title", "check", "rows", "tables", "figures")
    complete = dataclasses.is_dataclass(study) and all(hasattr(study, each) for each in needed)
    if not (isinstance(study, type) and complete):
        raise ValueError(
            "study must be a dataclass derived from lmjax.studies.Study, with a name, a title, "
            f"rows(), tables() and figures(); got {brief(study)}"
        )
    summary = (study.__doc__ or study.title).strip().splitlines()[0]
    _REGISTRY.register(study.name, study, description=summary)
    return study


def names() -> tuple[str, ...]:
    """Returns the names of all studies: those of lmjax, registered ones, those of entry points."""
    return _REGISTRY.names()


def get(name: str) -> type[Study]:
    """Returns the class of a study; raises ValueError for an unknown name and lists the names."""
    return _REGISTRY.get(name)


def description(name: str) -> str:
    """Returns a line about a study; raises ValueError as `get` does."""
    return _REGISTRY.description(name)


def unregister(name: str) -> None:
    """Removes a study that was registered; raises ValueError for any other."""
    _REGISTRY.unregister(name)
