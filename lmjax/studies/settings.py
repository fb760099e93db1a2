"""Settings of studies: fields of a frozen dataclass, to JSON and back, and checks of values."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from lmjax._utils.checks import check_choices, check_whole
from lmjax.removals import by_name
from lmjax.removals.masking import check_masking

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


def from_settings(study: type[T], found: Mapping[str, Any]) -> T:
    """Makes a study from settings that were stored as JSON, whose lists become tuples."""
    return study(**{k: tuple(v) if isinstance(v, list) else v for k, v in found.items()})


def check_removals(
    removals: Iterable[str], argument: str = "removals", *, segments: bool = False
) -> None:
    """Raises ValueError unless all removals are registered and none is repeated.

    Args:
      removals: names of `lmjax.removals`.
      argument: what the setting is called, for the error.
      segments: whether the study's masks are made of segments, which "segment_mean" needs.
    """
    removals = tuple(removals)
    for name in removals:
        by_name.check_name(name, argument)
        if name == "segment_mean" and not segments:
            raise ValueError(
                f"{argument} cannot be segment_mean in this study, whose masks are not made of "
                "segments; take image_mean"
            )
    check_choices(argument, removals, dict.fromkeys(removals))


def paints(removal: str) -> bool:
    """Returns whether a removal changes the image before any network sees it."""
    return removal in by_name.PAINTS


def check_fit(networks: Mapping[str, Any], removals: Iterable[str]) -> None:
    """Raises ValueError where a removal is for another type of network than one that is given.

    Args:
      networks: classifiers by name.
      removals: names of removals.
    """
    for name, network in networks.items():
        for removal in removals:
            _check_fits(removal, name, network)


def _check_fits(removal: str, name: str, network: Any) -> None:
    """Raises ValueError unless a removal inside the network is one for this type of network."""
    own = getattr(network, "masking", None)
    if own is None or by_name.check_name(removal)[0] not in by_name.INSIDE_NETWORK:
        return
    try:
        check_masking(by_name.make(removal), own)
    except ValueError as error:
        raise ValueError(
            f"removal {removal} does not fit network {name}; take {by_name.OWN}, each network's "
            f"own, or one that paints, such as grey: {error}"
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
            f"{'rising' if rising else 'each once'}; got {values!r}"
        )
