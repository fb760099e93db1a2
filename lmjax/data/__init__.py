"""Sources of images with ground truth: folders, tables, ImageNet, TFDS datasets, digit scenes."""

from lmjax._utils.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Cue": "lmjax.data.digits.cues",
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
        "prepare_digit_scenes": "lmjax.data.digits.builder",
        "prepare_imagenet": "lmjax.data.imagenet.builders",
        "register": "lmjax.data.opening",
    },
)
