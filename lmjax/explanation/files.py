"""Files of an explanation: a figure, its arrays and a record."""

import io
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lmjax._utils.atomic import atomic_write
from lmjax.explanation.render import arrays, record

if TYPE_CHECKING:
    from lmjax.explanation.result import Explanation

FORMATS = (".png", ".pdf", ".svg")


def check_output(
    output: str | os.PathLike, image: str | os.PathLike | None = None
) -> tuple[Path, Path, Path]:
    """Returns the files to write (figure, arrays, record), once they are known to be writable.

    Args:
      output: the figure.
      image: file that is explained, if it is one: it is not overwritten.

    Raises:
      ValueError: another suffix, or the image itself.
      OSError: a folder that does not exist or cannot be written.
    """
    path = Path(output)
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"output must end in {', '.join(FORMATS)}; got {path}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"output folder {path.parent} does not exist; create it first")
    files = (path, path.with_suffix(".npz"), path.with_suffix(".json"))
    for file in files:
        if file.is_dir():
            raise IsADirectoryError(f"output {file} is a folder; give another name")
    if image is not None and path.exists() and Path(image).exists() and path.samefile(image):
        raise ValueError(f"output {path} is the image itself; give another name")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OSError(f"output {path} cannot be written: {error.strerror}") from error
    return files


def write(explanation: "Explanation", files: tuple[Path, Path, Path]) -> None:
    """Writes figure, arrays and record; all three are made before the first is written."""
    from lmjax import plots

    figure, contents = io.BytesIO(), io.BytesIO()
    plots.save(explanation.figure(), figure, format=files[0].suffix[1:].lower())
    np.savez_compressed(contents, **arrays(explanation))  # pyright: ignore[reportArgumentType]
    text = json.dumps(record(explanation), indent=2, default=str) + "\n"
    for file, content in zip(files, (figure.getvalue(), contents.getvalue(), text.encode())):
        with atomic_write(file) as path:
            path.write_bytes(content)
