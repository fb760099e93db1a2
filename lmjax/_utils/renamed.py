"""Names that changed: the old one works for a release, with a warning."""

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

T = TypeVar("T", bound=Callable)

_OLD_NAMES = "_old_names"
_WHEN = "the old name goes with the next release"


def renamed(**names: str) -> Callable[[T], T]:
    """Lets a function or a dataclass take keyword arguments by their old names too.

    The attributes of a dataclass can be read by the old names, and `old_names` tells them.

    Args:
      **names: old name -> new name.
    """

    def decorate(target: Any) -> Any:
        if not isinstance(target, type):
            return _taking(names, target)
        target.__init__ = _taking(names, target.__init__, called=target.__name__)
        for old, new in names.items():
            setattr(target, old, _attribute(old, new))
        setattr(target, _OLD_NAMES, {**old_names(target), **names})
        return target

    return decorate


def old_names(kind: type) -> Mapping[str, str]:
    """Returns the old names of a dataclass's fields: old name -> new name."""
    return getattr(kind, _OLD_NAMES, {})


def with_new_names(
    names: Mapping[str, str], given: Mapping[str, Any], called: str, *, stacklevel: int
) -> dict[str, Any]:
    """Returns arguments by their new names, and warns of each old one.

    Args:
      names: old name -> new name.
      given: the arguments.
      called: the function, for the error.
      stacklevel: as in `warnings.warn`, counted from here.

    Raises:
      TypeError: an argument by both names.
    """
    found = dict(given)
    for old in names.keys() & given.keys():
        new = names[old]
        if new in found:
            raise TypeError(f"{called}: {old} is the old name of {new}")
        warnings.warn(notice(f"{old}=", f"{new}="), DeprecationWarning, stacklevel=stacklevel)
        found[new] = found.pop(old)
    return found


def notice(old: str, new: str) -> str:
    """Returns the sentence that says that a name has changed."""
    return f"{old} is now {new}; {_WHEN}"


def _taking(names: Mapping[str, str], function: Any, called: str | None = None) -> Any:
    @functools.wraps(function)
    def call(*args, **kwargs):
        by = called or function.__name__
        return function(*args, **with_new_names(names, kwargs, by, stacklevel=3))

    return call


def _attribute(old: str, new: str) -> property:
    def read(self):
        warnings.warn(notice(f".{old}", f".{new}"), DeprecationWarning, stacklevel=2)
        return getattr(self, new)

    return property(read)
