"""Datasets that studies are made for, their terms, and which are here: `lmjax data list`."""

import json
import os
from pathlib import Path
from typing import NamedTuple


class Dataset(NamedTuple):
    """A dataset.

    Attributes:
      source: what `lmjax study --source` takes for it.
      about: what it holds.
      licence: its terms, in short.
      citation: whom to cite.
      name: of tensorflow-datasets, if that prepares it.
      get: how else to get it; nothing where it is made when it is asked for.
    """

    source: str
    about: str
    licence: str
    citation: str
    name: str | None = None
    get: str | None = None


DATASETS = (
    Dataset(
        "digit-scenes",
        "digits on photographs, 10 classes, exact object masks; made when asked for",
        "scans: CC BY 4.0 (UCI optical digits); photographs: as scikit-image and scikit-learn say",
        "Alpaydin & Kaynak 1998, doi 10.24432/C50P49",
    ),
    Dataset(
        "folder:ILSVRC2012_img_val",
        "ImageNet's 50,000 validation images, 1000 classes; in class folders or as they come",
        "non-commercial research and education (image-net.org)",
        "Russakovsky et al. 2015, arXiv 1409.0575",
        get="image-net.org, with an account: ILSVRC2012_img_val.tar",
    ),
    Dataset(
        "tfds:imagenette/full-size-v2[validation]",
        "ten classes of ImageNet, with its labels",
        "Apache 2.0 (images: as ImageNet)",
        "Howard 2019, github.com/fastai/imagenette",
        name="imagenette/full-size-v2",
    ),
    Dataset(
        "tfds:oxford_iiit_pet[test]",
        "cats and dogs, 37 breeds, masks from trimaps",
        "CC BY-SA 4.0",
        "Parkhi et al. 2012, Cats and Dogs, CVPR",
        name="oxford_iiit_pet",
    ),
    Dataset(
        "tfds:caltech_birds2011[test]",
        "200 kinds of birds, masks by votes of people",
        "non-commercial research and education",
        "Wah et al. 2011, The Caltech-UCSD Birds-200-2011 Dataset, CNS-TR-2011-001",
        name="caltech_birds2011",
    ),
    Dataset(
        "tfds:coco/2017_panoptic[validation],category=dog",
        "images with an object of one of 133 categories, and its masks",
        "annotations: CC BY 4.0; images: Flickr's terms",
        "Lin et al. 2014, arXiv 1405.0312; Kirillov et al. 2019, arXiv 1801.00868",
        name="coco/2017_panoptic",
    ),
)


class Prepared(NamedTuple):
    """A dataset that tensorflow-datasets has prepared.

    Attributes:
      name: `NAME/CONFIG/VERSION`.
      splits: their names.
      file_format: of its records.
    """

    name: str
    splits: tuple[str, ...]
    file_format: str


def default_data_dir() -> str:
    """Where tensorflow-datasets keeps datasets."""
    return os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"


def build_command(name: str, data_dir: str | os.PathLike | None = None) -> str:
    """The command that prepares a dataset of tensorflow-datasets; only it needs TensorFlow."""
    if name.split("/")[0] == "digit_scenes":
        where = os.path.expanduser(default_data_dir() if data_dir is None else data_dir)
        return f"python -c \"import lmjax; lmjax.data.prepare_digit_scenes('{where}')\""
    command = f'pip install "lmjax[prepare]" && tfds build {name} --file_format=array_record'
    return command if data_dir is None else f"{command} --data_dir={data_dir}"


def prepared(data_dir: str | os.PathLike | None = None) -> list[Prepared]:
    """Datasets in a folder of tensorflow-datasets; none where there is no such folder."""
    folder = Path(default_data_dir() if data_dir is None else data_dir).expanduser()
    found = []
    paths = (*folder.glob("*/*/features.json"), *folder.glob("*/*/*/features.json"))
    for path in sorted(paths):
        try:
            about = json.loads((path.parent / "dataset_info.json").read_text())
        except (OSError, ValueError):
            continue  # not written to the end
        splits = tuple(split["name"] for split in about.get("splits", ()))
        name = path.parent.relative_to(folder).as_posix()
        found.append(Prepared(name, splits, about.get("fileFormat", "tfrecord")))
    return found


def listing(data_dir: str | os.PathLike | None = None) -> str:
    """What is here, and how to get the rest, in lines."""
    here = prepared(data_dir)
    lines = []
    for dataset in DATASETS:
        made = dataset.name is None and dataset.get is None
        ready = made or any(each.name.startswith(f"{dataset.name}/") for each in here)
        lines += [f"{dataset.source}{'  (here)' if ready else ''}", f"    {dataset.about}"]
        if not ready:
            lines.append(f"    get: {dataset.get or build_command(dataset.name, data_dir)}")
        lines.append(f"    terms: {dataset.licence}; cite {dataset.citation}")
    where = default_data_dir() if data_dir is None else data_dir
    lines.append(f"prepared in {where}:" if here else f"nothing is prepared in {where}")
    for each in here:
        name, _, version = each.name.rpartition("/")
        splits = ", ".join(each.splits)
        lines.append(f"    tfds:{name}:{version}[SPLIT] with {splits} ({each.file_format})")
    return "\n".join(lines)
