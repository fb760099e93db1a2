"""Sources of images with ground truth: folders, tables, TFDS datasets, and digit scenes."""

from lmjax.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "DigitScenes": "lmjax.data.digit_scenes",
        "Example": "lmjax.data.source",
        "Scene": "lmjax.data.digit_scenes",
        "from_csv": "lmjax.data.table",
        "from_folder": "lmjax.data.folder",
        "from_tfds": "lmjax.data.tfds_source",
        "open_source": "lmjax.data.opening",
        "prepare_digit_scenes": "lmjax.data.digit_scenes_builder",
    },
)
