"""Settings of studies: fields of a frozen dataclass, to JSON and back, and checks of values."""

import dataclasses
import itertools
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from lmjax import removals
from lmjax._utils.checks import check_distinct, check_whole
from lmjax._utils.renamed import old_names
from lmjax._utils.summary import brief
from lmjax.removals.registry import prototype

T = TypeVar("T")


def for_tables(default: Any) -> Any:
    """Returns a dataclass field that only tables depend on: another value keeps a run's rows."""
    return dataclasses.field(default=default, metadata={"for_tables": True})


def settings(study: Any) -> dict[str, Any]:
    """Returns all settings of a study by name."""
    return {field.name: getattr(study, field.name) for field in dataclasses.fields(study)}


def row_settings(study: Any) -> dict[str, Any]:
    """Returns the settings that rows depend on: all but the fields made by `for_tables`."""
    return {
        field.name: getattr(study, field.name)
        for field in dataclasses.fields(study)
        if "for_tables" not in field.metadata
    }


def texts(settings: Iterable[Any]) -> list[str]:
    """Returns the texts among the values of settings and in their tuples, such as names."""
    tuples = (value if isinstance(value, tuple) else (value,) for value in settings)
    return [each for each in itertools.chain.from_iterable(tuples) if isinstance(each, str)]


def from_settings(study: type[T], found: Mapping[str, Any]) -> T:
    """Makes a study from settings that were stored as JSON, whose lists become tuples.

    Settings that an earlier version stored by names that have changed since get the new ones.

    Raises:
      ValueError: a setting that the study does not have, or a value that it does not take.
    """
    hints = typing.get_type_hints(study)
    known = {field.name: hints[field.name] for field in dataclasses.fields(study)}  # type: ignore[arg-type]
    new = old_names(study)
    found = {new.get(name, name): value for name, value in found.items()}
    given = {name: tuple(v) if isinstance(v, list) else v for name, v in found.items()}
    for name, value in given.items():
        if name not in known:
            raise ValueError(f"settings.{name} is no setting of this study")
        if not _is_of(value, known[name]):
            raise ValueError(f"settings.{name} cannot be {found[name]!r}")
    return study(**given)


def _is_of(value: Any, hint: Any) -> bool:
    """Returns whether a value is of an annotated type, as far as its outermost part tells."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return any(_is_of(value, each) for each in typing.get_args(hint))
    kind = typing.get_origin(hint) or hint
    if not isinstance(kind, type):  # Literal and the like
        return True
    return isinstance(value, kind) or (kind is float and isinstance(value, int))


def check_removals(
    names: Iterable[str], argument: str = "removals", *, segments: bool = False
) -> None:
    """Raises ValueError unless all names are of removals and none is repeated.

    Args:
      names: of removals.
      argument: what the setting is called, for the error.
      segments: whether the study's masks are made of segments, which some removals need.
    """
    names = tuple(names)
    for name in names:
        removals.check_name(name, argument=argument)
        if removals.needs_segments(name) and not segments:
            raise ValueError(
                f"{argument} cannot be {name} in this study, whose masks are not made of segments; "
                "take image_mean"
            )
    check_distinct(argument, names)
    titles = {removals.title(name): name for name in names}
    for name in names:
        other = titles[removals.title(name)]
        if other != name:
            raise ValueError(
                f"{argument} {name} and {other} would both be called {removals.title(name)!r} in "
                "tables and figures; rename one of the files"
            )


def check_fit(networks: Mapping[str, Any], names: Iterable[str]) -> None:
    """Raises ValueError where a removal is for another type of network than one that is given.

    Args:
      networks: classifiers by name.
      names: of removals.
    """
    names = tuple(names)
    for network, classifier in networks.items():
        own = getattr(classifier, "masking", None)
        if own is None:
            continue
        for name in names:
            prototype(name)  # a file that cannot be read is not the network's fault
            try:
                removals.check_fits(name, own)
            except ValueError as error:
                raise ValueError(
                    f"removal {name} does not fit network {network}; take {removals.OWN}, each "
                    f"network's own, or one that paints, such as grey: {error}"
                ) from error


def check_whole_numbers(
    name: str, values: Sequence[int], *, least: int = 1, rising: bool = False
) -> None:
    """Raises ValueError unless there are whole numbers, none of them twice.

    Args:
      name: of the setting, for the error.
      values: the numbers.
      least: the smallest that is allowed.
      rising: whether each must be larger than the one before.
    """
    for value in values:
        check_whole(name, value, least=least)
    if not values or list(values) != (sorted({*values}) if rising else [*dict.fromkeys(values)]):
        raise ValueError(
            f"{name} must be one or more whole numbers, {least} or more, "
            f"{'rising' if rising else 'each once'}; got {brief(values)}"
        )
