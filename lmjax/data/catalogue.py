"""Datasets that studies are made for, with their terms: `lmjax data list`."""

import json
import os
import re
from pathlib import Path
from typing import NamedTuple

from lmjax.data.cutouts.stamps import FOLDER, INSTALL


class Dataset(NamedTuple):
    """A dataset, its terms, and how to get it.

    Attributes:
      source: the source that `lmjax study --source` takes for it.
      about: its content.
      licence: its terms, in short.
      citation: the work to cite.
      name: its name in tensorflow-datasets, if that prepares it.
      get: how to get it otherwise; None where it is generated.
      folder: where it is once it is installed, if that is always the same place.
    """

    source: str
    about: str
    licence: str
    citation: str
    name: str | None = None
    get: str | None = None
    folder: str | None = None


DATASETS = (
    Dataset(
        "digit-scenes",
        "digits on photographs, 10 classes, exact object masks; made on demand",
        "scans: CC BY 4.0 (UCI optical digits); photographs: as scikit-image says, two CC BY 2.0",
        "Alpaydin & Kaynak 1998, doi 10.24432/C50P49",
    ),
    Dataset(
        "cutout-scenes",
        "cut-outs of animals and things on photographs, 121 classes of ImageNet, exact object "
        "masks; made on demand",
        "stamps: GPL 2, as their package says; photographs: as scikit-image says, two CC BY 2.0; "
        "wallpapers: CC BY, CC BY-SA, CC0 and GPL 2+, as their packages say",
        "Tux Paint stamps, tuxpaint.org/stamps",
        get=f"{INSTALL}; more backgrounds: apt-get install lomiri-wallpapers-16.04 "
        "mate-backgrounds",
        folder=FOLDER,
    ),
    Dataset(
        "imagenet:ILSVRC2012_img_val",
        "ImageNet's 50,000 validation images, 1000 classes; in class folders or in one folder",
        "non-commercial research and education (image-net.org/download)",
        "Russakovsky et al. 2015, arXiv 1409.0575",
        get="https://image-net.org/download, with an account: ILSVRC2012_img_val.tar",
    ),
    Dataset(
        "salient-imagenet:salient_imagenet_dataset,images=ILSVRC2012/train",
        "training images of ImageNet, 65 of each of a class's five main features; soft masks of "
        "core and of spurious features, as a network finds them and people judge them",
        "university, non-profit and research institutions, non-commercial (that of the authors' "
        "code); images: as ImageNet",
        "Singla & Feizi 2022, arXiv 2110.04301",
        get="curl -L https://umd.app.box.com/shared/static/eyji8leh2lemhbxovgny9ywc9is53ibr -o "
        "salient_imagenet_dataset.zip; mturk_results/discover_spurious_features.csv of "
        "https://github.com/singlasahil14/salient_imagenet; ILSVRC2012_img_train.tar of ImageNet",
    ),
    Dataset(
        "pixel-imagenet:pixel-imagenet-v2,images=ILSVRC2012/train",
        "485,000 training images of ImageNet, 946 classes; objects segmented from their boxes",
        "masks: none stated; images: as ImageNet",
        "Zhang et al. 2020, Interactive Object Segmentation With Inside-Outside Guidance, CVPR",
        get="https://github.com/shiyinzhang/Pixel-ImageNet has the link; ILSVRC2012_img_train.tar "
        "of ImageNet",
    ),
    Dataset(
        "imagenet-s:ImageNetS919",
        "12,419 validation images of ImageNet, 919 classes (or 300, or 50), segmented by people; "
        "and ten training images of each class",
        "masks: none stated; images: as ImageNet",
        "Gao et al. 2022, arXiv 2106.03149",
        get="git clone https://github.com/LUSSeg/ImageNet-S && cd ImageNet-S/datapreparation && "
        "bash data_preparation.sh IMAGENET FOLDER 919 false",
    ),
    Dataset(
        "part-imagenet:PartImageNet",
        "24,000 training images of ImageNet, 158 classes of animals, vehicles and bottles, whole "
        "objects segmented by people",
        "masks: none stated; images: as ImageNet",
        "He et al. 2022, arXiv 2112.00933",
        get="https://huggingface.co/datasets/turkeyju/PartImageNet: PartImageNet_Seg.zip (3.1 GB)",
    ),
    Dataset(
        "tfds:imagenette/full-size-v2[validation]",
        "ten classes of ImageNet, with its labels",
        "as ImageNet",
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
        "200 kinds of birds, masks by votes of people; some images are ImageNet's",
        "none stated; photographs from Flickr",
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


PREPARED_HERE = frozenset(
    {"imagenet_validation", "salient_imagenet", "pixel_imagenet", "imagenet_s", "part_imagenet"}
)
"""Names of the datasets of tensorflow-datasets that `lmjax.data.prepare_imagenet` writes."""


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
    """Returns the folder where tensorflow-datasets keeps datasets."""
    return os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"


def build_command(name: str, data_dir: str | os.PathLike | None = None) -> str:
    """Returns the command that prepares a dataset; only `tfds` itself needs TensorFlow."""
    where = os.path.expanduser(default_data_dir() if data_dir is None else data_dir)
    family = re.split("[/:]", name)[0]
    if family == "digit_scenes":
        return f"python -c \"import lmjax; lmjax.data.prepare_digit_scenes('{where}')\""
    if family == "cutout_scenes":
        return f"lmjax data cutout-scenes --data-dir {where}"
    if family in PREPARED_HERE:
        call = f"prepare_imagenet('{name.split(':')[0]}', 'DOWNLOADS', data_dir='{where}')"
        return f'python -c "import lmjax; lmjax.data.{call}"'
    command = f'pip install "lmjax[prepare]" && tfds build {name} --file_format=array_record'
    return command if data_dir is None else f"{command} --data_dir={data_dir}"


def prepared(data_dir: str | os.PathLike | None = None) -> list[Prepared]:
    """Finds the datasets in a folder of tensorflow-datasets; none without such a folder."""
    folder = Path(default_data_dir() if data_dir is None else data_dir).expanduser()
    found = []
    paths = (*folder.glob("*/*/features.json"), *folder.glob("*/*/*/features.json"))
    for path in sorted(paths):
        try:
            about = json.loads((path.parent / "dataset_info.json").read_text("utf-8"))
            splits = tuple(str(split["name"]) for split in about.get("splits", ()))
            form = str(about.get("fileFormat", "tfrecord"))
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            continue  # damaged, or not written completely
        found.append(Prepared(path.parent.relative_to(folder).as_posix(), splits, form))
    return found


def listing(data_dir: str | os.PathLike | None = None) -> str:
    """Returns the text of `lmjax data list`: the datasets here, and how to get the others."""
    here = prepared(data_dir)
    lines = []
    for dataset in DATASETS:
        made = dataset.name is None and dataset.get is None
        made = made or (dataset.folder is not None and os.path.isdir(dataset.folder))
        ready = made or any(each.name.startswith(f"{dataset.name}/") for each in here)
        lines += [f"{dataset.source}{'  (here)' if ready else ''}", f"    {dataset.about}"]
        if not ready:
            lines.append(f"    get: {dataset.get or build_command(dataset.name or '', data_dir)}")
        lines.append(f"    terms: {dataset.licence}; cite {dataset.citation}")
    where = default_data_dir() if data_dir is None else data_dir
    lines.append(f"prepared in {where}:" if here else f"nothing is prepared in {where}")
    for each in here:
        name, _, version = each.name.rpartition("/")
        splits = ", ".join(each.splits)
        lines.append(f"    tfds:{name}:{version}[SPLIT] with {splits} ({each.file_format})")
    return "\n".join(lines)
