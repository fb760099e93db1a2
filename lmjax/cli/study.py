"""`lmjax study`: a command for each study, with an option for each of its settings."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional, arg

from lmjax import data
from lmjax._utils.sharding import join
from lmjax.data.opening import FORMS
from lmjax.models import load
from lmjax.studies import report as reporting
from lmjax.studies.catalogue import STUDIES
from lmjax.studies.run_folder import Range
from lmjax.studies.runner import (
    DEFAULT_NETWORKS,
    Cost,
    default_out,
    estimate,
    open_run,
    run,
    unfinished,
)
from lmjax.studies.study import Study

# The first process to finish waits so long for the others, seconds.
_LONGEST_STUDY = 30 * 24 * 3600


def build() -> tyro.extras.SubcommandApp:
    """The commands by name."""
    app = tyro.extras.SubcommandApp()
    for name, study in STUDIES.items():
        app.command(_command(study), name=name)
    app.command(report)
    app.command(seeds)
    return app


def _command(kind: type[Study]) -> Callable[..., None]:
    def command(
        study: Annotated[kind, arg(name="")] = kind(),  # noqa: B008
        *,
        source: str = "digit-scenes",
        models: tuple[str, ...] = DEFAULT_NETWORKS,
        images: Annotated[int | None, arg(metavar="INT")] = None,
        out: Annotated[Path | None, arg(metavar="DIR")] = None,
        shard: Annotated[str | None, arg(metavar="STR")] = None,
        distributed: bool = False,
        retry_errors: bool = False,
        dry_run: bool = False,
        devices: Annotated[int | None, arg(metavar="INT")] = None,
    ) -> None:
        part = which_part(shard, distributed)
        if devices is not None and not dry_run:
            raise ValueError(
                f"devices {devices} is for --dry-run; a run takes all devices of this process, and "
                "--shard or --distributed shares it among several"
            )
        networks = load_networks(models)
        scenes = open_source(source, images)
        if dry_run:
            known = {"networks": networks, "images": images}
            print(describe(estimate(study, scenes, processes=devices or 1, **known)))
            return
        out = default_out(study) if out is None else out
        run(
            study,
            scenes,
            networks=networks,
            images=images,
            out=out,
            shard=part,
            retry_errors=retry_errors,
            progress=True,
        )
        if missing := unfinished(out):
            print(describe_missing(missing))
            return
        # Read after all was there: what `run` gave may lack what another process has just finished.
        for file in reporting.write(study, open_run(out)[1], out):
            print(f"wrote {file}")

    summary = (kind.__doc__ or "").split("\n")[0]
    command.__doc__ = f"""{summary}

    Args:
        source: of images: {"; ".join(FORMS)}. See docs/data.md.
        models: networks, NAME or NAME=WEIGHTS, where WEIGHTS is a file, the
            folder of a training or a tag.
        images: how many, from the first; all by default (500 digit scenes).
        out: folder for rows, tables and figures; runs/{kind.name} by default. Run again to go on.
        shard: i/n does every n-th part of the work, from the i-th: n processes share it. 0/1, all
            of it, by default.
        distributed: share the work with the other processes of a cluster, which JAX finds out
            about (SLURM, Open MPI, Kubernetes, Cloud TPU). See docs/devices.md.
        retry_errors: try images again that could not be evaluated.
        dry_run: only say how many evaluations it takes and how long.
        devices: with --dry-run, how long with so many devices like those here, each used by a
            process of its own.
    """
    return command


def report(runs: Positional[tuple[Path, ...]], /, *, output: Path = Path("report.html")) -> None:
    """Write one HTML file with the settings, figures and tables of some runs.

    Args:
        runs: their folders.
        output: the file.
    """
    print(f"wrote {reporting.report(runs, output)}")


def seeds(runs: Positional[tuple[Path, ...]], /) -> None:
    """Write tables and figures of networks called NAME-0, NAME-1, ...: means over these seeds.

    Args:
        runs: folders of studies; the files (seeds_...) are written there.
    """
    for run_folder in runs:
        for file in reporting.write_seeds(run_folder):
            print(f"wrote {file}")


def open_source(name: str, images: int | None):
    """A source (`lmjax.data.open_source`), and digit scenes with so many images."""
    if images is not None and images < 1:
        raise ValueError(f"images must be 1 or more, got {images}")
    return data.open_source(name, length=images)


def load_networks(specs: tuple[str, ...]) -> Mapping[str, Any]:
    """Networks by `NAME` or `NAME=WEIGHTS`; those with weights are called `NAME=` and the weights,
    of a file or folder its name without suffix."""
    networks = {}
    for spec in specs:
        name, _, weights = spec.partition("=")
        label = f"{name}={_label(weights)}" if weights else name
        if label in networks:
            raise ValueError(f"models {spec!r} would be {label!r} like another; rename the file")
        networks[label] = load(name, weights=weights or None)
    return networks


def _label(weights: str) -> str:
    path = Path(weights)
    if path.is_dir():
        return path.resolve().name
    return path.stem if path.is_file() else weights


def which_part(shard: str | None, distributed: bool) -> tuple[int, int]:
    """What `lmjax.studies.run` takes as `shard`."""
    if not distributed:
        return parse_shard("0/1" if shard is None else shard)
    if shard is not None:
        raise ValueError(f"shard {shard!r} and distributed both say which part to do; take one")
    return join(shutdown_timeout_seconds=_LONGEST_STUDY)


def parse_shard(shard: str) -> tuple[int, int]:
    """`"0/2"` as `(0, 2)`."""
    number, _, of = shard.partition("/")
    if not (number.isdecimal() and of.isdecimal()):
        raise ValueError(f"shard must be i/n, such as 0/2; got {shard!r}")
    return int(number), int(of)


def describe(cost: Cost) -> str:
    """A sentence."""
    minutes = math.ceil(cost.seconds / 60)
    time = f"{cost.seconds:.0f} seconds" if cost.seconds < 100 else f"{minutes} minutes"
    return f"{cost.images} images, {cost.evaluations} evaluations, about {time}; nothing is written"


def describe_missing(missing: Sequence[Range]) -> str:
    """A sentence."""
    parts = ", ".join(f"{start} to {stop - 1}" for start, stop in missing[:3])
    more = f" and {len(missing) - 3} more parts" if len(missing) > 3 else ""
    return (
        f"images {parts}{more} are missing: tables are written by the process that finishes last, "
        "or by a run without --shard"
    )
