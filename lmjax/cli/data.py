"""`lmjax data`: the datasets that studies are made for, and files that studies read."""

from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import arg


def build() -> tyro.extras.SubcommandApp:
    """Returns the commands by name."""
    app = tyro.extras.SubcommandApp()
    app.command(name="list")(list_datasets)
    app.command(wordnet)
    return app


def list_datasets(*, data_dir: Annotated[Path | None, arg(metavar="DIR")] = None) -> None:
    """Lists datasets: which are here, how to get the others, and their terms.

    Args:
        data_dir: folder of tensorflow-datasets; its own default otherwise.
    """
    from lmjax.data import catalogue

    print(catalogue.listing(data_dir))


def wordnet(*, out: Annotated[Path, arg(metavar="FILE")] = Path("wordnet.npy")) -> None:
    """Writes the similarity of ImageNet's classes by WordNet (lmjax study removal --similarity).

    Takes a few minutes; needs NLTK and its WordNet corpus.

    Args:
        out: the .npy file, a 1000 x 1000 matrix of Wu-Palmer similarity.
    """
    from lmjax.data.imagenet.wordnet import write_similarity

    write_similarity(out)
    print(f"wrote {out}")
