"""Registries: names for things that users choose by name, which other packages can add to."""

import difflib
import functools
import importlib
import importlib.metadata
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any, Generic, NamedTuple, TypeVar

from lmjax._utils.code import fingerprint
from lmjax._utils.renamed import notice

T = TypeVar("T")

_registries: list["Registry"] = []


class Entry(NamedTuple):
    """A registered name.

    Attributes:
      name: as users write it.
      value: the thing itself, or `"module:attribute"` where it is imported on first use.
      description: one line, for help texts and tables.
      builtin: whether it comes with lmjax.
    """

    name: str
    value: Any
    description: str
    builtin: bool = False


class Registry(Generic[T]):
    """Names of things that users choose by name, each with its value and a line of description.

    Packages join through entry points of the group `lmjax.KINDS`: the entry point's name is the
    registered name and its object the value; the object's attribute `description` describes it, or
    else the first line of its docstring. An entry point is imported when its name is asked for.

    Args:
      kind: what one entry is called in errors, such as "removal".
      group: group of the entry points, such as "lmjax.removals".
    """

    def __init__(self, kind: str, group: str):
        self.kind, self.group = kind, group
        self._entries: dict[str, Entry] = {}
        self._old_names: dict[str, str] = {}
        _registries.append(self)

    def register(self, name: str, value: T | str, *, description: str, builtin: bool = False):
        """Adds a name; a name that is not built in may be registered again, and is replaced.

        Args:
          name: as users write it.
          value: the thing itself, or `"module:attribute"`, imported on first use.
          description: one line.
          builtin: whether it comes with lmjax, so that nothing can replace it.

        Raises:
          ValueError: a name that cannot be written on a command line, or a built-in one.
        """
        if not isinstance(name, str) or not name or set(name) & set(" ,:=@/'\"\t\n"):
            raise ValueError(
                f"{self.kind} name must be a word without spaces, commas, colons, '=', '@' and "
                f"'/'; got {name!r}"
            )
        if not isinstance(description, str):
            raise ValueError(f"description must be a line of text; got {description!r}")
        if name in self._entries and self._entries[name].builtin:
            raise ValueError(f"{self.kind} {name!r} comes with lmjax; register another name")
        self._entries[name] = Entry(name, value, description, builtin)

    def renamed(self, **names: str) -> None:
        """Lets names be written as they were before, with a warning: old name -> new name."""
        self._old_names |= names

    def unregister(self, name: str) -> None:
        """Removes a name that was registered; built-in names stay."""
        if name not in self._entries or self._entries[name].builtin:
            raise ValueError(f"{self.kind} {name!r} was not registered")
        del self._entries[name]

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        known = name in self._entries or name in self._old_names
        return known or name in self._found()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def names(self) -> tuple[str, ...]:
        """Returns all names: built-in and registered ones in order, then those of entry points."""
        return tuple(dict.fromkeys((*self._entries, *self._found())))

    def get(self, name: str, *, argument: str | None = None) -> T:
        """Returns the value of a name, imported where necessary.

        Args:
          name: one of `names()`.
          argument: what the caller's argument is called, for the error; None takes the kind.

        Raises:
          ValueError: another name; lists those there are, and those that are spelt alike.
          ImportError: the package that provides the name cannot be imported.
        """
        entry = self._entry(name, argument)
        if isinstance(entry.value, str):
            module, _, attribute = entry.value.partition(":")
            entry = entry._replace(value=getattr(importlib.import_module(module), attribute))
            self._entries[name] = entry
        return entry.value

    def code(self, name: str) -> str | None:
        """Returns a fingerprint of a value that others registered; None for a built-in one."""
        if self._entry(name, None).builtin:
            return None
        value = self.get(name)
        return fingerprint(getattr(value, "function", value))  # of a method with its descriptions

    def description(self, name: str) -> str:
        """Returns the line that describes a name."""
        return self._entry(name, None).description

    def check(self, name: str, *, argument: str | None = None) -> str:
        """Returns the name, the new one of a name that changed.

        Raises:
          ValueError: as `get`.
        """
        if name not in self:
            raise ValueError(self._unknown(name, argument))
        return self.new_name(name)

    def new_name(self, name: Any) -> str:
        """Returns a name; of one that changed the new one, with a warning."""
        if not isinstance(name, str) or name in self._entries or name not in self._old_names:
            return name
        new = self._old_names[name]
        warnings.warn(f"{self.kind} {notice(name, new)}", FutureWarning, stacklevel=4)
        return new

    def _entry(self, name: str, argument: str | None) -> Entry:
        if not isinstance(name, str):
            raise ValueError(self._unknown(name, argument))
        name = self.new_name(name)
        if name not in self._entries:
            found = self._found().get(name)
            if found is None:
                raise ValueError(self._unknown(name, argument))
            value = found.load()
            self._entries[name] = Entry(name, value, _describe(value) or found.value)
        return self._entries[name]

    def _found(self) -> dict[str, EntryPoint]:
        return {each.name: each for each in entry_points(group=self.group)}

    def _unknown(self, name: object, argument: str | None) -> str:
        names = self.names()
        near = difflib.get_close_matches(str(name), names, n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        return f"{argument or self.kind} must be one of {', '.join(names)}; got {name!r}{hint}"


def registered_code(names: Iterable[str]) -> dict[str, str]:
    """Returns fingerprints of what users and other packages registered, by kind and name.

    Args:
      names: texts; what no registry knows is passed over. A removal may have a setting, `"name@2"`.
    """
    bases = {name.partition("@")[0] for name in names}
    found = {
        f"{each.kind} {base}": each.code(base)
        for each in _registries
        for base in sorted(bases.intersection(each.names()))
    }
    return {name: code for name, code in found.items() if code is not None}


def entry_points(group: str) -> EntryPoints:
    """Returns the entry points of a group among all that is installed."""
    return _installed(tuple((path, _changed(path or ".")) for path in sys.path)).select(group=group)


@functools.lru_cache(maxsize=1)
def _installed(state: tuple[tuple[str, int | None], ...]) -> Any:
    """Reads the metadata of every package, hundreds of files; again when a folder has changed.

    In Python 3.10 and 3.11 the result is a dict, which has the method `select` too.
    """
    return importlib.metadata.entry_points()


def _changed(folder: str) -> int | None:
    try:
        return os.stat(folder).st_mtime_ns
    except (OSError, ValueError, TypeError):  # what cannot be a folder, importlib passes over
        return None


def _describe(value: Any) -> str:
    described = getattr(value, "description", None)
    text = described if isinstance(described, str) else value.__doc__ or ""
    return text.strip().partition("\n")[0]
