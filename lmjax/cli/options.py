"""Options of commands, made from dataclasses and docstrings of the package."""

import dataclasses
import inspect
import pkgutil
import re
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal

from tyro.conf import arg

_CONTINUATION = re.compile(r"\n {5,}(?=\S)")  # lines of an argument, after its first
_CALL = re.compile(r"`(lmjax(?:\.\w+)+)\(\)`")
_METAVARS = {int: "INT", float: "FLOAT", str: "STR"}

OptionalInt = Annotated[int | None, arg(metavar="INT")]
OptionalStr = Annotated[str | None, arg(metavar="STR")]


def help_text(docstring: str | None) -> str:
    """Returns a docstring as help text: each argument in one line, and names listed.

    Calls of functions that list names, such as `` `lmjax.segments.names()` ``, are replaced by the
    names. So help lists what is registered when the command runs.
    """

    def listed(match: re.Match) -> str:
        names = pkgutil.resolve_name(match[1])()
        return ("; " if any("," in name for name in names) else ", ").join(names)

    joined = _CONTINUATION.sub(" ", inspect.cleandoc(docstring or ""))
    return _CALL.sub(listed, joined)


def documented(function: Callable) -> Callable:
    """Makes a command's docstring its help text; a decorator, the innermost."""
    function.__doc__ = help_text(function.__doc__)
    return function


def options_of(kind: type) -> type:
    """Returns a subclass of a frozen dataclass whose fields are options of a command.

    Its docstring is a help text (`help_text`). A value that may be None is shown as what it is
    otherwise; of a `Literal` the settings check it. Of a union, the command line takes the parts
    that can be written there.

    Args:
      kind: dataclass of settings.
    """
    hints = typing.get_type_hints(kind)
    fields = [
        (field.name, _option(hints[field.name]), field)
        for field in dataclasses.fields(kind)
        if typing.get_origin(hints[field.name]) in (types.UnionType, typing.Union)
    ]
    namespace = {"__module__": kind.__module__, "__doc__": help_text(kind.__doc__)}
    return dataclasses.make_dataclass(
        kind.__name__, fields, bases=(kind,), frozen=True, namespace=namespace
    )


def _option(hint: Any) -> Any:
    parts = [each for each in typing.get_args(hint) if each is not type(None)]
    written = [each for each in parts if each in _METAVARS or typing.get_origin(each)]
    metavar = "|".join(map(_metavar, written))
    written = [str if typing.get_origin(each) is Literal else each for each in written]
    if type(None) in typing.get_args(hint):
        written.append(type(None))
    return Annotated[typing.Union[tuple(written)], arg(metavar=metavar)]  # noqa: UP007


def _metavar(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return f"{{{','.join(typing.get_args(hint))}}}"
    return _METAVARS.get(hint, "[STR [STR ...]]")
