"""`lmjax study`: what it makes of its options."""

import dataclasses
import re

import pyarrow.parquet as pq
import pytest

from lmjax import studies
from lmjax.cli import study as commands
from lmjax.cli.main import main
from lmjax.studies import job
from lmjax.studies.run_folder import Range
from lmjax.studies.runner import Cost
from tests.studies import fakes

FEW = ("--removals", "black", "--orders", "random", "--fractions", "0.5", "--images", "9")


@pytest.mark.parametrize("name", studies.names())
def test_every_setting_is_an_option_with_help(run, name):
    status, out, err = run("study", name, "--help")
    assert status == 0, err
    text = re.sub(r"[│\s]+", " ", out)
    assert studies.registry.description(name) in text
    for field in dataclasses.fields(studies.get(name)):
        option = "--" + field.name.replace("_", "-")
        assert re.search(rf"{option}(, --no-[a-z-]+)? [^-]*[A-Za-z]", text), option
    for option in (
        "--source",
        "--models",
        "--images",
        "--output",
        "--engine",
        "--batch-size",
        "--shard",
        "--retry-errors",
        "--dry-run",
    ):
        assert option in text


@pytest.fixture
def study(tmp_path, monkeypatch, capsys):
    """A function that runs `lmjax study` on small things, and gives what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, "load_models", lambda models: {"a": fakes.network()})
    monkeypatch.setattr(job, "open_source", lambda source, length: fakes.Source(length))

    def run(*arguments):
        main(["study", *arguments])
        return capsys.readouterr().out

    return run


def test_a_study_runs_goes_on_and_is_reported(study, tmp_path):
    printed = study("removal", *FEW)
    names = ["a-grid.png", "curves.csv", "manifest.json", "means.csv", "rows.parquet"]
    folder = tmp_path / "runs" / "removal"
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == names
    assert "wrote runs/removal/curves.csv" in printed
    before = {path: path.stat().st_mtime_ns for path in folder.glob("rows-*/*")}
    assert study("removal", *FEW) == printed
    assert before == {path: path.stat().st_mtime_ns for path in folder.glob("rows-*/*")}
    with pytest.raises(SystemExit, match=r"holds rows .* settings.grid_size is null"):
        study("removal", *FEW, "--grid-size", "8")
    study("removal", *FEW, "--formats", "svg", "pdf")
    assert {path.suffix for path in folder.glob("a-grid.*")} == {".png", ".svg", ".pdf"}
    assert study("report", "runs/removal") == "wrote report.html\n"
    assert "data:image/png" in (tmp_path / "report.html").read_text()


def test_how_variants_are_evaluated_is_handed_on(study, monkeypatch):
    asked = []

    def run(*arguments, **options):
        asked.append(options)
        raise ValueError("enough")

    monkeypatch.setattr(commands, "run", run)
    for options in ((), ("--engine", "dense", "--batch-size", "4")):
        with pytest.raises(SystemExit, match="enough"):
            study("removal", *options)
    assert [(each["engine"], each["batch_size"]) for each in asked] == [
        ("auto", None),
        ("dense", 4),
    ]


def test_dry_runs_write_nothing(study, tmp_path):
    assert study("removal", *FEW, "--dry-run").startswith("9 images, 18 evaluations, about ")
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:1 of 2 shards")
def test_shards_share_the_work_and_the_last_writes_tables(study, tmp_path):
    options = (*FEW[:-1], "20")
    printed = study("removal", *options, "--shard", "0/2")
    assert printed.startswith("images 16 to 19 are missing: tables are written by")
    assert [path.name for path in tmp_path.glob("runs/removal/*.*")] == ["manifest.json"]
    assert "wrote runs/removal/curves.csv" in study("removal", *options, "--shard", "1/2")
    assert len(list(tmp_path.glob("runs/removal/rows-*/*.parquet"))) == 2
    rows = pq.read_table(tmp_path / "runs" / "removal" / "rows.parquet")
    assert rows.column("image").unique().to_pylist() == list(range(20))


@pytest.mark.filterwarnings("ignore:1 of 2 shards")
def test_tables_are_of_all_rows_though_another_process_finishes_meanwhile(
    study, tmp_path, monkeypatch
):
    run = commands.run

    def run_and_be_overtaken(*arguments, shard, **options):
        rows = run(*arguments, shard=shard, **options)
        run(*arguments, shard=(1, 2), **options)
        return rows

    monkeypatch.setattr(commands, "run", run_and_be_overtaken)
    study("removal", *FEW[:-1], "20", "--shard", "0/2")
    rows = pq.read_table(tmp_path / "runs" / "removal" / "rows.parquet")
    assert rows.column("image").unique().to_pylist() == list(range(20))


@pytest.mark.filterwarnings("ignore:1 of 9 images")
def test_errors_are_tried_again_by_an_option(study, monkeypatch):
    broken = fakes.Source(9, broken=(2,))
    monkeypatch.setattr(job, "open_source", lambda source, length: broken)
    study("removal", *FEW)
    broken.broken = ()
    study("removal", *FEW)
    assert len(studies.errors("runs/removal")) == 1
    study("removal", *FEW, "--retry-errors")
    assert studies.errors("runs/removal") == []


@pytest.mark.filterwarnings("ignore:. of 9 images")
def test_a_study_of_which_most_images_fail_ends_with_an_error(study, tmp_path, monkeypatch):
    broken = fakes.Source(9, broken=(0, 2, 4, 6, 8))
    monkeypatch.setattr(job, "open_source", lambda source, length: broken)
    with pytest.raises(SystemExit) as caught:
        study("removal", *FEW)
    assert str(caught.value).startswith("lmjax: error: 5 of 9 images could not be evaluated, ")
    assert "first is 0: OSError: image 0 is truncated" in str(caught.value)
    assert (tmp_path / "runs" / "removal" / "curves.csv").exists()
    broken.broken = (0, 2, 4, 6)
    assert "wrote" in study("removal", *FEW, "--retry-errors")


def test_images_that_a_removal_knows_are_no_failures():
    held_out = [{"id": f"{i}", "error": "HeldOutError: known"} for i in range(7)]
    failed = [{"id": "7", "error": "OSError: truncated"}]
    commands.check_errors(held_out, 9)
    commands.check_errors(held_out + failed, 9)
    with pytest.raises(ValueError, match="1 of 1 images could not be evaluated"):
        commands.check_errors(held_out + failed, 8)


def test_one_bad_run_costs_no_other(study, tmp_path):
    study("removal", *FEW, "--models", "a")
    with pytest.raises(SystemExit, match="1 of 2 runs could not be reported: nowhere: ValueError"):
        study("report", "nowhere", "runs/removal")
    assert "data:image/png" in (tmp_path / "report.html").read_text()
    with pytest.raises(SystemExit, match="error: nowhere is no folder of a study"):
        study("report", "nowhere")
    seeds = ("--kinds", "k=a", "k=b")
    with pytest.raises(SystemExit, match=r"2 of 2 runs could not be reported: nowhere: .*; runs"):
        study("seeds", "nowhere", "runs/removal", *seeds)


def test_what_helps_where_memory_runs_out_fits_the_command(study, monkeypatch):
    def run(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr(commands, "run", run)
    with pytest.raises(SystemExit) as caught:
        study("removal", *FEW)
    assert str(caught.value).startswith("lmjax: error: out of memory; use fewer segments, masks")
    assert "batch" not in str(caught.value)


def test_sentences():
    missing = [Range(i, i + 2) for i in (0, 4, 8, 12, 16)]
    told = commands.describe_missing(missing)
    assert told.startswith("images 0 to 1, 4 to 5, 8 to 9 and 2 more parts are missing: ")
    assert commands.describe(Cost(5, 100, 99.4)).startswith("5 images, 100 evaluations, about 99 s")
    assert "about 3 minutes" in commands.describe(Cost(5, 100, 121))


@pytest.mark.filterwarnings("ignore:1 of 2 shards")
def test_a_process_of_a_cluster_takes_its_part(study, monkeypatch):
    monkeypatch.setattr(commands, "join", lambda **options: (1, 2))
    printed = study("removal", *FEW[:-1], "20", "--distributed")
    assert printed.startswith("images 0 to 15 are missing")
    with pytest.raises(SystemExit, match=r"shard '0/2' and distributed both say"):
        study("removal", *FEW, "--distributed", "--shard", "0/2")


def test_dry_runs_tell_the_time_on_several_devices(study, monkeypatch):
    asked = []

    def estimate(*arguments, processes, **options):
        asked.append(processes)
        return Cost(9, 18, 5.0)

    monkeypatch.setattr(commands, "estimate", estimate)
    study("removal", *FEW, "--dry-run", "--processes", "8")
    assert asked == [8]
    with pytest.raises(SystemExit, match="processes 8 is for --dry-run"):
        study("removal", *FEW, "--processes", "8")


def test_options_out_of_range_are_errors():
    with pytest.raises(ValueError, match="shard must be i/n"):
        commands.parse_shard("2")
    with pytest.raises(ValueError, match="from 0/n to n-1/n, such as 0/2; got '2/2'"):
        commands.parse_shard("2/2")
    with pytest.raises(SystemExit, match="source must be one of"):
        main(["study", "removal", "--source", "pictures"])
    with pytest.raises(SystemExit, match="images must be a whole number, 1 or more"):
        main(["study", "removal", "--images", "0"])
    with pytest.raises(ValueError, match="models names resnet18_digits twice"):
        commands.load_models(("resnet18_digits", "resnet18_digits"))


def test_kinds_group_networks():
    specs = ["plain=a-0", "grey=b-0", "plain=a-1"]
    assert commands.parse_kinds(specs) == {"plain": ["a-0", "a-1"], "grey": ["b-0"]}
    for bad in ("plain", "=a", "plain="):
        with pytest.raises(ValueError, match="kinds must be KIND=NETWORK"):
            commands.parse_kinds([bad])


def test_names_of_networks_tell_their_weights(tmp_path):
    from lmjax.models import registry

    bundled = registry.network("resnet18_digits").bundled
    copy = tmp_path / "second.safetensors"
    copy.write_bytes(bundled.read_bytes())
    folder = tmp_path / "grey.5-0"
    folder.mkdir()
    (folder / "resnet18_digits.safetensors").write_bytes(copy.read_bytes())
    weights = ("", f"={copy}", f"={folder}")
    networks = commands.load_models([f"resnet18_digits{each}" for each in weights])
    assert [name.partition("=")[2] for name in networks] == ["", "second", "grey.5-0"]
