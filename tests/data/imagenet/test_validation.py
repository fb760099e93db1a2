"""ImageNet's validation images by class folders, by their names and by lists; and its classes."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from lmjax.data import from_imagenet, imagenet_classes, open_source
from lmjax.data.imagenet.synsets import synsets
from lmjax.models import registry
from tests.support import imagenet_files as fake


@pytest.fixture
def root(tmp_path):
    fake.validation(tmp_path)
    return tmp_path


def labels(source):
    examples = [source[i] for i in range(len(source))]
    assert source.class_names == synsets()
    for example in examples:
        np.testing.assert_array_equal(example.image, fake.picture(int(example.id[-13:-5])))
    return {int(example.id[-13:-5]): example.label for example in examples}


def test_images_as_they_come_have_their_classes(root):
    # The first lines of the val.txt that came with Caffe.
    assert labels(open_source(f"imagenet:{root}/ILSVRC2012_img_val")) == {1: 65, 2: 970, 3: 230}


def test_class_folders_say_the_class(root):
    for i, synset in enumerate((fake.RETRIEVER, fake.TENCH, fake.RETRIEVER), start=1):
        name = f"ILSVRC2012_val_{i:08}.JPEG"
        (root / "val" / synset).mkdir(parents=True, exist_ok=True)
        (root / "ILSVRC2012_img_val" / name).rename(root / "val" / synset / name)
    assert labels(from_imagenet(root / "val")) == {1: 207, 2: 0, 3: 207}


def test_the_development_kit_has_numbers_of_its_own(root):
    fake.ground_truth(root)  # 3, 1, 2: tench, golden retriever, goldfish
    file = root / "ILSVRC2012_validation_ground_truth.txt"
    source = open_source(f"imagenet:{root}/ILSVRC2012_img_val,labels={file}")
    assert labels(source) == {1: 0, 2: 207, 3: 1}


def kaggle(root, rows):
    fake.write_table(root / "LOC_val_solution.csv", ("ImageId", "PredictionString"), rows)
    return root / "LOC_val_solution.csv"


def test_kaggles_table_has_classes_before_boxes(root):
    file = kaggle(
        root,
        [
            ("ILSVRC2012_val_00000003", f"{fake.GOLDFISH} 85 1 499 272 {fake.GOLDFISH} 1 2 3 4 "),
            ("ILSVRC2012_val_00000001", f"{fake.TENCH} 108 0 462 498 "),
            ("ILSVRC2012_val_00000002", f"{fake.RETRIEVER} 0 0 9 9 "),
        ],
    )
    source = from_imagenet(root / "ILSVRC2012_img_val", labels=file)
    assert labels(source) == {1: 0, 2: 207, 3: 1}


def test_lists_that_do_not_fit_are_errors(root):
    images = root / "ILSVRC2012_img_val"
    file = kaggle(root, [("ILSVRC2012_val_00000001", f"{fake.TENCH} 1 2 3 4")])
    with pytest.raises(
        ValueError, match=r"LOC_val.* none of ImageNet's classes for .*0000[23]\.JP"
    ):
        from_imagenet(images, labels=file)
    fake.write_table(file, ("id", "PredictionString"), [])
    with pytest.raises(ValueError, match=r"LOC_val_solution\.csv must have a column ImageId; its"):
        from_imagenet(images, labels=file)
    fake.ground_truth(root, numbers=("1", "2", "1861"))
    truth = root / "ILSVRC2012_validation_ground_truth.txt"
    with pytest.raises(ValueError, match=r"ground_truth\.txt: no class has the number '1861'"):
        from_imagenet(images, labels=truth)
    (root / "meta.mat").write_text("no such file")
    with pytest.raises(ValueError, match=r"meta\.mat is not that of ILSVRC2012_devkit_t12"):
        from_imagenet(images, labels=truth)
    (root / "meta.mat").unlink()
    with pytest.raises(OSError, match=r"meta\.mat, of the development kit .* cannot be read: No"):
        from_imagenet(images, labels=truth)
    with pytest.raises(OSError, match=r"labels .*none\.txt cannot be read: No such file"):
        from_imagenet(images, labels=root / "none.txt")


def test_images_of_unknown_classes_are_an_error(root):
    fake.write(root / "photographs" / "cat.jpg", fake.picture(1))
    fake.write(root / "classes" / "cat" / "a.jpg", fake.picture(1))
    for folder in ("photographs", "classes"):
        with pytest.raises(ValueError, match=rf"classes of the images in .*{folder} are not known"):
            from_imagenet(root / folder)
    (root / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty holds no image"):
        from_imagenet(root / "empty", labels=kaggle(root, []))


def test_classes_join_numbers_wordnet_ids_and_names():
    classes = imagenet_classes()
    assert [each.index for each in classes] == list(range(1000))
    assert [each.name for each in classes] == list(registry.class_names("imagenet"))
    known = {0: "tench", 1: "goldfish", 207: "golden retriever", 999: "toilet tissue"}
    assert {i: classes[i].name for i in known} == known
    assert {classes[i].synset for i in (0, 1, 207)} == {fake.TENCH, fake.GOLDFISH, fake.RETRIEVER}


def test_readable_names_are_wordnets_words_for_their_ids():
    """timm has a list of WordNet's words by id, made independently of torchvision's names."""
    (package,) = importlib.util.find_spec("timm").submodule_search_locations
    lines = (Path(package) / "data/_info/imagenet_synset_to_lemma.txt").read_text().splitlines()
    words = {synset: line.lower().split(", ") for synset, line in (x.split("\t") for x in lines)}
    # Of these two words WordNet has two meanings each, both among the classes.
    told_apart = {"crane bird": "crane", "maillot tank suit": "maillot"}
    for each in imagenet_classes():
        assert told_apart.get(each.name, each.name).lower() in words[each.synset]
