"""Folders of runs: whose they are, and manifests that are damaged."""

import copy
import json

import pytest

from lmjax._utils.run_folder import MANIFEST, alone, check_free, naming_damaged, read_manifest

MANIFESTS = {
    "study": {
        "identity": {
            "study": "shape",
            "settings": {},
            "networks": [{"name": "a", "weights_sha256": "0"}],
            "source": "digits/1",
            "lmjax": "1",
            "images_per_shard": 16,
        },
        "images": 3,
        "settings": {},
    },
    "training": {"network": "a", "classes": 3, "source": "b", "settings": {}, "lmjax": "1"},
}


def fields(value, place=()):
    """The places of all fields of a manifest."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, each in pairs:
        if isinstance(key, str):
            yield (*place, key)
        if isinstance(each, dict | list):
            yield from fields(each, (*place, key))


PLACES = [(kind, place) for kind, manifest in MANIFESTS.items() for place in fields(manifest)]


def write(out, manifest):
    (out / MANIFEST).write_text(manifest if isinstance(manifest, str) else json.dumps(manifest))


@pytest.mark.parametrize("kind", MANIFESTS)
def test_whole_manifests_are_read(tmp_path, kind):
    write(tmp_path, MANIFESTS[kind])
    assert read_manifest(tmp_path, kind) == MANIFESTS[kind]
    check_free(tmp_path, kind)


@pytest.mark.parametrize("kind", MANIFESTS)
@pytest.mark.parametrize("text", ["null", "3", "[]", '"a"', "{}", "{", "", "[" * 100_000, "NaN"])
def test_junk_is_damaged(tmp_path, kind, text):
    write(tmp_path, text)
    for read in (read_manifest, check_free):
        with pytest.raises(ValueError, match=r"manifest\.json is damaged \(.+\); restore it"):
            read(tmp_path, kind)


@pytest.mark.parametrize(("kind", "place"), PLACES)
def test_the_damaged_field_is_named(tmp_path, kind, place):
    name = ".".join(map(str, place)).replace(".0", "[0]")
    for damage, message in (
        (lambda holder: holder.pop(place[-1]), "has no "),
        (lambda holder: holder.update({place[-1]: None}), ""),
    ):
        manifest = copy.deepcopy(MANIFESTS[kind])
        holder = manifest
        for key in place[:-1]:
            holder = holder[key]
        damage(holder)
        write(tmp_path, manifest)
        with pytest.raises(ValueError, match=r"manifest\.json is damaged") as error:
            read_manifest(tmp_path, kind)
        assert message + name in str(error.value)


def test_other_kinds_of_folders_are_told(tmp_path):
    write(tmp_path, MANIFESTS["training"])
    for read in (read_manifest, check_free):
        with pytest.raises(ValueError, match="no folder of a study, but of a training"):
            read(tmp_path, "study")
    (tmp_path / MANIFEST).unlink()
    with pytest.raises(ValueError, match=r"no folder of a study: it has no manifest\.json"):
        read_manifest(tmp_path, "study")


def test_a_folder_with_files_of_others_is_not_free(tmp_path):
    check_free(tmp_path / "new", "study")
    check_free(tmp_path, "study")
    (tmp_path / ".DS_Store").write_text("")
    check_free(tmp_path, "study")
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match=r"not of a study run: thesis\.tex; nothing was changed"):
        check_free(tmp_path, "study")
    with pytest.raises(NotADirectoryError, match="is a file"):
        check_free(tmp_path / "thesis.tex", "study")


def test_one_run_at_a_time(tmp_path):
    with alone(tmp_path), pytest.raises(ValueError, match="is in use"), alone(tmp_path):
        pass
    with alone(tmp_path):
        pass


@pytest.mark.parametrize("images", [0, 2**63, 10**30, True, 2.0])
def test_numbers_that_no_run_has_are_damaged(tmp_path, images):
    write(tmp_path, {**MANIFESTS["study"], "images": images})
    with pytest.raises(ValueError, match="images must be a whole number from 1 to 10000000"):
        read_manifest(tmp_path, "study")


def test_damage_is_told_in_one_line(tmp_path):
    with (
        pytest.raises(ValueError, match=r"a\.json is damaged \(one two\); delete it$"),
        naming_damaged(tmp_path / "a.json", "delete it"),
    ):
        raise ValueError("one\n  two\n")
