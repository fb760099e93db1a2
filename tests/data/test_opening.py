"""Sources as they are written on the command line."""

import numpy as np
import pytest
from PIL import Image

from lmjax import data
from lmjax.data import CutoutScenes, DigitScenes, Source, SourceSpec, open_source, opening
from tests.support import stamps


@pytest.fixture
def pets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "a,b" / "cat"
    folder.mkdir(parents=True)
    (tmp_path / "masks" / "cat").mkdir(parents=True)
    for path in (folder, tmp_path / "masks" / "cat"):
        Image.fromarray(np.eye(8, dtype=np.uint8)).save(path / "x.png")
    (tmp_path / "cat.csv").write_text("image,label\nmasks/cat/x.png,cat\n")
    (tmp_path / "classes.txt").write_text("dog\ncat\n")


def test_digit_scenes_have_options():
    assert len(open_source("digit-scenes")) == 500
    source = open_source("digit-scenes,split=train,seed=3", length=7)
    assert source.version == DigitScenes("train", seed=3).version
    assert len(source) == 7
    source = open_source("digit-scenes,spurious=0.9,cue=colour,reverse=no")
    expected = DigitScenes("test", spurious=0.9, cue="colour", reverse=False)
    assert source.version == expected.version == "digit_scenes/test/0/1/colour=0.9"


def test_cutout_scenes_have_options(tmp_path):
    source = open_source(
        f"cutout-scenes,backgrounds=white,stamps={stamps.write(tmp_path)},seed=3,size=64", length=7
    )
    expected = CutoutScenes(seed=3, size=64, backgrounds="white", stamps=tmp_path)
    assert source.version == expected.version
    assert len(source) == 7
    large = open_source(f"cutout-scenes,stamps={tmp_path},sides=0.7-1")
    assert large.version == CutoutScenes(sides=(0.7, 1), stamps=tmp_path).version
    for sides, message in (("0.3", "LOW-HIGH, such as 0.35-0.6; got '0.3'"), ("0.9-0.3", "shares")):
        with pytest.raises(ValueError, match=f"sides must be .*{message}"):
            open_source(f"cutout-scenes,stamps={tmp_path},sides={sides}")


@pytest.mark.usefixtures("pets")
def test_folders_and_tables_have_options():
    (example,) = open_source("folder:./a,b/../a,b,masks=masks,classes=classes.txt")
    assert (example.id, example.label) == ("cat/x.png", 1)
    np.testing.assert_array_equal(example.object_mask, np.eye(8, dtype=bool))
    assert open_source("csv:cat.csv,classes=classes.txt")[0].label == 1


@pytest.fixture
def register():
    """Registers sources for one test."""
    registered = []

    def register(name, opener, **options):
        data.register(name, opener, description="For a test.", **options)
        registered.append(name)

    yield register
    for name in registered:
        opening._REGISTRY.unregister(name)
        del opening._FORMS[name]


def test_sources_of_other_packages_are_opened_by_name(register):
    def from_zip(path, *, masks, background="0"):
        return [path, masks, background]

    register("zip", from_zip)
    assert "zip" in data.names()
    assert data.forms()[-1] == "zip:PLACE,masks=...[,background=...]"
    assert data.description("zip") == "For a test."
    assert open_source("zip:a=b.zip,masks=c,d,background=2") == ["a=b.zip", "c,d", "2"]
    with pytest.raises(ValueError, match=r"must be zip:PLACE,masks=...\[,background"):
        open_source("zip:a.zip")
    with pytest.raises(ValueError, match="no option mask; zip has masks, background"):
        open_source("zip:a.zip,mask=b")
    with pytest.raises(ValueError, match=r"source must be one of digit-scenes.*; zip:PLACE"):
        open_source("zap:a.zip")


def test_sources_may_be_generated(register):
    register("noise", lambda *, seed="0", length=3: [int(seed)] * length, form="noise[,seed=N]")
    assert open_source("noise") == [0, 0, 0]
    assert open_source("noise,seed=2", length=1) == [2]
    assert SourceSpec.parse("noise").generated
    assert SourceSpec.parse("noise").accepts == ("seed",)
    with pytest.raises(ValueError, match=r"must be noise\[,seed=N\]$"):
        open_source("noise:loud")
    with pytest.raises(ValueError, match="no option length; noise has seed"):
        open_source("noise,length=4")


def test_specifications_are_what_is_written():
    text = "folder:a,b,masks=c,d,classes=e=f"
    spec = SourceSpec.parse(text)
    assert spec == ("folder", "a,b", {"masks": "c,d", "classes": "e=f"})
    assert str(spec) == text
    assert not spec.generated
    assert str(SourceSpec.parse("digit-scenes")) == "digit-scenes"


def test_options_are_added_and_replaced():
    spec = SourceSpec.parse("digit-scenes,split=train")
    changed = spec.with_options(split="test", seed=3)
    assert str(changed) == "digit-scenes,split=test,seed=3"
    assert str(spec) == "digit-scenes,split=train"
    assert changed.open(length=2).version == DigitScenes("test", seed=3).version
    with pytest.raises(ValueError, match="no option masks; digit-scenes has split, seed"):
        spec.with_options(masks="a")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("digit-scenes,seed=3", "digit-scenes,seed=3,split=train"),
        ("part-imagenet:a", "part-imagenet:a,split=train"),
        ("imagenet-s:a", "imagenet-s:a,split=train-semi"),
        ("noise", "noise,split=train"),
        *((each, each) for each in ("digit-scenes,split=test", "tfds:a[test]", "folder:a")),
    ],
)
def test_images_to_learn_from_are_of_the_training_split(register, source, expected):
    register("noise", lambda *, split="test": [split])
    assert str(SourceSpec.parse(source).for_training()) == expected


def test_a_source_is_a_sequence_of_examples():
    assert isinstance(open_source("digit-scenes"), Source)
    assert isinstance([], Source)
    assert not isinstance(iter([]), Source)


@pytest.mark.parametrize(
    ("opener", "description", "message"),
    [
        (None, "x", "opener must be a function"),
        (lambda path: [], 4, "description must be a line of text"),
    ],
)
def test_what_opens_nothing_is_refused_and_not_kept(opener, description, message):
    with pytest.raises(ValueError, match=message):
        data.register("zip", opener, description=description)
    assert "zip" not in data.names()


@pytest.mark.usefixtures("pets")
def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    source = open_source("folder:~/a,b,masks=~/masks,classes=~/classes.txt")
    assert (source[0].label, source[0].object_mask.sum()) == (1, 8)
    assert open_source("csv:~/cat.csv")[0].id == "masks/cat/x.png"


@pytest.mark.usefixtures("pets")
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("imagenette", "source must be one of digit-scenes.*; folder:PATH.*got 'imagenette'$"),
        ("masks", "for a folder of images, folder:masks$"),
        ("folder", "must be folder:PATH"),
        ("imagenet", r"must be imagenet:PATH\[,labels=FILE\]$"),
        ("digit-scenes:train", "must be digit-scenes"),
        ("pixel-imagenet:masks", "must be pixel-imagenet:PATH,images=PATH$"),
        (
            "folder:masks,colour=red",
            "no option colour; folder has masks, tight_masks, saliency, classes",
        ),
        ("digit-scenes,seed=a", "seed must be a number"),
        ("cutout-scenes,size=big", "size must be a number, got 'big'"),
        ("cutout-scenes,stamps=masks", "no stamps in masks: .*apt-get install tuxpaint-stamps"),
        ("digit-scenes,spurious=often", "spurious must be a probability, 0..1, got 'often'"),
        ("digit-scenes,spurious=2", r"spurious must be .* at most 1 \(a probability\); got 2\.0"),
        ("digit-scenes,cue=colour", "give spurious=0.9"),
        ("digit-scenes,spurious=1,reverse=maybe", "reverse must be yes or no, got 'maybe'"),
    ],
    ids=[
        *("kind", "path", "place", "begins-alike", "no-place", "required", "option", "seed"),
        *("size", "stamps"),
        *("probability", "above-1", "cue-alone", "reverse"),
    ],
)
def test_what_makes_no_sense_is_an_error(source, message):
    with pytest.raises(ValueError, match=message):
        open_source(source)


def test_a_source_is_written_as_text(tmp_path):
    with pytest.raises(ValueError, match="source must be a text, one of digit-scenes"):
        open_source(tmp_path)
