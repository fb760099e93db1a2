"""What every source keeps to, whatever it reads: `lmjax.data.source`."""

import hashlib
import pickle
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from lmjax.data import open_source
from tests.support import imagenet_files, stamps
from tests.support.prepared import Coco, Fake, prepare

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
FORMATS = ("array_record", "parquet", "tfrecord")
FIELDS = ("image", "object_mask", "tight_mask", "saliency")


def write_pictures(root):
    """Two classes with masks and heatmaps, some of which are missing; and a table of them."""
    rng, lines = np.random.default_rng(0), ["image,label,mask,tight_mask,saliency"]
    for i, name in enumerate(("cat/a.png", "cat/b.png", "dog/c.png", "dog/d.png", "dog/e.png")):
        for kind in ("images", "masks", "maps"):
            if (kind, i) in (("masks", 1), ("maps", 3)):
                continue
            path = root / kind / name
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (8 + i, 10, 3), np.uint8)
            Image.fromarray(pixels if kind == "images" else pixels[..., 0]).save(path)
        masks = "" if i == 1 else f"masks/{name}"
        maps = "" if i == 3 else f"maps/{name}"
        lines.append(f"images/{name},{name.split('/')[0]},{masks},{masks},{maps}")
    (root / "pets.csv").write_text("\n".join(lines))


SOURCES = {
    "digit-scenes": "digit-scenes,seed=3",
    "cutout-scenes": "cutout-scenes,stamps={root}/stamps,backgrounds={root}/images/dog,size=40",
    "folder": "folder:{root}/images,masks={root}/masks,tight_masks={root}/masks,"
    "saliency={root}/maps",
    "csv": "csv:{root}/pets.csv",
    "imagenet": "imagenet:{root}/ILSVRC2012_img_val",
    "pixel-imagenet": "pixel-imagenet:{root}/pixel-imagenet-v2,images={root}/ILSVRC2012/train",
    **{
        name: f"tfds:fake_pets[train[1:]],saliency=depth,data_dir={{root}}/{name}"
        for name in FORMATS
    },
    "category": "tfds:fake_coco,category=cat,data_dir={root}/array_record",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("sources")
    write_pictures(root)
    stamps.write(root / "stamps")
    imagenet_files.validation(root)
    imagenet_files.pixel_imagenet(root)
    for name in FORMATS:
        prepare(Fake, root / name, name)
    prepare(Coco, root / "array_record", "array_record")
    return root


@pytest.fixture(params=SOURCES)
def source(request, root):
    return opened(request.param, root)


def opened(name, root):
    return open_source(SOURCES[name].format(root=root), length=5)


def digest(source) -> str:
    """Of all that a source gives."""
    found = [source.version, len(source)]
    for i in range(len(source)):
        example = source[i]
        fields = [getattr(example, name, None) for name in FIELDS]
        contents = [each if each is None else (each.shape, each.tobytes()) for each in fields]
        found.append((example.id, example.label, contents))
    return hashlib.sha256(repr(found).encode()).hexdigest()


def test_examples_are_what_studies_expect(source):
    examples = [source[i] for i in range(len(source))]
    assert len(examples) >= 2
    assert len({example.id for example in examples}) == len(examples)
    for example in examples:
        assert type(example.id) is str
        assert example.image.dtype == np.uint8
        assert example.image.shape == (*example.image.shape[:2], 3)
        assert example.label is None or (type(example.label) is int and example.label >= 0)
        for name, dtype in (("object_mask", bool), ("tight_mask", bool), ("saliency", np.float32)):
            field = getattr(example, name, None)
            if field is not None:
                assert field.dtype == dtype, name
                assert field.shape == example.image.shape[:2], name
        saliency = getattr(example, "saliency", None)
        assert saliency is None or 0 <= saliency.min() <= saliency.max() <= 1


def test_examples_go_by_number(source):
    length = len(source)
    ids = [source[i].id for i in range(length)]
    assert [source[i].id for i in reversed(range(length))] == ids[::-1]  # in any order
    assert [source[i - length].id for i in range(length)] == ids
    assert source[np.int64(1)].id == ids[1]
    assert [example.id for example in source] == ids
    for index in (length, -length - 1, 10**9):
        with pytest.raises(IndexError):
            source[index]
    for index in (slice(0, 2), 1.0, "1", None):
        with pytest.raises(TypeError):
            source[index]


@pytest.mark.parametrize("name", SOURCES)
def test_versions_are_the_same_whenever_a_source_is_opened(name, root):
    source = opened(name, root)
    before = source.version
    assert type(before) is str
    digest(source)
    assert source.version == opened(name, root).version == before


def test_versions_tell_sources_apart(root):
    assert len({opened(name, root).version for name in SOURCES}) == len(SOURCES) - 2  # formats


def test_sources_come_back_in_another_process(root, tmp_path):
    sources = [opened(name, root) for name in SOURCES]
    used = [opened(name, root) for name in SOURCES]
    expected = [digest(source) for source in used]  # open files and all
    kept = [pickle.dumps(each) for each in (*sources, *used)]
    assert [digest(pickle.loads(each)) for each in kept] == 2 * expected
    (tmp_path / "sources").write_bytes(pickle.dumps(kept))
    code = (
        "import pickle, sys\n"
        "from tests.data.test_contract import digest\n"
        "for each in pickle.load(open(sys.argv[1], 'rb')): print(digest(pickle.loads(each)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "sources")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == 2 * expected
