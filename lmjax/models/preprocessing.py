"""Preprocessing: from a photograph to the image a network was trained on.

Two steps, kept apart because masks and baselines live between them: calling a `Preprocessing` gives
the image in display colours, float32 `[h, w, C]` in [0, 1], resized and cropped; `normalise` takes
such images to the network's input range. Geometry and filters are those of torchvision's transforms
on PIL images, number for number.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from lmjax._utils.checks import check_choice, check_number, check_whole
from lmjax._utils.orientation import turned

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_MOST_PIXELS = 178_956_970  # as many as Pillow reads
_COLOUR_MODES = {1: "L", 3: "RGB"}


@dataclass(frozen=True)
class Preprocessing:
    """The resize, centre crop and normalisation with which the weights were trained.

    The defaults are torchvision's for its first ImageNet weights (`IMAGENET1K_V1`).

    Attributes:
      resize: length of the shorter side after resizing (the other side follows, rounded down), or
        None to keep the size. Where a source states a crop fraction (timm's `crop_pct`), this is
        `floor(crop / fraction)`.
      crop: side of the square cut from the centre, or None for the whole image. Where the image is
        smaller, it is padded with black.
      interpolation: `"nearest"`, `"bilinear"`, `"bicubic"` or `"lanczos"`.
      antialias: whether the filter widens when it shrinks the image. Always True: Pillow's filters
        do, and torchvision's on PIL images are Pillow's.
      mean, std: of the training images, one number for each channel: means up to 1, standard
        deviations above 0. Their length is the number of channels.

    Raises:
      ValueError: for a value out of range.
    """

    resize: int | None = 256
    crop: int | None = 224
    interpolation: str = "bilinear"
    antialias: bool = True
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __post_init__(self):
        for name in ("resize", "crop"):
            length = getattr(self, name)
            if length is not None:
                length = check_whole(name, length, least=1, note="pixels; or None")
                object.__setattr__(self, name, length)
        check_choice("interpolation", self.interpolation, _FILTERS)
        if not self.antialias:
            raise ValueError("antialias must be True: Pillow has no filter without it")
        note = "of colours in [0, 1]; divide those of 0..255 by 255"
        for name, bounds in {"mean": {"most": 1}, "std": {"above": 0}}.items():
            values = (check_number(name, x, note=note, **bounds) for x in getattr(self, name))
            object.__setattr__(self, name, tuple(values))  # a Preprocessing can be hashed
        if len(self.mean) != len(self.std) or not self.mean:
            raise ValueError(
                f"mean and std must have one number for each channel, got {len(self.mean)} and "
                f"{len(self.std)} numbers"
            )

    def __call__(self, image: Image.Image | np.ndarray) -> np.ndarray:
        """Resizes and crops a photograph for the network, in display colours.

        Args:
          image: a PIL image, turned as its EXIF orientation says; or a uint8 array `[H, W]` or
            `[H, W, C]` in 0..255. Greyscale and palette images become RGB. So do images with
            transparency, as `convert("RGB")` does it: opacity is dropped and the colours stored
            under transparent pixels show. Put such an image on a background first if that matters.

        Returns:
          float32 `[h, w, C]` in [0, 1]; `[crop, crop, C]` where there is a crop.

        Raises:
          ValueError: arrays of another type or shape; 16-bit and floating-point images, which have
            no agreed range.
          OSError: image files that Pillow cannot read to the end.
        """
        pixels = _to_pixels(image, channels=len(self.mean))
        pixels = self._resize_and_crop(pixels, _FILTERS[self.interpolation])
        return pixels.astype(np.float32) / np.float32(255)

    def for_mask(self, mask: np.ndarray) -> np.ndarray:
        """Resizes and crops a mask of the photograph with it; nearest neighbour.

        Args:
          mask: `[H, W]`, 0 and 1 or bool, in the orientation in which the image is displayed.

        Returns:
          bool `[h, w]`, False in any padding.

        Raises:
          ValueError: another rank, or values other than 0 and 1.
        """
        mask = np.asarray(mask)
        if mask.ndim != 2 or 0 in mask.shape:
            raise ValueError(f"mask must be [H, W], got shape {mask.shape}")
        other = np.setdiff1d(mask, [0, 1])
        if other.size:
            raise ValueError(f"mask must hold 0 and 1 only, found {other[:5].tolist()}")
        pixels = mask.astype(np.uint8)[..., None]
        return self._resize_and_crop(pixels, Image.Resampling.NEAREST)[..., 0].astype(bool)

    def for_heatmap(self, heatmap: np.ndarray) -> np.ndarray:
        """Resizes and crops a heatmap of the photograph with it; bilinear, so within its range.

        Args:
          heatmap: `[H, W]`, finite, in the orientation in which the image is displayed.

        Returns:
          float32 `[h, w]`, 0 in any padding.

        Raises:
          ValueError: another rank, NaN or infinity.
        """
        heatmap = np.asarray(heatmap, np.float32)
        if heatmap.ndim != 2 or 0 in heatmap.shape:
            raise ValueError(f"heatmap must be [H, W], got shape {heatmap.shape}")
        if not np.isfinite(heatmap).all():
            raise ValueError("heatmap holds NaN or infinity")
        return self._resize_and_crop(heatmap[..., None], Image.Resampling.BILINEAR)[..., 0]

    def normalise(self, images):
        """Takes display colours `[..., H, W, C]` in [0, 1] to the network's input range.

        `(images - mean) / std`, channel by channel; a pure function, to be used under `jit`.
        """
        import jax.numpy as jnp  # here, so that reading the registry does not wait for JAX

        images = jnp.asarray(images)
        shape = (1,) * (images.ndim - 1) + (len(self.mean),)
        if images.ndim < 3 or images.shape[-1] != len(self.mean):
            raise ValueError(
                f"images must be [..., H, W, {len(self.mean)}], one channel for each number of the "
                f"preprocessing's mean; got shape {images.shape}"
            )
        wide = jnp.float64 if images.dtype == jnp.float64 else jnp.float32
        mean, std = (np.array(x, np.float32).reshape(shape) for x in (self.mean, self.std))
        return (images.astype(wide) - mean.astype(wide)) / std.astype(wide)

    def _resize_and_crop(self, pixels: np.ndarray, resample: Image.Resampling) -> np.ndarray:
        if self.resize is not None:
            pixels = _resize_shorter_side(pixels, self.resize, resample)
        return pixels if self.crop is None else _centre_crop(pixels, self.crop)


def _to_pixels(image: Image.Image | np.ndarray, *, channels: int) -> np.ndarray:
    """uint8 `[H, W, channels]`."""
    if isinstance(image, Image.Image):
        return _convert(turned(image), channels)
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or 0 in pixels.shape:
        raise ValueError(
            f"image must be a PIL image or a uint8 array [H, W] or [H, W, C] in 0..255, got "
            f"{pixels.dtype} of shape {pixels.shape}"
        )
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.shape[2] == channels:
        return pixels
    if pixels.shape[2] not in (1, 3, 4):
        raise ValueError(f"image has {pixels.shape[2]} channels, the network takes {channels}")
    return _convert(Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels), channels)


def _convert(image: Image.Image, channels: int) -> np.ndarray:
    if channels not in _COLOUR_MODES:
        raise ValueError(
            f"a PIL image cannot be given to a network of {channels} channels; pass a uint8 array "
            f"[H, W, {channels}]"
        )
    if image.mode == "F" or image.mode.startswith("I"):
        raise ValueError(
            f"image has Pillow's mode {image.mode!r}, whose range is not 0..255; scale it to 8 "
            "bits per channel first"
        )
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the same colours; straight to RGB, Pillow may warn
    image = image.convert(_COLOUR_MODES[channels])
    return np.asarray(image).reshape(image.height, image.width, channels)


def _resize_shorter_side(pixels: np.ndarray, length: int, resample) -> np.ndarray:
    height, width = pixels.shape[:2]
    shorter = min(height, width)
    size = (int(length * height / shorter), int(length * width / shorter))
    if size == (height, width):
        return pixels
    if size[0] * size[1] > _MOST_PIXELS:
        raise ValueError(
            f"image is {height} x {width} pixels: with a shorter side of {length} it would have "
            f"{size[0]} x {size[1]}, more than {_MOST_PIXELS:,}; crop it first"
        )
    # Pillow filters each channel by itself, so any number of them can go one by one.
    resized = [
        Image.fromarray(pixels[..., channel]).resize((size[1], size[0]), resample)
        for channel in range(pixels.shape[2])
    ]
    return np.stack([np.asarray(channel) for channel in resized], axis=-1)


def _centre_crop(pixels: np.ndarray, length: int) -> np.ndarray:
    missing = [max(length - side, 0) for side in pixels.shape[:2]]
    padding = [(n // 2, (n + 1) // 2) for n in missing]
    pixels = np.pad(pixels, (*padding, (0, 0)))
    # Half pixels round to even, as in torchvision.
    top, left = (round((side - length) / 2) for side in pixels.shape[:2])
    return pixels[top : top + length, left : left + length]
