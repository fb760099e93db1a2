"""`lmjax study`: a command for each study, with an option for each of its settings."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional, arg

from lmjax._utils.renamed import old_names
from lmjax._utils.sharding import join
from lmjax._utils.text import counted, printable
from lmjax.cli.compilation_cache import compilation_cache
from lmjax.cli.devices import check_devices, describe_devices, divide_cpu
from lmjax.cli.options import OptionalInt, OptionalStr, documented, help_text, options_of
from lmjax.cli.terminal import say, say_written
from lmjax.evaluation.evaluator import Engine
from lmjax.models.loading import load_spec
from lmjax.studies import registry, reporting
from lmjax.studies.held_out import is_held_out
from lmjax.studies.images import Spending
from lmjax.studies.job import IMAGES_PER_SHARD
from lmjax.studies.reports.sections import described
from lmjax.studies.run_folder import Range
from lmjax.studies.runner import (
    DEFAULT_MODELS,
    Cost,
    default_output,
    estimate,
    open_run,
    run,
    unfinished,
)
from lmjax.studies.study import Study

LESS_MEMORY = "use fewer segments, masks or samples, as far as the study has options for them"

# The first process to finish waits this long for the others, seconds.
_LONGEST_STUDY = 30 * 24 * 3600

_OLD_OPTIONS = {"out": "output"}

Formats = tuple[Literal["png", "pdf", "svg"], ...]

_HELP = """Runs a study.

Args:
    study: settings.
    source: of images: `lmjax.data.forms()`. `lmjax data list` tells how to get
        datasets.
    models: networks, NAME or NAME=WEIGHTS, where WEIGHTS is a file, the folder of a training or a
        tag.
    images: how many, from the first; all by default (500 digit scenes).
    already_sized: images have the size that networks are to see: they are neither resized nor
        cropped.
    output: folder for rows, tables and figures; runs/STUDY by default. Run again to go on.
    formats: of figures: png, pdf or svg, one or more.
    engine: how variants are evaluated (help(lmjax.Evaluator)); auto takes the way that is expected
        to be fastest.
    batch_size: variants that a device computes together; chosen by default.
    devices: how many devices JAX sees in the CPU, which share the variants; by default one for each
        core, at most 8. 1 leaves its cores to each operation in turn. GPUs and TPUs are all used.
    images_per_shard: images that are stored together; a kill costs no more than these.
    shard: i/n does every n-th part of the work, from the i-th: n processes share it. 0/1, all of
        it, by default.
    distributed: share the work with the other processes of a cluster, which JAX finds by itself
        (SLURM, Open MPI, Kubernetes, Cloud TPU).
    retry_errors: try images again that could not be evaluated. Where these are more than half,
        tables and figures are of the others, and the exit status is 1.
    dry_run: only print how many evaluations it takes, for what, and how long.
    processes: with --dry-run, how long with this number of processes, each with devices like those
        here.
"""


def build() -> tyro.extras.SubcommandApp:
    """Returns the commands by name."""
    app = tyro.extras.SubcommandApp()
    for name in registry.names():
        command = _command(registry.get(name))
        app.command(name=name, help=registry.description(name))(command)
    app.command(report)
    app.command(seeds)
    return app


def old_options(arguments: Sequence[str]) -> dict[str, str]:
    """Returns the options whose names changed: old name -> new name."""
    name = arguments[0] if arguments else ""
    settings = old_names(registry.get(name)) if name in registry.names() else {}
    return _OLD_OPTIONS | dict(settings)


def _command(kind: type[Study]) -> Callable[..., None]:
    options = options_of(kind)

    def command(
        study: Annotated[options, arg(name="")] = options(),  # noqa: B008 # pyright: ignore
        *,
        source: str = "digit-scenes",
        models: tuple[str, ...] = DEFAULT_MODELS,
        images: OptionalInt = None,
        already_sized: bool = False,
        output: Annotated[Path | None, arg(metavar="DIR")] = None,
        formats: Formats = ("png",),
        engine: Engine = "auto",
        batch_size: OptionalInt = None,
        devices: OptionalInt = None,
        images_per_shard: int = IMAGES_PER_SHARD,
        shard: OptionalStr = None,
        distributed: bool = False,
        retry_errors: bool = False,
        dry_run: bool = False,
        processes: OptionalInt = None,
    ) -> None:
        reporting.check_formats(formats)
        divided = divide_cpu(devices)
        part = which_part(shard, distributed)
        check_devices(devices)
        if divided and (said := describe_devices()):
            say(said)
        if processes is not None and not dry_run:
            raise ValueError(
                f"processes {processes} is for --dry-run; --shard or --distributed shares a run "
                "among several"
            )
        given = study, source
        how: dict[str, Any] = {"images": images, "already_sized": already_sized}
        how |= {"engine": engine, "batch_size": batch_size}
        how["models"] = load_models(models)
        if dry_run:
            say(describe(estimate(*given, processes=processes or 1, **how)))
            return
        output = default_output(study) if output is None else output
        how |= {"images_per_shard": images_per_shard, "retry_errors": retry_errors}
        run(*given, output=output, shard=part, progress=True, **how)
        if missing := unfinished(output):
            say(describe_missing(missing))
            return
        # All rows, read again: those that `run` returned lack what another process has just done.
        manifest, rows, errors = open_run(output)
        for file in reporting.write(study, rows, output, formats=formats):
            say_written(file)
        check_errors(errors, manifest["images"])

    command.__doc__ = help_text(_HELP)
    return compilation_cache()(command)


@documented
def report(
    runs: Positional[tuple[Path, ...]],
    /,
    *,
    output: Path = Path("report.html"),
    source: OptionalStr = None,
) -> None:
    """Writes one HTML file about some runs: what was asked and how, images, figures and tables.

    A run that cannot be reported costs no other: the file says why, and the exit status is 1.

    Args:
        runs: their folders.
        output: the file.
        source: of the runs' images, of which three are shown, where the runs do not tell.
    """
    path, failures = reporting.report_each(runs, output, source=source)
    say_written(path)
    check_failures(failures, len(runs))


@documented
def seeds(
    runs: Positional[tuple[Path, ...]],
    /,
    *,
    kinds: tuple[str, ...],
    formats: Formats = ("png",),
) -> None:
    """Writes tables and figures of kinds of training: means over the seeds of each.

    Args:
        runs: folders of studies; the files (seeds_...) are written there.
        kinds: KIND=NETWORK for each network of the studies, in the order of seeds. Kinds are
            compared seed by seed: the first network of one with the first of the other, and so on.
        formats: of figures: png, pdf or svg, one or more.
    """
    by_kind, failures = parse_kinds(kinds), []
    for folder in runs:
        try:
            for file in reporting.write_seeds(folder, kinds=by_kind, formats=formats):
                say_written(file)
        except (ValueError, OSError) as error:
            failures.append((folder, error))
    check_failures(failures, len(runs))


def check_failures(failures: Sequence[tuple[Path, Exception]], runs: int) -> None:
    """Raises ValueError where some of several runs have failed; a single one's own error.

    Args:
      failures: folders and their errors.
      runs: how many there are.
    """
    if failures and runs == 1:
        raise failures[0][1]
    if failures:
        said = "; ".join(f"{folder}: {described(error)}" for folder, error in failures)
        raise ValueError(f"{len(failures)} of {runs} runs could not be reported: {said}")


def parse_kinds(specs: Sequence[str]) -> dict[str, list[str]]:
    """Groups the networks of `KIND=NETWORK` by kind, in their order."""
    kinds = {}
    for spec in specs:
        kind, equals, network = spec.partition("=")
        if not (kind and equals and network):
            raise ValueError(f"kinds must be KIND=NETWORK, such as plain=plain-0; got {spec!r}")
        kinds.setdefault(kind, []).append(network)
    return kinds


def load_models(specs: Sequence[str]) -> Mapping[str, Any]:
    """Loads networks by `NAME` or `NAME=WEIGHTS`.

    Those with weights are called `NAME=` and the weights; of a file or folder, its name without
    suffix.

    Raises:
      ValueError: two that would have the same name.
    """
    networks = {}
    for spec in specs:
        name, _, weights = spec.partition("=")
        label = f"{name}={_label(weights)}" if weights else name
        if label in networks:
            if not weights:
                raise ValueError(f"models names {spec} twice; name it once")
            raise ValueError(f"models {spec!r} would be {label!r} like another; rename the file")
        networks[label] = load_spec(spec)
    return networks


def _label(weights: str) -> str:
    path = Path(weights)
    if path.is_dir():
        return printable(path.resolve().name)
    return printable(path.stem) if path.is_file() else weights


def which_part(shard: str | None, distributed: bool) -> tuple[int, int]:
    """Returns the part of the work that this process does, as `lmjax.studies.run` takes it."""
    if not distributed:
        return parse_shard("0/1" if shard is None else shard)
    if shard is not None:
        raise ValueError(f"shard {shard!r} and distributed both say which part to do; take one")
    return join(shutdown_timeout_seconds=_LONGEST_STUDY)


def parse_shard(shard: str) -> tuple[int, int]:
    """Parses `"0/2"` as `(0, 2)`."""
    number, _, of = shard.partition("/")
    if not (number.isdecimal() and of.isdecimal()) or int(number) >= int(of):
        raise ValueError(f"shard must be i/n, from 0/n to n-1/n, such as 0/2; got {shard!r}")
    return int(number), int(of)


def describe(cost: Cost) -> str:
    """Returns the cost of a run as a sentence, and a table of its evaluations."""
    minutes = math.ceil(cost.seconds / 60)
    time = f"{cost.seconds:.0f} seconds" if cost.seconds < 100 else f"{minutes} minutes"
    images = counted(cost.images, "image")
    said = f"{images}, {cost.evaluations} evaluations, about {time}; nothing is written"
    return "\n".join([said, *spending_lines(cost.spending)])


def spending_lines(spending: Mapping[Spending, int]) -> list[str]:
    """Returns a table, in lines: evaluations by part of a study, removal and network."""
    if not spending:
        return []
    rows = [(str(n), each.part, each.removal, each.network) for each, n in spending.items()]
    columns = dict(zip(("evaluations", "for", "under", "network"), zip(*rows)))
    if len(set(columns["network"])) == 1:
        del columns["network"]
    table = [[name, *column] for name, column in columns.items() if any(column)]
    widths = [max(map(len, column)) for column in table]
    return [
        "  ".join([first.rjust(widths[0]), *map(str.ljust, others, widths[1:])]).rstrip()
        for first, *others in zip(*table)
    ]


def check_errors(errors: Sequence[dict[str, Any]], images: int) -> None:
    """Raises ValueError where more than half of the images could not be evaluated.

    Images that are left out since a removal knows them do not count.

    Args:
      errors: of a run.
      images: how many it has.
    """
    failed = [error for error in errors if not is_held_out(error)]
    judged = images - (len(errors) - len(failed))
    if 2 * len(failed) > judged:
        first = failed[0]
        raise ValueError(
            f"{len(failed)} of {judged} images could not be evaluated, so that tables are of few; "
            f"the first is {first['id']}: {first['error']}. Mend it and take --retry-errors"
        )


def describe_missing(missing: Sequence[Range]) -> str:
    """Returns a sentence that names images without rows."""
    parts = ", ".join(f"{start} to {stop - 1}" for start, stop in missing[:3])
    more = f" and {len(missing) - 3} more parts" if len(missing) > 3 else ""
    return (
        f"images {parts}{more} are missing: tables are written by the process that finishes last, "
        "or by a run without --shard"
    )
