"""Sources of images with ground truth: folders, tables, ImageNet, TFDS datasets, made scenes."""

from typing import TYPE_CHECKING

from lmjax._utils.lazy import attach

if TYPE_CHECKING:
    from lmjax.data.cutouts.builder import prepare_cutout_scenes as prepare_cutout_scenes
    from lmjax.data.cutouts.recognition import recognised as recognised
    from lmjax.data.cutouts.scenes import CutoutScene as CutoutScene
    from lmjax.data.cutouts.scenes import CutoutScenes as CutoutScenes
    from lmjax.data.digits.builder import prepare_digit_scenes as prepare_digit_scenes
    from lmjax.data.digits.cues import Cue as Cue
    from lmjax.data.digits.scenes import DigitScenes as DigitScenes
    from lmjax.data.digits.scenes import Scene as Scene
    from lmjax.data.files.folder import from_folder as from_folder
    from lmjax.data.files.table import from_csv as from_csv
    from lmjax.data.imagenet.builders import prepare_imagenet as prepare_imagenet
    from lmjax.data.imagenet.masks import from_imagenet_s as from_imagenet_s
    from lmjax.data.imagenet.masks import from_part_imagenet as from_part_imagenet
    from lmjax.data.imagenet.masks import from_pixel_imagenet as from_pixel_imagenet
    from lmjax.data.imagenet.salient import from_salient_imagenet as from_salient_imagenet
    from lmjax.data.imagenet.synsets import imagenet_classes as imagenet_classes
    from lmjax.data.imagenet.validation import from_imagenet as from_imagenet
    from lmjax.data.opening import SourceSpec as SourceSpec
    from lmjax.data.opening import description as description
    from lmjax.data.opening import forms as forms
    from lmjax.data.opening import names as names
    from lmjax.data.opening import open_source as open_source
    from lmjax.data.opening import register as register
    from lmjax.data.source import Example as Example
    from lmjax.data.source import Source as Source
    from lmjax.data.tfds.source import from_tfds as from_tfds

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Cue": "lmjax.data.digits.cues",
        "CutoutScene": "lmjax.data.cutouts.scenes",
        "CutoutScenes": "lmjax.data.cutouts.scenes",
        "DigitScenes": "lmjax.data.digits.scenes",
        "Example": "lmjax.data.source",
        "Scene": "lmjax.data.digits.scenes",
        "Source": "lmjax.data.source",
        "SourceSpec": "lmjax.data.opening",
        "description": "lmjax.data.opening",
        "forms": "lmjax.data.opening",
        "from_csv": "lmjax.data.files.table",
        "from_folder": "lmjax.data.files.folder",
        "from_imagenet": "lmjax.data.imagenet.validation",
        "from_imagenet_s": "lmjax.data.imagenet.masks",
        "from_part_imagenet": "lmjax.data.imagenet.masks",
        "from_pixel_imagenet": "lmjax.data.imagenet.masks",
        "from_salient_imagenet": "lmjax.data.imagenet.salient",
        "from_tfds": "lmjax.data.tfds.source",
        "imagenet_classes": "lmjax.data.imagenet.synsets",
        "names": "lmjax.data.opening",
        "open_source": "lmjax.data.opening",
        "prepare_cutout_scenes": "lmjax.data.cutouts.builder",
        "prepare_digit_scenes": "lmjax.data.digits.builder",
        "prepare_imagenet": "lmjax.data.imagenet.builders",
        "recognised": "lmjax.data.cutouts.recognition",
        "register": "lmjax.data.opening",
    },
)
