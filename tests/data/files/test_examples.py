"""Folders and tables of images, whole and broken."""

import os
import pickle

import numpy as np
import pytest
from PIL import Image

from lmjax.data import from_csv, from_folder
from lmjax.data.files import classes
from lmjax.data.imagenet import synsets
from lmjax.studies.samples import read_sample

BOX = (slice(2, 5), slice(3, 7))


def write_image(path, value, *, size=(8, 10)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)


def write_mask(path, *, size=(8, 10)):
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros(size, np.uint8)
    mask[BOX] = 255
    Image.fromarray(mask).save(path)


@pytest.fixture
def pets(tmp_path):
    """Two classes of three images; masks of all but one."""
    for i, name in enumerate(["cat/a.png", "cat/b.png", "cat/c.png", "dog/a.png", "dog/b/b.png"]):
        write_image(tmp_path / "images" / name, i)
    write_image(tmp_path / "images" / "dog" / "C.PNG", 5)
    for name in ("cat/a.png", "cat/b.gif", "dog/a.bmp", "dog/b/b.png", "dog/C.png"):
        write_mask(tmp_path / "masks" / name)
    return tmp_path


def by_id(source):
    return {example.id: example for example in map(source.__getitem__, range(len(source)))}


def test_folders_are_classes_and_parallel_files_are_masks(pets):
    source = from_folder(pets / "images", masks=pets / "masks")
    found = by_id(source)
    assert {name: example.label for name, example in found.items()} == {
        **{f"cat/{letter}.png": 0 for letter in "abc"},
        **{"dog/a.png": 1, "dog/b/b.png": 1, "dog/C.PNG": 1},
    }
    assert source.class_names == ("cat", "dog")
    assert sorted(int(example.image[0, 0, 0]) for example in found.values()) == list(range(6))
    assert found["dog/b/b.png"].image[0, 0, 0] == 4
    expected = np.zeros((8, 10), bool)
    expected[BOX] = True
    for name, example in found.items():
        if name == "cat/c.png":
            assert example.object_mask is None
        else:
            np.testing.assert_array_equal(example.object_mask, expected)
        assert example.saliency is None


def test_heatmaps_lie_beside_too(pets):
    source = from_folder(pets / "images", masks=pets / "masks", saliency=pets / "masks")
    for example in by_id(source).values():
        assert (example.saliency is None) == (example.object_mask is None)
        assert example.saliency is None or example.saliency[BOX].all()


def test_folders_and_tables_have_tight_masks(pets):
    inner = np.zeros((8, 10), np.uint8)
    inner[BOX][1:, 1:] = 255
    (pets / "tight" / "cat").mkdir(parents=True)
    Image.fromarray(inner).save(pets / "tight" / "cat" / "a.png")
    folders = from_folder(pets / "images", masks=pets / "masks", tight_masks=pets / "tight")
    lines = "image,mask,tight_mask\nimages/cat/a.png,masks/cat/a.png,tight/cat/a.png\n"
    table = from_csv(write_table(pets, lines + "images/cat/b.png,,\n"))
    for example in (by_id(folders)["cat/a.png"], table[0]):
        np.testing.assert_array_equal(example.tight_mask, inner > 0)
        assert example.object_mask.sum() > example.tight_mask.sum() > 0
    assert by_id(folders)["cat/b.png"].tight_mask is None
    assert table[1].tight_mask is None
    sample = read_sample(table, 0)
    np.testing.assert_array_equal(sample.tight_mask, inner > 0)


def test_masks_may_mean_something_else(pets):
    trimap = np.array([[1, 2, 3], [2, 2, 200]], np.uint8)
    write_image(pets / "images" / "cat" / "a.png", 0, size=trimap.shape)
    Image.fromarray(trimap).save(pets / "masks" / "cat" / "a.png")
    table = write_table(pets, "image,mask\nimages/cat/a.png,masks/cat/a.png\n")
    rules = {"background": ("2", trimap != 2), "at_least": (3, trimap >= 3)}
    seen = {from_csv(table).version, from_folder(pets / "images", masks=pets / "masks").version}
    for name, (value, expected) in rules.items():
        folder = from_folder(pets / "images", masks=pets / "masks", **{name: value})
        listed = from_csv(table, **{name: value})
        for example in (by_id(folder)["cat/a.png"], listed[0]):
            np.testing.assert_array_equal(example.object_mask, expected)
        seen |= {folder.version, listed.version}
    assert len(seen) == 6
    with pytest.raises(ValueError, match="at_least must be a number from 0, got 'half'"):
        from_csv(table, at_least="half")


def test_the_order_is_that_of_names_alone_and_mixes_classes(tmp_path, pets):
    for i in range(60):
        write_image(tmp_path / "many" / f"{i % 3}" / f"{i}.png", i, size=(1, 1))
    source = from_folder(tmp_path / "many")
    ids = [row.id for row in source.rows]
    assert sorted(ids) != ids
    assert {row.label for row in source.rows[:12]} == {0, 1, 2}
    write_image(tmp_path / "many" / "0" / "another.png", 0, size=(1, 1))
    (tmp_path / "many").rename(tmp_path / "elsewhere")
    more = [row.id for row in from_folder(tmp_path / "elsewhere").rows]
    assert [name for name in more if name != "0/another.png"] == ids


def test_a_folder_without_folders_has_no_classes(tmp_path):
    write_image(tmp_path / "a.png", 1)
    write_mask(tmp_path / ".cache" / "hidden.png")
    (tmp_path / "notes.txt").write_text("")
    source = from_folder(tmp_path)
    assert len(source) == 1
    assert (source[0].id, source[0].label, source.class_names) == ("a.png", None, None)


def test_class_folders_may_be_links_and_loops_end(pets):
    (pets / "few").mkdir()
    (pets / "few" / "dog").symlink_to(pets / "images" / "dog")
    (pets / "images" / "dog" / "loop").symlink_to(pets / "images")
    source = from_folder(pets / "few")
    assert sorted(row.id for row in source.rows) == ["dog/C.PNG", "dog/a.png", "dog/b/b.png"]


def test_links_upwards_and_in_circles_are_no_classes(pets):
    expected = sorted(row.id for row in from_folder(pets / "images").rows)
    for name, target in (("self", "."), ("up", ".."), ("circle", "circle"), ("nowhere", "none")):
        (pets / "images" / name).symlink_to(target)
    source = from_folder(pets / "images")
    assert source.class_names == ("cat", "dog")
    assert sorted(row.id for row in source.rows) == expected


def test_names_may_be_of_any_kind(tmp_path):
    names = ["Über,b=c[1]/日本 (1)=x.png", "a b/%20'.png", "a b/\u0301e.png"]
    for i, name in enumerate(names):
        write_image(tmp_path / "images" / name, i)
        write_mask(tmp_path / "masks" / name)
    found = by_id(from_folder(tmp_path / "images", masks=tmp_path / "masks"))
    assert {name: int(found[name].image[0, 0, 0]) for name in found} == dict(zip(names, range(3)))
    assert all(example.object_mask.any() for example in found.values())
    rows = "".join(f'"images/{name}"\n' for name in names)
    source = from_csv(write_table(tmp_path, f"image\n{rows}"))
    assert [source[i].id for i in range(3)] == [f"images/{name}" for name in names]


def test_names_that_are_no_text_can_be_written(tmp_path):
    write_image(tmp_path / "a" / os.fsdecode(b"\xfe.png"), 7)
    source = from_folder(tmp_path)
    assert source[0].id == "a/\\udcfe.png"
    assert source[0].image[0, 0, 0] == 7
    assert from_folder(tmp_path).version == source.version


def test_images_may_have_their_masks_below_them(pets):
    (pets / "masks" / "cat").rename(pets / "images" / "cat" / "masks")
    images = pets / "images" / "cat"
    assert sorted(row.id for row in from_folder(images, masks=images / "masks").rows) == [
        *("a.png", "b.png", "c.png")
    ]


def test_images_beside_class_folders_are_warned_of(pets):
    write_image(pets / "images" / "contact sheet.png", 0)
    with pytest.warns(UserWarning, match=r"the 1 images beside them, such as contact sheet\.png"):
        assert len(from_folder(pets / "images")) == 6
    (pets / "flat" / "empty").mkdir(parents=True)
    write_image(pets / "flat" / "a.png", 0)
    assert from_folder(pets / "flat")[0].id == "a.png"


def test_masks_may_lie_among_the_classes(pets):
    (pets / "masks").rename(pets / "images" / "masks")
    source = from_folder(pets / "images", masks=pets / "images" / "masks")
    assert source.class_names == ("cat", "dog")
    assert len(source) == 6


def test_sources_are_lazy_and_can_be_pickled(pets):
    source = from_folder(pets / "images", masks=pets / "masks")
    again = pickle.loads(pickle.dumps(source))
    assert again.version == source.version
    for path in (pets / "images").rglob("*.*"):
        path.write_bytes(b"")
    assert len(from_folder(pets / "images")) == 6
    with pytest.raises(ValueError, match=r"\.png cannot be read"):
        again[0]


def test_an_index_out_of_range_is_an_error(pets):
    source = from_folder(pets / "images")
    assert source[-1].id == source[np.int64(5)].id
    with pytest.raises(IndexError):
        source[6]
    with pytest.raises(TypeError):
        source[1.0]


def versions(pets):
    return from_folder(pets / "images", masks=pets / "masks").version


def test_versions_tell_what_examples_are_made_of(pets):
    first = versions(pets)
    assert first == versions(pets)
    assert from_folder(pets / "images").version != first
    (pets / "images").rename(pets / "moved")
    moved = from_folder(pets / "moved", masks=pets / "masks").version
    assert moved == first
    (pets / "moved").rename(pets / "images")
    changes = [
        lambda: write_image(pets / "images" / "cat" / "d.png", 1),
        lambda: (pets / "images" / "cat" / "a.png").write_bytes(b"short"),
        lambda: touch(pets / "masks" / "cat" / "a.png"),
        lambda: (pets / "masks" / "cat" / "a.png").unlink(),
        lambda: (pets / "images" / "dog").rename(pets / "images" / "bird"),
    ]
    seen = {first}
    for change in changes:
        change()
        seen.add(versions(pets))
    assert len(seen) == 1 + len(changes)


def touch(path):
    os.utime(path, (1, 1))


def test_a_mask_of_another_size_is_refused_by_name(pets):
    write_mask(pets / "masks" / "cat" / "a.png", size=(10, 8))
    source = from_folder(pets / "images", masks=pets / "masks")
    index = [row.id for row in source.rows].index("cat/a.png")
    message = r"masks/cat/a\.png is 10 x 8 pixels.*images/cat/a\.png 8 x 10"
    with pytest.raises(ValueError, match=message):
        source[index]


def test_an_empty_class_keeps_its_number(pets):
    (pets / "images" / "cow").mkdir()
    write_image(pets / "images" / "eel" / "a.png", 9)
    with pytest.warns(UserWarning, match=r"cow holds no image; its class keeps its number"):
        source = from_folder(pets / "images")
    assert source.class_names == ("cat", "cow", "dog", "eel")
    assert by_id(source)["eel/a.png"].label == 3


def test_folders_that_say_nothing_are_errors(pets):
    with pytest.raises(OSError, match=r"folder .*/none cannot be read: No such file"):
        from_folder(pets / "none")
    with pytest.raises(OSError, match=r"a\.png cannot be read: Not a directory"):
        from_folder(pets / "images" / "cat" / "a.png")
    (pets / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty holds no image \(\.jpg"):
        from_folder(pets / "empty")
    with pytest.raises(ValueError, match=r"masks .*/empty has a file for none of the 6 images"):
        from_folder(pets / "images", masks=pets / "empty")


def test_an_unreadable_folder_is_named(pets, monkeypatch):
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)  # root may read everything
    with pytest.raises(OSError, match=r"folder .*images/dog cannot be read: Permission denied"):
        from_folder(pets / "images")


def test_two_files_for_one_are_errors(pets):
    write_mask(pets / "masks" / "cat" / "a.bmp")
    with pytest.raises(ValueError, match=r"masks .* cat/a\.bmp and cat/a\.png go by the same name"):
        from_folder(pets / "images", masks=pets / "masks")
    (pets / "masks" / "cat" / "a.bmp").unlink()
    write_image(pets / "images" / "dog" / "a.gif", 7)
    assert len(from_folder(pets / "images")) == 7
    with pytest.raises(ValueError, match=r"images dog/a\.gif and dog/a\.png go by the same"):
        from_folder(pets / "images", masks=pets / "masks")


def write_table(folder, text, *, encoding="utf-8"):
    path = folder / "pets.csv"
    path.write_text(text, encoding=encoding)
    return path


def test_tables_keep_their_order_and_what_they_know(pets):
    table = write_table(
        pets,
        "label, image , mask, note\n"
        "dog , images/dog/a.png , masks/dog/a.bmp, kind\n"
        ", images/cat/a.png, , \n"
        'cat, "images/cat/b.png", masks/cat/b.gif\n',
        encoding="utf-8-sig",  # as spreadsheets write it
    )
    source = from_csv(table)
    examples = [source[i] for i in range(len(source))]
    assert [e.id for e in examples] == [f"images/{n}.png" for n in ("dog/a", "cat/a", "cat/b")]
    assert [e.label for e in examples] == [1, None, 0]
    assert [e.object_mask is None for e in examples] == [False, True, False]
    assert source.class_names == ("cat", "dog")
    assert [e.image[0, 0, 0] for e in examples] == [3, 0, 1]
    before = source.version
    touch(pets / "images" / "cat" / "b.png")
    assert from_csv(table).version != before


def test_ids_may_have_a_column(pets):
    rows = "id,image\nfirst,images/cat/a.png\nsecond,images/cat/a.png\n"
    source = from_csv(write_table(pets, rows))
    assert [source[i].id for i in range(2)] == ["first", "second"]
    assert source.class_names is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.png,1\n", "must have a column image; its columns are file, label"),
        ("", "must have a column image"),
        ("image\n", "lists no image"),
        ("image,label\na.png,1\n,2\n", "line 3: no image"),
        ("image\na.png\nb.png\na.png\n", r"line 4: a\.png is the id of line 2 already"),
        ("image,label,label\na.png,3,4\n", "has the column label more than once"),
        ("image,label\na.png,crane, bird\n", 'line 2 has more cells than .* as "crane, bird"'),
    ],
    ids=["column", "empty", "none", "blank", "id", "columns", "cells"],
)
def test_tables_that_make_no_sense_are_errors(tmp_path, text, message):
    with pytest.raises(ValueError, match=rf"pets\.csv.*{message}"):
        from_csv(write_table(tmp_path, text))


def test_commas_behind_the_last_cell_say_nothing(pets):
    source = from_csv(write_table(pets, "image,label,\nimages/cat/a.png,cat,,\n"))
    assert source.class_names == ("cat",)


def test_tables_that_cannot_be_read_are_errors(tmp_path):
    with pytest.raises(OSError, match=r"none\.csv cannot be read: No such file"):
        from_csv(tmp_path / "none.csv")
    with pytest.raises(ValueError, match=r"pets\.csv is no table in UTF-8"):
        from_csv(write_table(tmp_path, "image\nélan.png\n", encoding="latin-1"))


def test_images_that_are_not_there_are_errors_of_their_own(tmp_path, pets):
    source = from_csv(write_table(pets, "image\nnone.png\nimages/cat/a.png\n"))
    assert source.version.startswith("csv/")
    assert source[1].image.shape == (8, 10, 3)
    with pytest.raises(ValueError, match=r"none\.png cannot be read: No such file"):
        source[0]


def test_classes_by_wordnet_ids_have_the_numbers_of_imagenets_networks():
    ids = synsets.synsets()
    assert len(set(ids)) == 1000
    # Golden retriever, tench, toilet tissue.
    found = classes.number(["n02099601", "n01440764", "n15075141"])
    assert [found.numbers[n] for n in ("n02099601", "n01440764", "n15075141")] == [207, 0, 999]
    assert found.names == ids


def test_company_does_not_change_the_numbers_of_imagenets_classes():
    """Sorted among them, one folder more would shift all that come after it."""
    with pytest.raises(ValueError, match=r"class '__MACOSX' is among WordNet ids.*n01440764"):
        classes.number(["n02099601", "n01440764", "__MACOSX"])
    others = classes.number(["n00000001", "n01440764"])  # of ImageNet-21k, say: another network's
    assert others.numbers == {"n00000001": 0, "n01440764": 1}


def test_validation_images_of_imagenet_have_its_labels(tmp_path):
    # The first lines of the val.txt that came with Caffe.
    labels = {1: 65, 2: 970, 3: 230, 4: 809, 5: 516}
    for i in labels:
        write_image(tmp_path / f"ILSVRC2012_val_{i:08}.JPEG", i)
    source = from_folder(tmp_path)
    assert {int(name[15:23]): e.label for name, e in by_id(source).items()} == labels
    assert source.class_names == synsets.synsets()
    write_image(tmp_path / "ILSVRC2012_val_00050001.JPEG", 0)
    assert from_folder(tmp_path)[0].label is None


@pytest.mark.parametrize("stranger", ["@eaDir", "unlabeled", "nan"])
def test_a_stranger_does_not_renumber_classes(tmp_path, stranger):
    """In the order of the alphabet, 10 would be class 2."""
    for name in ("0", "1", "2", "10", stranger):
        (tmp_path / name).mkdir()
        write_image(tmp_path / name / "a.png", 0)
    with pytest.raises(ValueError, match=f"class '{stranger}' is among classes that are numbers"):
        from_folder(tmp_path)
    table = "image,label\n" + "".join(f"{n}/a.png,{n}\n" for n in ("0", "2", "10", stranger))
    (tmp_path / "table.csv").write_text(table)
    with pytest.raises(ValueError, match=f"class '{stranger}' is among classes that are numbers"):
        from_csv(tmp_path / "table.csv")


def test_classes_by_number_and_by_name(tmp_path):
    assert classes.number(["10", "9", "2"]) == ({"10": 10, "9": 9, "2": 2}, None)
    assert classes.number(["7.0", "12.", "0"]).numbers == {"7.0": 7, "12.": 12, "0": 0}
    for unknown in ("-1", "0.5"):
        with pytest.raises(ValueError, match=rf"class {unknown} must be a whole number from 0"):
            classes.number(["3", unknown])
    assert classes.number(["b", "a"]) == ({"a": 0, "b": 1}, ("a", "b"))
    listed = tmp_path / "classes.txt"
    listed.write_text("b\nc\na\n")
    assert classes.number(["a", "b"], classes=listed).numbers == {"b": 0, "c": 1, "a": 2}
    with pytest.raises(ValueError, match=r"classes\.txt does not list 'd', nor 1 others"):
        classes.number(["a", "d", "e"], classes=listed)
    listed.write_text("a\nb\na\n")
    with pytest.raises(ValueError, match=r"classes\.txt lists 'a' twice"):
        classes.number(["a"], classes=listed)
    listed.write_text("background\n\na\n")
    with pytest.raises(ValueError, match="line 2 is empty"):
        classes.number(["a"], classes=listed)
    listed.write_text("b\na\n\n\n")
    assert classes.number(["a"], classes=listed).numbers == {"b": 0, "a": 1}
