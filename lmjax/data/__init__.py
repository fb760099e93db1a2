"""Sources of images with ground truth: folders, tables, ImageNet, TFDS datasets, digit scenes."""

from lmjax.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Cue": "lmjax.data.digit_cues",
        "DigitScenes": "lmjax.data.digit_scenes",
        "Example": "lmjax.data.source",
        "Scene": "lmjax.data.digit_scenes",
        "from_csv": "lmjax.data.table",
        "from_folder": "lmjax.data.folder",
        "from_imagenet": "lmjax.data.imagenet_validation",
        "from_imagenet_s": "lmjax.data.imagenet_masks",
        "from_part_imagenet": "lmjax.data.imagenet_masks",
        "from_pixel_imagenet": "lmjax.data.imagenet_masks",
        "from_salient_imagenet": "lmjax.data.salient_imagenet",
        "from_tfds": "lmjax.data.tfds_source",
        "imagenet_classes": "lmjax.data.imagenet",
        "open_source": "lmjax.data.opening",
        "prepare_digit_scenes": "lmjax.data.digit_scenes_builder",
        "prepare_imagenet": "lmjax.data.imagenet_builders",
    },
)
