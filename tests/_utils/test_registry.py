"""Registries and packages that are installed while the process runs."""

from lmjax._utils.registry import Registry


def test_what_is_installed_or_removed_meanwhile_is_seen(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    things = Registry("thing", "lmjax.things")
    assert things.names() == ()
    metadata = tmp_path / "late-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: late\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[lmjax.things]\nlate = collections:OrderedDict\n")
    assert things.names() == ("late",)
    metadata.rename(tmp_path / "gone")
    assert things.names() == ()
