"""Small datasets, prepared as tensorflow-datasets writes them; without TensorFlow."""

import io
import struct

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

SIZE = (6, 9)


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    file.seek(0)
    return file


def trimap(i):
    values = np.full(SIZE, 2, np.uint8)
    values[1:4, 2 : 4 + i] = 1
    values[4, 2:6] = 3
    return values


def image(i):
    return np.random.default_rng(i).integers(0, 256, (*SIZE, 3), np.uint8)


class Fake(tfds.core.GeneratorBasedBuilder):
    """Features named as those of oxford_iiit_pet are, and some more."""

    name = "fake_pets"
    VERSION = tfds.core.Version("1.0.0")
    class_names = ("cat", "dog", "eel")

    def _info(self):
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(),
                "label": tfds.features.ClassLabel(names=self.class_names),
                "segmentation_mask": tfds.features.Image(
                    shape=(None, None, 1), use_colormap=True, encoding_format="png"
                ),
                "file_name": tfds.features.Text(),
                "boxes": tfds.features.Sequence({"box": tfds.features.BBoxFeature()}),
                "depth": tfds.features.Tensor(shape=(*SIZE, 1), dtype=np.float32),
                "looks": tfds.features.Tensor(shape=SIZE, dtype=np.uint8),
                "distance": tfds.features.Tensor(shape=SIZE, dtype=np.float32),
            }
        )
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(4), "test": self._generate_examples(2)}

    def _generate_examples(self, length):
        for i in range(length):
            box = tfds.features.BBox(0.0, 0.0, 1.0, 1.0)
            yield (
                i,
                {
                    "image": png(image(i)),
                    "label": -1 if i == 3 else i,
                    "segmentation_mask": png(trimap(i)),
                    "file_name": f"pet_{i}",
                    "boxes": [{"box": box}] * i,
                    "depth": np.full((*SIZE, 1), i / 4, np.float32),
                    "looks": np.full(SIZE, 51 * i, np.uint8),
                    "distance": np.full(SIZE, 1.5, np.float32),
                },
            )


class Coco(tfds.core.GeneratorBasedBuilder):
    """Features named as those of coco/2017_panoptic are."""

    name = "fake_coco"
    VERSION = tfds.core.Version("1.0.0")
    numbers = np.array([[0, 7, 300], [0, 7, 70000]])

    def _info(self):
        objects = {
            "id": np.int64,
            "label": tfds.features.ClassLabel(names=["dog", "cat"]),
            "is_crowd": np.bool_,
        }
        features = {
            "image": tfds.features.Image(),
            "image/id": np.int64,
            "panoptic_image": tfds.features.Image(encoding_format="png"),
            "panoptic_objects": tfds.features.Sequence(objects),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        return {"validation": self._generate_examples()}

    def _generate_examples(self):
        segments = np.stack([self.numbers >> shift & 255 for shift in (0, 8, 16)], axis=-1)
        for i, labels in enumerate(([1, 0, 1], [0, 0, 0], [1, 1, 0])):
            objects = [
                {"id": number, "label": label, "is_crowd": False}
                for number, label in zip((7, 300, 70000), labels)
            ]
            yield (
                i,
                {
                    "image": png(np.zeros((2, 3, 3), np.uint8)),
                    "image/id": i + 100,
                    "panoptic_image": png(segments.astype(np.uint8)),
                    "panoptic_objects": objects,
                },
            )


class Pets(Fake):
    name = "oxford_iiit_pet"


class Few(Fake):
    """ImageNet's classes in an order of their own."""

    name = "few"
    class_names = ("n15075141", "n02099601", "n01440764")


def prepare(kind, data_dir, file_format):
    """Writes a dataset as array_record, parquet or tfrecord."""
    written = "parquet" if file_format == "parquet" else "array_record"
    kind(data_dir=str(data_dir), file_format=written).download_and_prepare()
    if file_format == "tfrecord":
        turn_into_tfrecord(data_dir / kind.name / "1.0.0")


def turn_into_tfrecord(folder):
    """Writes the records again, since tensorflow-datasets would need TensorFlow for it."""
    builder = tfds.core.read_only_builder.builder_from_directory(folder)
    for split in builder.info.splits:
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        records = list(builder.as_data_source(split, deserialize_method=raw))
        (path,) = folder.glob(f"*-{split}.array_record-*")
        with open(str(path).replace("array_record", "tfrecord"), "wb") as file:
            for record in records:
                file.write(struct.pack("<QI", len(record), 0) + record + struct.pack("<I", 0))
        path.unlink()
    about = folder / "dataset_info.json"
    about.write_text(about.read_text().replace("array_record", "tfrecord"))
