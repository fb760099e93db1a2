"""Sources of images with ground truth: digit scenes, made offline."""

from lmjax.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "DigitScenes": "lmjax.data.digit_scenes",
        "Scene": "lmjax.data.digit_scenes",
        "prepare_digit_scenes": "lmjax.data.digit_scenes_builder",
    },
)
