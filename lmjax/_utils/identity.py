"""Identities of results: what they depend on, as JSON that can be compared."""

import json
from typing import Any


def has_version(source: Any) -> bool:
    """Returns whether a source of images has a `version` that identifies what it holds: a text.

    Other values do not: Hugging Face's datasets have a version of their format there, or None.
    """
    version = getattr(source, "version", None)
    return isinstance(version, str) and version != ""


def source_version(source: Any) -> str:
    """Returns the `version` of a source of images, or the name of its type where it has none."""
    return source.version if has_version(source) else type(source).__name__


def plain(value: Any) -> Any:
    """Returns a value as JSON reads it; whole numbers become integers, so 1.0 and 1 are equal."""
    return json.loads(json.dumps(value), parse_float=_number)


def _number(text: str) -> int | float:
    value = float(text)
    return int(value) if value.is_integer() else value


def differences(found: Any, wanted: Any, name: str = "") -> list[str]:
    """Describes where two identities differ, one sentence each; `name` is the part compared."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        return [
            text
            for key in dict.fromkeys((*found, *wanted))
            for text in differences(found.get(key), wanted.get(key), f"{name}.{key}".lstrip("."))
        ]
    if found == wanted:
        return []
    return [f"{name} is {json.dumps(found)} there and {json.dumps(wanted)} here"]
