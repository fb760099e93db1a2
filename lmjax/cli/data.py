"""`lmjax data`: the datasets that studies are made for, and files that studies read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import arg

from lmjax.cli.options import OptionalStr, documented
from lmjax.cli.terminal import say, say_written


def build() -> tyro.extras.SubcommandApp:
    """Returns the commands by name."""
    app = tyro.extras.SubcommandApp()
    app.command(name="list")(list_datasets)
    app.command(name="cutout-scenes")(documented(cutout_scenes))
    app.command(documented(calibration))
    app.command(documented(samples))
    app.command(wordnet)
    return app


def old_options(arguments: Sequence[str]) -> dict[str, str]:
    """Returns the options whose names changed: old name -> new name."""
    return {"out": "output", "network": "model"}


def list_datasets(*, data_dir: Annotated[Path | None, arg(metavar="DIR")] = None) -> None:
    """Lists datasets: which are here, how to get the others, and their terms.

    Args:
        data_dir: folder of tensorflow-datasets; its own default otherwise.
    """
    from lmjax.data import catalogue

    say(catalogue.listing(data_dir))


def cutout_scenes(
    *,
    data_dir: Annotated[Path | None, arg(metavar="DIR")] = None,
    length: int = 300,
    per_stamp: int = 3,
    model: OptionalStr = None,
    seed: int = 0,
    size: int = 256,
    backgrounds: str = "photographs",
    sides: Annotated[tuple[float, float], arg(metavar="LOW HIGH")] = (0.35, 0.60),
    stamps: Annotated[Path | None, arg(metavar="DIR")] = None,
) -> None:
    """Writes scenes of cut-out objects of ImageNet's classes, with exact masks.

    Needs the stamps of a Debian package: apt-get install tuxpaint-stamps-default.

    Args:
        data_dir: folder of tensorflow-datasets; its own default otherwise.
        length: number of scenes.
        per_stamp: most scenes of one stamp.
        model: takes only scenes that this network recognises, NAME or NAME=WEIGHTS; their label
            is the class that it gives.
        seed: another seed has other places, sizes and backgrounds.
        size: height and width in pixels.
        backgrounds: photographs, grey, white, or a folder of pictures.
        sides: range of the longer side of an object, as a share of the middle 7/8 of the image.
        stamps: folder of the stamps, if it is not /usr/share/tuxpaint/stamps.
    """
    from lmjax.data import catalogue, prepare_cutout_scenes

    builder = prepare_cutout_scenes(
        catalogue.default_data_dir() if data_dir is None else data_dir,
        length=length,
        per_stamp=per_stamp,
        model=model,
        seed=seed,
        size=size,
        backgrounds=backgrounds,
        sides=sides,
        stamps=stamps,
    )
    say(f'prepared; take it with --source "{builder.source}"')


def calibration(
    *,
    removal: str,
    source: str,
    model: str = "resnet18_digits",
    images: int = 200,
    variants: int = 10,
    ridge: float = 1e-3,
    seed: int = 0,
    output: Annotated[Path, arg(metavar="FILE")] = Path("calibration.npz"),
) -> None:
    """Calibrates a removal for a network on held-out images.

    Masked images keep the class of whole ones where they can: logits go through an affine map. The
    file is for this network; take it as the removal calibrated@FILE.

    Args:
        removal: name of the removal.
        source: of images that are not those to be judged, as for studies; of one with splits, the
            training split, unless it says another.
        model: NAME or NAME=WEIGHTS.
        images: how many, from the first.
        variants: masked variants of each, with segments of four sizes.
        ridge: penalty that draws the map to the identity.
        seed: of the masks, and of a removal that draws.
        output: the .npz file.
    """
    from lmjax.studies import fit_calibration

    fit_calibration(
        removal,
        source,
        model=model,
        images=images,
        variants=variants,
        ridge=ridge,
        seed=seed,
        output=output,
    )
    say_written(output, f"; take it as the removal calibrated@{output}")


def samples(
    *,
    source: str,
    model: str = "resnet18_digits",
    images: int = 64,
    output: Annotated[Path, arg(metavar="FILE")] = Path("samples.npz"),
) -> None:
    """Writes images that the removal samples@FILE draws hidden pixels from.

    Args:
        source: of images other than those to be explained or judged, as for studies; of one with
            splits, the training split, unless it says another.
        model: NAME or NAME=WEIGHTS, whose preprocessing resizes and crops them.
        images: how many, from the first; 8 or more.
        output: the .npz file.
    """
    from lmjax.studies import write_samples

    write_samples(output, source, model=model, images=images)
    say_written(output, f"; take it as the removal samples@{output}")


def wordnet(*, output: Annotated[Path, arg(metavar="FILE")] = Path("wordnet.npy")) -> None:
    """Writes the similarity of ImageNet's classes by WordNet (lmjax study removal --similarity).

    Takes a few minutes; needs NLTK and its WordNet corpus.

    Args:
        output: the .npy file, a 1000 x 1000 matrix of Wu-Palmer similarity.
    """
    from lmjax.data.imagenet.wordnet import write_similarity

    write_similarity(output)
    say_written(output)
