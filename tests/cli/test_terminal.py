"""Standard output and standard error of many kinds: one line of error, or none and success."""

import subprocess
import sys
from pathlib import Path

import pytest

from lmjax._utils.terminal import on_terminal
from lmjax.cli.main import main
from lmjax.cli.terminal import say_written

SHELL = "import sys; from lmjax.cli.main import main; main(sys.argv[1:])"


def shell(line, **environment):
    """Runs a line of a shell, where LMJAX is the command."""
    command = f"{sys.executable} -c '{SHELL}'"
    environment |= {"COLUMNS": "100", "PYTHONPATH": str(Path.cwd()), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line.replace('LMJAX', command)}"],
        capture_output=True,
        env={"COLUMNS": "100", "PYTHONPATH": str(Path.cwd()), "PATH": "/usr/bin:/bin"}
        | environment,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("LMJAX --help | head -1", "usage: lmjax"),
        ("LMJAX --help | true", ""),
        ("LMJAX --help >&-", ""),
        ("LMJAX --help 2>&-", "usage: lmjax"),
        ("LMJAX --help >&- 2>&-", ""),
    ],
)
def test_closed_streams_are_no_error(line, shown):
    status, out, err = shell(line)
    assert (status, err) == (0, "")
    assert out.startswith(shown)


@pytest.mark.parametrize("line", ["LMJAX nonsense 2>&-", "LMJAX train network 2>/dev/full"])
def test_errors_that_cannot_be_printed_are_still_errors(line):
    status, out, err = shell(line)
    assert status != 0
    assert "Traceback" not in out + err


def test_a_full_disk_is_one_line():
    status, _, err = shell("LMJAX --help >/dev/full")
    assert status == 1
    assert err.startswith("lmjax: error: ")
    assert err.count("\n") == 1
    assert "No space left on device" in err


def test_other_encodings_get_escapes():
    line = f"""{sys.executable} -c 'from lmjax.cli.terminal import *
with streams(): say("R² \\x1b"); warn("é")'"""
    assert shell(line, PYTHONIOENCODING="ascii") == (0, "R\\xb2 \\x1b\n", "\\xe9\n")


def test_a_reader_that_leaves_does_not_stop_the_command():
    line = f"""{sys.executable} -c 'import sys
from lmjax.cli.terminal import *
with streams():
    for _ in range(20000): say("line")
    warn("done")' | head -1"""
    assert shell(line) == (0, "line\n", "done\n")


def test_names_do_not_reach_the_terminal_as_they_are(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["convert", "a\x1b[2J.pth", "b.safetensors"])
    assert "\x1b" not in str(stop.value)
    assert "\\x1b[2J" in str(stop.value)


def test_progress_needs_a_terminal(monkeypatch):
    for stream in (None, open("/dev/null")):  # noqa: SIM115
        monkeypatch.setattr(sys, "stderr", stream)
        assert not on_terminal()
        if stream is not None:
            stream.close()
            assert not on_terminal()


def test_a_file_that_was_written_takes_one_line(capsys):
    say_written("a  b\nc.png", "; take it")
    assert capsys.readouterr().out == "wrote a  b\\nc.png; take it\n"
