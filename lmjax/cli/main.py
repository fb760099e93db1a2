"""The command line: each command is a module, imported only when it runs."""

import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING

import lmjax
from lmjax._utils.interruption import Interrupted
from lmjax._utils.renamed import notice
from lmjax._utils.text import one_line, printable
from lmjax.cli.interruption import end, interruptible
from lmjax.cli.terminal import say, streams, warn

if TYPE_CHECKING:
    import tyro

COMMANDS = {
    "explain": "Shows which parts of an image a network uses, as a figure.",
    "convert": "Turns a .pth checkpoint into safetensors, and records where it came from.",
    "models": "Lists the networks: parameters, input size, published weights, engines.",
    "data": "Lists datasets, and prepares other files that studies read.",
    "study": "Runs a study over many images, or reports on finished ones.",
    "train": "Trains a network; resumes where it was stopped.",
}
"""Commands, each `lmjax.cli.NAME`, and what `lmjax --help` says of them."""

REPLACED = {"bench": "python -m benchmarks.engines masks in a clone of the repository"}

_DESCRIPTION = """Layer masking: what does a network see when part of an image is missing?

Every command takes --import MODULE, any number of times: a Python module that registers removals,
methods, networks, segmenters, sources or studies of your own.

lmjax --version tells the version."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command. Bad input ends in one line on standard error and exit status 1.

    Args:
      arguments: of the command line; None takes those of this process, which is to end with the
        command: Ctrl-C and SIGTERM are ignored afterwards.
    """
    with streams(), warnings.catch_warnings():
        warnings.showwarning = _show_warning
        given = sys.argv[1:] if arguments is None else arguments
        _run(list(given), last=arguments is None)


def _run(arguments: list[str], *, last: bool) -> None:
    if arguments == ["--version"]:
        say(f"lmjax {lmjax.__version__}")
        return
    command = None
    try:
        modules, arguments = take_imports(arguments)
        with interruptible(last=last):
            import_modules(modules)
            command = _command(arguments)
            arguments = with_new_names(arguments, command)
            build(command).cli(prog="lmjax", description=_DESCRIPTION, args=arguments)
    except BrokenPipeError:  # whoever read the output has left
        raise
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"lmjax: error: {_one_line(getattr(error, 'short', error))}")
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        sys.exit(f"lmjax: error: out of memory; {getattr(command, 'LESS_MEMORY', '')}".rstrip("; "))
    except Interrupted as error:
        end(error.signal)
    except KeyboardInterrupt:
        sys.exit(130)


def build(command: ModuleType | None) -> "tyro.extras.SubcommandApp":
    """Returns the commands by name, of which only the one that runs is imported.

    Args:
      command: module of the command that runs, if it is one of `COMMANDS`.
    """
    import tyro  # not above: an interrupt may come while it is imported

    app = tyro.extras.SubcommandApp()
    for name, about in COMMANDS.items():
        made = _not_imported
        if command is not None and command.__name__.endswith(f".{name}"):
            made = command.build()
        app.command(name=name, help=about)(made)
    return app


def _command(arguments: Sequence[str]) -> ModuleType | None:
    """Imports the module of the command that the arguments begin with, if they do."""
    name = arguments[0] if arguments else ""
    if name in REPLACED:
        raise ValueError(f"the command {name} is gone; use {REPLACED[name]}")
    return importlib.import_module(f"lmjax.cli.{name}") if name in COMMANDS else None


def with_new_names(arguments: Sequence[str], command: ModuleType | None) -> list[str]:
    """Replaces the old names of options by the new ones, and says so.

    Args:
      arguments: of the command line, the command's name first.
      command: its module; those with options that were renamed have `old_options(arguments)`.
    """
    names = getattr(command, "old_options", lambda _: {})(arguments[1:])
    written = {_option(old): _option(new) for old, new in names.items()}
    found = []
    for argument in arguments:
        option, equals, value = argument.partition("=")
        new = written.get(option.replace("_", "-"))
        if new is not None:
            warn(f"lmjax: {notice(option, new)}")
        found.append(argument if new is None else f"{new}{equals}{value}")
    return found


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _not_imported() -> None:
    """Stands for a command that does not run."""


def take_imports(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the modules of all `--import MODULE`, and the other arguments.

    Raises:
      ValueError: an `--import` without a module.
    """
    modules, others, left = [], [], list(arguments)
    while left:
        option, equals, module = left.pop(0).partition("=")
        if option != "--import":
            others.append(f"{option}{equals}{module}")
        elif equals or left:
            modules.append(module if equals else left.pop(0))
        else:
            raise ValueError("--import needs the name of a module: --import my_module")
    return modules, others


def import_modules(modules: Sequence[str]) -> None:
    """Imports modules, also of the working directory, for what they register.

    Raises:
      ImportError: a module that cannot be imported.
    """
    if modules and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:  # it is the user's code
            raise ImportError(
                f"--import {module} failed: {type(error).__name__}: {error}; give a module's name, "
                "as in Python's import, of this folder or an installed package"
            ) from error


def _one_line(message) -> str:
    return printable(one_line(message))


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    warn(f"lmjax: warning: {_one_line(message)}")
