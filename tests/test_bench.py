"""What `lmjax bench` measures is what it says."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks import attribution, bench, networks
from lmjax.cli.main import main

IMAGE = bench.photograph(64)


@pytest.mark.parametrize(
    ("name", "family", "share"),
    bench.GRID,
    ids=[f"{name}-{share}" for name, _, share in bench.GRID],
)
def test_masks_show_the_share_they_are_asked_for(name, family, share):
    masks = np.asarray(family(IMAGE, 40, share).masks())
    assert masks.shape[1:] == (64, 64)
    assert masks.any(axis=(1, 2)).all()
    if name != "sliding occlusion":
        assert masks.mean() == pytest.approx(share, abs=0.1)


def test_sliding_occlusion_hides_every_pixel_and_no_window_is_missing():
    sweep = bench.sliding(IMAGE)
    hidden = ~np.asarray(sweep.masks())
    assert len(sweep) == 49  # 7 x 7 places of a 16-pixel hole, 8 pixels apart
    assert (hidden.sum(axis=(1, 2)) == 256).all()
    assert hidden.any(axis=0).all()


def test_elsewhere_than_in_a_clone_it_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="run it in a clone"):
        main(["bench"])


@pytest.mark.slow
def test_a_small_run_leaves_its_tables_and_figure(tmp_path):
    bench.main(out=tmp_path, masks="blob", variants=8, rounds=1, size=64, samples=0)
    rows = pq.read_table(tmp_path / "bench.parquet").to_pylist()
    assert {row["contender"] for row in rows} >= set(bench.ENGINES)
    assert all(row["error"] < 1e-5 for row in rows)
    assert (tmp_path / "bench.png").stat().st_size > 10_000
    assert "| blob, 2% |" in (tmp_path / "bench.md").read_text()


@pytest.mark.slow
def test_attributions_are_measured_without_the_network(capsys):
    attribution.main(model="resnet18", variants=120, size=32, cells=3, network_variants=2, rounds=1)
    table = capsys.readouterr().out
    image, labels = np.zeros((32, 32, 3), np.float32), np.arange(1024).reshape(32, 32) // 114
    for name in attribution.methods(image, labels, 120):
        assert f"| {name} |" in table
    assert "| lime | 120 |" in table
    assert "| rise, soft masks | 121 |" in table


@pytest.mark.slow
def test_networks_are_measured_plain_and_masked(capsys):
    networks.main(("squeezenet1_1", "resnet18_digits"), size=64, variants=2, rounds=1)
    *_, published, bundled = (line.split(" | ") for line in capsys.readouterr().out.splitlines())
    assert published[:2] == ["| squeezenet1_1", "1,235,496"]
    assert float(published[2]) < 1e-5
    assert bundled[0] == "| resnet18_digits"
    assert all(float(each.strip(" |")) > 0 for each in (*published[3:], *bundled[3:]))
