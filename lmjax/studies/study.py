"""What a study is."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import pyarrow as pa

from lmjax.removals import registry as by_name
from lmjax.studies.images import Block


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """Settings of an experiment over images, and what it makes of them.

    A study is a frozen dataclass of plain settings (numbers, strings, tuples of them), whose fields
    are its options on the command line. `run` asks for the rows of one block of images after the
    other and keeps them; tables and figures are made from all rows. Rows depend on the settings and
    on the image alone: whatever is drawn is drawn from `block.keys`.

    Attributes:
      name: of the study, on the command line.
      title: of its report.
      seed: of all that is random.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    seed: int = 0

    def check(self, networks: Mapping[str, Any]) -> None:
        """Raises ValueError where settings do not fit the networks: by default, `asked_under`."""
        for name, network in networks.items():
            for removal in self.asked_under():
                _check_fits(removal, name, network)

    def asked_under(self) -> tuple[str, ...]:
        """Names of the removals under which networks are asked: by default, `removals`."""
        return getattr(self, "removals", ())

    def rows(self, block: Block) -> list[dict[str, Any]]:
        """What is measured: rows for each image, all with the same columns, `image` among them."""
        raise NotImplementedError

    def tables(self, rows: pa.Table) -> dict[str, list[dict[str, Any]]]:
        """Summaries over images by name, each a list of rows."""
        raise NotImplementedError

    def figures(self, tables: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
        """Figures by name, from `tables`."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """All settings by name."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def settings_of_rows(self) -> dict[str, Any]:
        """The settings that rows depend on: all but those for tables alone (`for_tables()`)."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if "for_tables" not in field.metadata
        }

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "Study":
        """The study with settings as JSON gives them back."""
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()})


def for_tables(default):
    """A field of a study that tables depend on and rows do not: another value keeps the rows."""
    return dataclasses.field(default=default, metadata={"for_tables": True})


def check_choices(argument: str, chosen: Iterable[str], allowed: Iterable[str]) -> None:
    """Raises ValueError unless there is a choice, each made once, all of them allowed."""
    chosen, allowed = tuple(chosen), tuple(allowed)
    bad = [each for each in chosen if each not in allowed]
    if bad or not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(
            f"{argument} must be one or more of {', '.join(allowed)}, each once; got "
            f"{', '.join(map(str, bad or chosen)) or 'none'}"
        )


def check_removals(
    removals: Iterable[str], argument: str = "removals", *, segments: bool = False
) -> None:
    """Raises ValueError unless there are removals, each once, all known by name.

    Args:
      removals: their names.
      argument: what they are called.
      segments: whether the study has segments, which "segment_mean" takes.
    """
    removals = tuple(removals)
    for name in removals:
        by_name.check_name(name, argument)
        if by_name.needs_segments(name) and not segments:
            raise ValueError(
                f"{argument} cannot be {name} in this study, whose masks are not made of "
                "segments; take image_mean"
            )
    check_choices(argument, removals, dict.fromkeys(removals))


def _check_fits(removal: str, name: str, network: Any) -> None:
    """Raises ValueError for a removal inside the network that is for another kind of networks."""
    own = getattr(network, "masking", None)
    if own is None:
        return
    try:
        by_name.check_fits(removal, own)
    except ValueError as error:
        raise ValueError(
            f"removal {removal} does not fit network {name}; take {by_name.OWN}, each network's "
            f"own, or one that paints, such as grey: {error}"
        ) from error
