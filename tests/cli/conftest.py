"""Commands in this process, with output in full width."""

import pytest

from lmjax.cli.main import main


@pytest.fixture(autouse=True)
def _wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
def run(capsys):
    """Runs a command; returns exit status, output and errors."""

    def run(*arguments):
        status = 0
        try:
            main(arguments)
        except SystemExit as stop:
            status = stop.code
        out, err = capsys.readouterr()
        if isinstance(status, str):  # Python prints it at the end of the process
            status, err = 1, f"{err}{status}\n"
        return status or 0, out, err

    return run
