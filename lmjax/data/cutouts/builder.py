"""Cut-out scenes as a tensorflow-datasets dataset, in array_record files; no TensorFlow needed.

    builder = lmjax.data.prepare_cutout_scenes("datasets", model="tf_efficientnet_lite0")
    source = lmjax.data.open_source(builder.source)

Importing this module imports tensorflow-datasets.
"""

import collections
import dataclasses
import itertools
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from lmjax._utils.checks import check_whole
from lmjax._utils.renamed import renamed
from lmjax.data.cutouts.backgrounds import KINDS, PHOTOGRAPHS
from lmjax.data.cutouts.recognition import recognised
from lmjax.data.cutouts.scenes import SIDES, SIZE, CutoutScene, CutoutScenes
from lmjax.data.imagenet.synsets import synsets
from lmjax.data.tfds.building import encoded
from lmjax.models.identity import weights_of
from lmjax.models.loading import load_spec

# Scenes of each stamp that a network is shown, at most: Lite0 finds its 300 within 20 where
# Debian's wallpapers are installed, and within 60 where they are not.
_TRIES = 60


@dataclasses.dataclass(kw_only=True)
class CutoutScenesConfig(tfds.core.BuilderConfig):
    """Selection of scenes: the first `length`, and at most `per_stamp` of each stamp.

    With a network they are the first that it recognises.
    """

    scenes: CutoutScenes
    length: int
    per_stamp: int
    network: str | None
    weights_sha256: str | None = None


class CutoutScenesBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Cut-outs of objects on photographs, with ground truth; see `lmjax.data.CutoutScenes`."""

    name = "cutout_scenes"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}  # noqa: RUF012 (tensorflow-datasets' own idiom)
    builder_config: CutoutScenesConfig  # pyright: ignore[reportIncompatibleMethodOverride]

    @property
    def source(self) -> str:
        """The source as `lmjax study --source` takes it."""
        folder = os.fspath(self.data_dir_root)
        return f"tfds:{self.name}/{self.builder_config.name}[test],data_dir={folder}"

    def _info(self) -> tfds.core.DatasetInfo:
        scenes = self.builder_config.scenes
        mask = tfds.features.Image(shape=(scenes.size, scenes.size, 1), encoding_format="png")
        shape = (scenes.size, scenes.size, 3)
        features = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=shape, encoding_format="png"),
            "label": tfds.features.ClassLabel(names=synsets()),
            "object_mask": mask,
            "tight_mask": mask,
            "classes": tfds.features.Sequence(tfds.features.ClassLabel(names=synsets())),
            "stamp": tfds.features.Text(),
            "photograph": tfds.features.Text(),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            metadata=tfds.core.MetadataDict(
                scenes=scenes.version, weights=self.builder_config.weights_sha256
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {"test": self._generate_examples()}

    def _generate_examples(self):
        for index, scene in enumerate(_selected(self.builder_config)):
            yield index, _example(scene)


@renamed(network="model")
def prepare_cutout_scenes(
    data_dir: str | os.PathLike,
    *,
    length: int = 300,
    per_stamp: int = 3,
    model: str | None = None,
    seed: int = 0,
    size: int = SIZE,
    backgrounds: str | os.PathLike = PHOTOGRAPHS,
    sides: tuple[float, float] = SIDES,
    stamps: str | os.PathLike | None = None,
) -> CutoutScenesBuilder:
    """Writes cut-out scenes as array_record files, unless they are there already.

    Example:
      >>> builder = prepare_cutout_scenes("datasets", model="tf_efficientnet_lite0")
      >>> builder.source
      'tfds:cutout_scenes/photographs300_each3_seed0_size256_tf_efficientnet_lite0[test],data_dir=...'

    Args:
      data_dir: folder of tensorflow-datasets.
      length: number of scenes.
      per_stamp: most scenes of one stamp.
      model: a network of ImageNet's classes, `NAME` or `NAME=WEIGHTS` as `lmjax study --models`
        takes it. With it, only scenes that it recognises are written, up to 60 of each stamp being
        tried; their label is the class that it gives (`lmjax.data.recognised`).
      seed, size, backgrounds, sides, stamps: as of `CutoutScenes`.

    Returns:
      The builder. ``builder.as_data_source("test")[i]`` is a dict of ``id``, ``image`` (uint8
      `[size, size, 3]`), ``label``, ``object_mask`` and ``tight_mask`` (uint8 `[size, size, 1]`, 1
      on the object), ``classes``, ``stamp`` and ``photograph``.

    Raises:
      ValueError: all that `CutoutScenes` and `lmjax.models.load` refuse; fewer scenes than
        `length`; or scenes of the same name, made of other stamps or photographs, that are there
        already.
      OSError: the folder cannot be written.
    """
    scenes = CutoutScenes(
        length=0, seed=seed, size=size, backgrounds=backgrounds, sides=sides, stamps=stamps
    )
    config = _config(scenes, length, per_stamp, model)
    builder = CutoutScenesBuilder(
        data_dir=os.path.expanduser(data_dir), config=config, file_format="array_record"
    )
    _check_same(builder, scenes)
    builder.download_and_prepare()
    return builder


def _config(
    scenes: CutoutScenes, length: int, per_stamp: int, network: str | None
) -> CutoutScenesConfig:
    check_whole("length", length, least=1)
    check_whole("per_stamp", per_stamp, least=1)
    most = per_stamp * len(scenes.stamps)
    if length > most:
        raise ValueError(
            f"length must be at most {most}: per_stamp {per_stamp} of each of {len(scenes.stamps)} "
            f"stamps; got {length}"
        )
    kind = scenes.backgrounds if scenes.backgrounds in KINDS else Path(scenes.backgrounds).name
    name = f"{kind}{length}_each{per_stamp}_seed{scenes.seed}_size{scenes.size}"
    if scenes.sides != SIDES:
        name = f"{name}_sides{scenes.written_sides}"
    name = name if network is None else f"{name}_{network}"
    description = f"{length} scenes, at most {per_stamp} of each stamp"
    if network is not None:
        description = f"{description}, that {network} recognises"
    return CutoutScenesConfig(
        name=re.sub(r"[^\w.-]+", "-", name),
        description=f"{description}.",
        scenes=scenes,
        length=length,
        per_stamp=per_stamp,
        network=network,
        # A file of weights may hold others the next time.
        weights_sha256=weights_of(load_spec(network)) if network and "=" in network else None,
    )


def _check_same(builder: CutoutScenesBuilder, scenes: CutoutScenes) -> None:
    """Raises ValueError where scenes of other files or weights than now are prepared already."""
    there = dict(builder.info.metadata or {})
    if there.get("scenes", scenes.version) != scenes.version:
        raise ValueError(
            f"data_dir: {builder.data_dir} holds scenes of other stamps or photographs "
            f"({there['scenes']}, now {scenes.version}); delete it, or take another data_dir"
        )
    weights = builder.builder_config.weights_sha256
    if (there.get("weights") or weights) != weights:
        raise ValueError(
            f"data_dir: {builder.data_dir} holds scenes that other weights of "
            f"{builder.builder_config.network} recognised; delete it, or take another data_dir"
        )


def _selected(config: CutoutScenesConfig) -> Iterator[CutoutScene]:
    """Yields the scenes of a configuration; raises ValueError where they are too few."""
    count = 0
    for scene in itertools.islice(_few_of_each(_found(config), config.per_stamp), config.length):
        count += 1
        yield scene
    if count < config.length:
        raise ValueError(
            f"length must be at most {count}: {config.network} recognises no more scenes, of "
            f"{_TRIES} of each of {len(config.scenes.stamps)} stamps, with per_stamp "
            f"{config.per_stamp}; got {config.length}"
        )


def _found(config: CutoutScenesConfig) -> Iterable[CutoutScene]:
    tries = config.per_stamp if config.network is None else _TRIES
    scenes = config.scenes.with_length(tries * len(config.scenes.stamps))
    if config.network is None:
        return scenes
    return recognised(scenes, load_spec(config.network))


def _few_of_each(scenes: Iterable[CutoutScene], per_stamp: int) -> Iterator[CutoutScene]:
    count = collections.Counter()
    for scene in scenes:
        count[scene.stamp] += 1
        if count[scene.stamp] <= per_stamp:
            yield scene


def _example(scene: CutoutScene) -> dict:
    return encoded(scene) | {"classes": list(scene.classes), "stamp": scene.stamp}
