"""The orientation of photographs: they are turned as their EXIF says, and as viewers show them."""

from PIL import ExifTags, Image

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def turned(picture: Image.Image) -> Image.Image:
    """Returns a picture as it is displayed."""
    turn = turn_of(picture)
    return picture if turn is None else picture.transpose(turn)


def turn_of(picture: Image.Image) -> Image.Transpose | None:
    """Returns the turn of the EXIF orientation; None where EXIF is damaged, as in ImageNet."""
    try:
        return _TURNS.get(picture.getexif()[ExifTags.Base.Orientation])
    except Exception:  # of many kinds
        return None
