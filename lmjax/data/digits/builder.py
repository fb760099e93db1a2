"""Digit scenes as a tensorflow-datasets dataset, in array_record files; TensorFlow is not needed.

    builder = lmjax.data.prepare_digit_scenes("datasets")
    source = builder.as_data_source("test")
    source[0]["image"], source[0]["label"], source[0]["object_mask"]

Importing this module imports tensorflow-datasets and registers the builder with it.
"""

import dataclasses
import os

import tensorflow_datasets as tfds

from lmjax._utils.checks import check_whole
from lmjax.data.digits.scenes import CLASS_NAMES, SIZE, DigitScenes, Scene
from lmjax.data.tfds.building import encoded, png


@dataclasses.dataclass
class DigitScenesConfig(tfds.core.BuilderConfig):
    """Selection of scenes: the length of each split, the seed, and the options of the cue."""

    train_length: int = 12_000
    test_length: int = 2_000
    seed: int = 0
    spurious: float | None = None
    cue: str | None = None


def _config(
    train_length: int,
    test_length: int,
    seed: int,
    spurious: float | None = None,
    cue: str | None = None,
) -> DigitScenesConfig:
    name = f"train{train_length}_test{test_length}_seed{seed}"
    description = f"{train_length} training and {test_length} test scenes of seed {seed}"
    scenes = DigitScenes(seed=seed, spurious=spurious, cue=cue)  # checks the options
    if spurious is not None:
        dials = scenes.version.split("/")[-1]
        name = f"{name}_{dials.replace('=', '')}"
        description = f"{description}, with a cue: {dials}"
    return DigitScenesConfig(
        name=name,
        description=f"{description}.",
        train_length=train_length,
        test_length=test_length,
        seed=seed,
        spurious=spurious,
        cue=cue,
    )


class DigitScenesBuilder(tfds.core.GeneratorBasedBuilder):
    """Handwritten digits on photographs, with ground truth; see `lmjax.data.digits.scenes`."""

    name = "digit_scenes"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}  # noqa: RUF012 (tensorflow-datasets' own idiom)
    BUILDER_CONFIGS = [_config(12_000, 2_000, 0)]  # noqa: RUF012
    builder_config: DigitScenesConfig  # pyright: ignore[reportIncompatibleMethodOverride]

    def _info(self) -> tfds.core.DatasetInfo:
        mask = tfds.features.Image(shape=(SIZE, SIZE, 1), encoding_format="png")
        features = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(SIZE, SIZE, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=CLASS_NAMES),
            "object_mask": mask,
            "tight_mask": mask,
            "photograph": tfds.features.Text(),
        }
        if self.builder_config.spurious is not None:
            features |= {
                "cue_mask": mask,
                "cue_points_at": tfds.features.ClassLabel(names=CLASS_NAMES),
            }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            # The order of DigitScenes.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        config = self.builder_config
        lengths = {"train": config.train_length, "test": config.test_length}
        return {
            split: self._generate_examples(
                DigitScenes(
                    split,
                    length=length,
                    seed=config.seed,
                    spurious=config.spurious,
                    cue=config.cue,
                )
            )
            for split, length in lengths.items()
        }

    def _generate_examples(self, scenes: DigitScenes):
        for index, scene in enumerate(scenes):
            yield index, _example(scene)


def _example(scene: Scene) -> dict:
    if scene.cue is None:
        return encoded(scene)
    cue = {"cue_mask": png(scene.cue.mask), "cue_points_at": scene.cue.points_at}
    return encoded(scene) | cue


def prepare_digit_scenes(
    data_dir: str | os.PathLike,
    *,
    train_length: int = 12_000,
    test_length: int = 2_000,
    seed: int = 0,
    spurious: float | None = None,
    cue: str | None = None,
) -> DigitScenesBuilder:
    """Writes digit scenes as array_record files, unless they are there already.

    Args:
        data_dir: folder of tensorflow-datasets.
        train_length: number of training scenes.
        test_length: number of test scenes.
        seed, spurious, cue: as of `DigitScenes`.

    Returns:
        The builder. ``builder.as_data_source("test")[i]`` is a dict of ``id``, ``image`` (uint8
        [128, 128, 3]), ``label``, ``object_mask`` and ``tight_mask`` (uint8 [128, 128, 1], 1 on
        the digit) and ``photograph``, and of scenes with a cue ``cue_mask`` and
        ``cue_points_at``: the scene ``DigitScenes("test", ...)[i]``.

    Raises:
        ValueError: for a length below 1, and all that `DigitScenes` refuses.
        OSError: the folder cannot be written.
    """
    check_whole("train_length", train_length, least=1)
    check_whole("test_length", test_length, least=1)
    builder = _builder(data_dir, _config(train_length, test_length, seed, spurious, cue))
    builder.download_and_prepare()
    return builder


def _builder(data_dir: str | os.PathLike, config: DigitScenesConfig) -> DigitScenesBuilder:
    # tensorflow-datasets takes a config that it knows by name only.
    known = config in DigitScenesBuilder.BUILDER_CONFIGS
    return DigitScenesBuilder(
        data_dir=os.fspath(data_dir),
        config=config.name if known else config,
        file_format="array_record",
    )
