"""What results depend on, as JSON: compared, and told apart in words."""

import json
from typing import Any


def source_version(source: Any) -> str:
    """What a source of images says that it holds (`version`), or else the name of its type."""
    return str(getattr(source, "version", type(source).__name__))


def plain(value: Any) -> Any:
    """As JSON gives it back, and whole numbers as integers: 1.0 and 1 are one setting."""
    return json.loads(json.dumps(value), parse_float=_number)


def _number(text: str) -> int | float:
    value = float(text)
    return int(value) if value.is_integer() else value


def differences(found: Any, wanted: Any, name: str = "") -> list[str]:
    """Where two of them differ, one sentence each; `name` is what they are part of."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        return [
            text
            for key in dict.fromkeys((*found, *wanted))
            for text in differences(found.get(key), wanted.get(key), f"{name}.{key}".lstrip("."))
        ]
    if found == wanted:
        return []
    return [f"{name} is {json.dumps(found)} there and {json.dumps(wanted)} here"]
