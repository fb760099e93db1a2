"""What `lmjax data list` says."""

import json
import re

import pytest
import tensorflow_datasets as tfds

from lmjax.cli.main import main
from lmjax.data import catalogue, forms, from_tfds, names
from lmjax.data.imagenet.builders import BUILDERS
from tests.support import imagenet_files as fake


@pytest.fixture
def data_dir(tmp_path):
    def prepare(name, about):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "features.json").write_text("{}")
        (folder / "dataset_info.json").write_text(about)

    splits = [{"name": "train"}, {"name": "test"}]
    prepare("oxford_iiit_pet/4.0.0", json.dumps({"splits": splits, "fileFormat": "array_record"}))
    prepare("coco/2017_panoptic/1.1.0", json.dumps({"splits": splits[:1]}))
    prepare("broken/1.0.0", "{")
    (tmp_path / "downloads" / "a" / "b" / "c" / "d").mkdir(parents=True)
    return tmp_path


def test_prepared_datasets_are_found(data_dir, monkeypatch):
    expected = [
        ("coco/2017_panoptic/1.1.0", ("train",), "tfrecord"),
        ("oxford_iiit_pet/4.0.0", ("train", "test"), "array_record"),
    ]
    assert catalogue.prepared(data_dir) == expected
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    assert catalogue.prepared() == expected
    assert catalogue.prepared(data_dir / "none") == []


def test_the_command_says_what_is_here_and_how_to_get_the_rest(data_dir, capsys):
    main(["data", "list", "--data-dir", str(data_dir)])
    printed = capsys.readouterr().out
    assert "digit-scenes  (here)\n" in printed
    assert "tfds:oxford_iiit_pet[test]  (here)\n" in printed
    assert "tfds:caltech_birds2011[test]\n" in printed
    assert f"tfds build caltech_birds2011 --file_format=array_record --data_dir={data_dir}" in (
        printed
    )
    assert "tfds:coco/2017_panoptic:1.1.0[SPLIT] with train (tfrecord)" in printed


def test_cutout_scenes_are_here_once_the_stamps_are(tmp_path, monkeypatch):
    (scenes,) = (each for each in catalogue.DATASETS if each.source == "cutout-scenes")
    for folder, expected in ((tmp_path, "  (here)\n"), (tmp_path / "none", "\n")):
        monkeypatch.setattr(catalogue, "DATASETS", (scenes._replace(folder=str(folder)),))
        assert catalogue.listing(tmp_path).startswith(f"cutout-scenes{expected}")
    assert "get: apt-get install tuxpaint-stamps-default" in catalogue.listing(tmp_path)
    command = catalogue.build_command("cutout_scenes", tmp_path)
    assert command == f"lmjax data cutout-scenes --data-dir {tmp_path}"


def test_digit_scenes_are_prepared_here(tmp_path):
    command = catalogue.build_command("digit_scenes", tmp_path)
    assert command.endswith(f"lmjax.data.prepare_digit_scenes('{tmp_path}')\"")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_is_not_prepared_says_how_it_is_prepared_here(tmp_path):
    assert set(BUILDERS) == catalogue.PREPARED_HERE
    with pytest.raises(
        ValueError, match=r"imagenet_s/50:1.0.0 is not prepared in .*; prepare it"
    ) as error:
        from_tfds("imagenet_s/50:1.0.0", data_dir=tmp_path)
    (command,) = re.findall(r'python -c "(.*)"$', str(error.value))
    fake.imagenet_s(tmp_path)
    exec(command.replace("DOWNLOADS", str(tmp_path)), {})
    assert len(from_tfds("imagenet_s/50:1.0.0", split="train", data_dir=tmp_path)) == 1


def test_every_kind_of_source_on_imagenet_is_listed(capsys):
    main(["data", "list"])
    printed = capsys.readouterr().out
    for form in forms():
        if "imagenet" in form:
            assert re.search(rf"^{form.partition(':')[0]}:", printed, re.MULTILINE), form
    assert printed.count("    get: ") >= 5


@pytest.mark.parametrize("dataset", catalogue.DATASETS, ids=lambda dataset: dataset.source)
def test_datasets_are_sources_with_terms(dataset):
    assert dataset.source.partition(":")[0] in names()
    assert dataset.licence
    assert dataset.citation
    if dataset.name is not None:
        assert dataset.source.startswith(f"tfds:{dataset.name}[")
        assert dataset.name.split("/")[0] in tfds.list_builders(with_community_datasets=False)


@pytest.mark.parametrize("about", ["[]", "null", '{"splits": 3}', '{"splits": [{}]}', "[" * 9999])
def test_datasets_that_are_damaged_are_left_out(tmp_path, about):
    folder = tmp_path / "pets" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / "features.json").write_text("{}")
    (folder / "dataset_info.json").write_text('{"splits": [{"name": "train"}]}')
    assert [each.splits for each in catalogue.prepared(tmp_path)] == [("train",)]
    (folder / "dataset_info.json").write_text(about)
    assert catalogue.prepared(tmp_path) == []
