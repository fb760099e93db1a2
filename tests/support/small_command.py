"""`lmjax` with a small network in the place of the bundled one, as a process of its own.

python -m tests.support.small_command FOLDER ARGUMENTS...
"""

import sys
from pathlib import Path

import pytest

from lmjax.cli.main import main
from tests.support import small_digits

if __name__ == "__main__":
    folder, *arguments = sys.argv[1:]
    small_digits.replace(pytest.MonkeyPatch(), Path(folder))
    main(arguments)
