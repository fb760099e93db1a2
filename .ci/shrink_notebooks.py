"""Reduces the pictures in executed notebooks to 256 colours, a quarter of their size.

python .ci/shrink_notebooks.py notebooks/*.ipynb
"""

import base64
import io
import json
import sys
from pathlib import Path

from PIL import Image


def shrink(picture: str) -> str:
    """Returns a PNG in base64 with 256 colours; as it is where that is no smaller."""
    reduced = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
        colours = image.convert("RGB").quantize(256, method=Image.Quantize.FASTOCTREE, dither=0)
        colours.save(reduced, "png", optimize=True)
    text = base64.b64encode(reduced.getvalue()).decode()
    return min(text, picture, key=len)


def main(files: list[str]) -> None:
    """Rewrites the notebooks."""
    for path in map(Path, files):
        notebook = json.loads(path.read_text())
        for cell in notebook["cells"]:
            for output in cell.get("outputs", []):
                data = output.get("data", {})
                if "image/png" in data:
                    data["image/png"] = shrink("".join(data["image/png"]))
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
