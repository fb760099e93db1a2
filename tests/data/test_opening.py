"""Sources as they are written on the command line."""

import numpy as np
import pytest
from PIL import Image

from lmjax.data import DigitScenes, opening
from lmjax.data.opening import open_source


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


@pytest.mark.usefixtures("pets")
def test_folders_and_tables_have_options():
    (example,) = open_source("folder:./a,b/../a,b,masks=masks,classes=classes.txt")
    assert (example.id, example.label) == ("cat/x.png", 1)
    np.testing.assert_array_equal(example.object_mask, np.eye(8, dtype=bool))
    assert open_source("csv:cat.csv,classes=classes.txt")[0].label == 1


def test_datasets_have_splits_and_options(monkeypatch):
    def from_tfds(name, *, split=None, data_dir=None, mask=None):
        return name, split, data_dir, mask

    monkeypatch.setitem(opening._KINDS, "tfds", lambda: from_tfds)
    assert open_source("tfds:a/b:1.0.0[train[:5%]+test],mask=m") == (
        *("a/b:1.0.0", "train[:5%]+test"),
        *(None, "m"),
    )
    assert open_source("tfds:a,data_dir=d") == ("a", None, "d", None)
    assert open_source("tfds:/x[1]/a,b[train[:10%]]") == ("/x[1]/a,b", "train[:10%]", None, None)
    assert open_source("tfds:/x[1]/a")[:2] == ("/x[1]/a", None)
    with pytest.raises(ValueError, match=r"has a \] without its \["):
        open_source("tfds:a]")


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
            "no option colour; folder has masks, saliency, classes, background",
        ),
        ("digit-scenes,seed=a", "seed must be a number"),
        ("digit-scenes,spurious=often", "spurious must be a probability, 0..1, got 'often'"),
        ("digit-scenes,spurious=2", "spurious is 2.0; it is a probability, 0..1"),
        ("digit-scenes,cue=colour", "give spurious=0.9"),
        ("digit-scenes,spurious=1,reverse=maybe", "reverse must be yes or no, got 'maybe'"),
    ],
    ids=[
        *("kind", "path", "place", "begins-alike", "no-place", "required", "option", "seed"),
        *("probability", "above-1", "cue-alone", "reverse"),
    ],
)
def test_what_makes_no_sense_is_an_error(source, message):
    with pytest.raises(ValueError, match=message):
        open_source(source)
