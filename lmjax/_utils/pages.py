"""Pages in HTML that need no server, no network and no other file."""

import base64
import hashlib
import html
import importlib.resources
import io
import json
import string
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lmjax._utils.text import printable

# Pictures with more pixels are JPEG.
_LARGEST_PNG = 384 * 384
_QUALITY = 90
_HEAD = 1000  # bytes in which a page says what wrote it
# `default-src 'none'` forbids browsers to fetch anything.
_PAGE = string.Template("""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">$generator
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; \
style-src 'unsafe-inline'; script-src $scripts">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
$style
</style></head>
<body>
$body
$code</body></html>
""")


def document(
    *, title: str, body: str, generator: str, style: str = "", script: str = "", data: Any = None
) -> str:
    """Returns a page that browsers forbid to fetch anything.

    Args:
      title: as text.
      body: as HTML.
      generator: what writes such pages, for `is_by`.
      style: after the style that all pages share.
      script: that the page runs; browsers run no other.
      data: what JSON can hold, which the script finds in the element `data`.
    """
    scripts = "'none'"
    code = ""
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        scripts = f"'sha256-{digest}'"
        code = f'<script type="application/json" id="data">{_json(data)}</script>\n'
        code += f"<script>{script}</script>\n"
    return _PAGE.substitute(
        generator=_generator(generator),
        scripts=scripts,
        title=text(title),
        style=resource("lmjax._utils", "pages.css") + style,
        body=body,
        code=code,
    )


def resource(package: str, name: str) -> str:
    """Returns the text of a file that comes with a package."""
    return importlib.resources.files(package).joinpath(name).read_text("utf-8")


def is_by(path: Path, generator: str) -> bool:
    """Returns whether a file is a page of this generator."""
    with open(path, "rb") as file:
        return _generator(generator).encode() in file.read(_HEAD)


def text(value: Any) -> str:
    """Returns a value as text in HTML, never as markup."""
    return html.escape(printable(value))


def picture(pixels: np.ndarray, *, quality: int | None = None) -> str:
    """Returns a picture as the address of an image whose data is in the address.

    Args:
      pixels: `[H, W]` or `[H, W, C]` in [0, 1], C 1 or 3.
      quality: of JPEG, 1 to 95; None loses nothing, but of large pictures.
    """
    from PIL import Image

    levels = np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
    levels = levels[..., 0] if levels.ndim == 3 and levels.shape[-1] == 1 else levels
    contents = io.BytesIO()
    if quality is None and levels.shape[0] * levels.shape[1] <= _LARGEST_PNG:
        kind = "png"
        Image.fromarray(levels).save(contents, "png", optimize=True)
    else:
        kind = "jpeg"
        Image.fromarray(levels).save(contents, "jpeg", quality=quality or _QUALITY)
    return f"data:image/{kind};base64,{base64.b64encode(contents.getvalue()).decode()}"


def packed(array: np.ndarray) -> str:
    """Returns whole numbers from 0 to 65535 as text: little-endian, by zlib, in base64."""
    return base64.b64encode(zlib.compress(array.astype("<u2").tobytes(), 9)).decode()


def _generator(name: str) -> str:
    return f'<meta name="generator" content="{html.escape(name)}">'


def _json(data: Any) -> str:
    """Returns JSON that no HTML parser takes for the end of a script."""
    return json.dumps(_plain(data), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _plain(value: Any) -> Any:
    """Returns arrays as lists, and numbers with the digits that float32 has; None for NaN."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return value
