"""Photographs that are installed with lmjax, so that nothing is fetched."""

from importlib import resources
from pathlib import Path

_FOLDERS = (
    (__name__, ""),
    ("skimage", "data"),
    ("matplotlib", "mpl-data/sample_data"),
)


def find(name: str) -> Path:
    """Finds a photograph that lmjax, scikit-image or Matplotlib ships.

    Args:
      name: of the file, such as "chelsea.png".

    Raises:
      FileNotFoundError: none of them ships it, as installed.
    """
    for package, folder in _FOLDERS:
        file = Path(str(resources.files(package))) / folder / name
        if file.is_file():
            return file
    raise FileNotFoundError(
        f"the photograph {name} is not in lmjax, scikit-image or Matplotlib as installed; "
        "reinstall them: pip install --force-reinstall lmjax scikit-image matplotlib"
    )
