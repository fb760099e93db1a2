"""Files laid out as ImageNet and the datasets of its masks have them; the pictures are made up."""

import csv

import numpy as np
from PIL import Image
from scipy.io import savemat

TENCH, GOLDFISH, RETRIEVER = "n01440764", "n01443537", "n02099601"
NUMBERS = {TENCH: 0, GOLDFISH: 1, RETRIEVER: 207}


def picture(seed, size=(24, 30)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def write(path, pixels):
    """A picture that keeps its pixels, PNG, whatever its suffix: one of ImageNet's own is such."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "png")


def write_jpeg(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "jpeg", quality=100, **options)


def box(size=(24, 30), value=1, background=0):
    mask = np.full(size, background, np.uint8)
    mask[4:10, 6:20] = value
    return mask


def write_table(path, columns, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def validation(root):
    """Three images as they come. Their true classes are 65, 970 and 230."""
    for i in (1, 2, 3):
        write(root / "ILSVRC2012_img_val" / f"ILSVRC2012_val_{i:08}.JPEG", picture(i))


def ground_truth(root, numbers=("3", "1", "2")):
    """A list whose numbers are the development kit's, and what they mean."""
    (root / "ILSVRC2012_validation_ground_truth.txt").write_text("\n".join(numbers) + "\n")
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")]
    words = [(1, RETRIEVER, "golden retriever"), (2, GOLDFISH, "goldfish"), (3, TENCH, "tench")]
    savemat(root / "meta.mat", {"synsets": np.array(words, kinds)})


def pixel_imagenet(root):
    """Two instances on one image, one on another; a third image has no mask."""
    for i, name in enumerate(
        (f"{TENCH}/{TENCH}_1", f"{TENCH}/{TENCH}_2", f"{GOLDFISH}/{GOLDFISH}_3")
    ):
        write(root / "ILSVRC2012/train" / f"{name}.JPEG", picture(i))
    two = box()
    two[12:, 25:] = 2
    write(root / "pixel-imagenet-v2" / f"{TENCH}/{TENCH}_1.png", two)
    write(root / "pixel-imagenet-v2" / f"{GOLDFISH}/{GOLDFISH}_3.png", box(value=255))


def imagenet_s(root, classes="50"):
    """An image in each split. Numbers above 255 take the green channel."""
    for split, name in (("validation", "ILSVRC2012_val_00000293"), ("train-semi", f"{TENCH}_18")):
        folder = root / f"ImageNetS{classes}"
        write(folder / split / TENCH / f"{name}.JPEG", picture(7))
        numbers = box().astype(np.int64) * 512
        numbers[:2], numbers[-2:], numbers[:, -1] = 1000, 3, 256
        coloured = np.stack([numbers % 256, numbers // 256, np.zeros_like(numbers)], axis=-1)
        write(folder / f"{split}-segmentation" / TENCH / f"{name}.png", coloured.astype(np.uint8))


def imagenet_s_mask():
    """Where a class is: neither 0 nor 1000."""
    mask = box().astype(bool)
    mask[:2] = False
    mask[-2:] = True
    mask[:, -1] = True
    return mask


def part_imagenet(root):
    """An image in each split, of a class whose number is 0 there."""
    for i, split in enumerate(("train", "val", "test")):
        folder = root / "PartImageNet"
        write(folder / "images" / split / f"{RETRIEVER}_{i}.JPEG", picture(i))
        mask = box(value=0, background=158)
        write(folder / "annotations" / f"{split}_whole" / f"{RETRIEVER}_{i}.png", mask)


ANSWERS = {
    # Five answers each: tench has two core features and a spurious one, goldfish a spurious one.
    (0, 59): ("main_object",) * 5,
    (0, 686): ("main_object", "main_object", "main_object", "background", "separate_object"),
    (0, 981): ("background", "main_object", "separate_object", "main_object", "background"),
    (1, 316): ("separate_object",) * 3 + ("main_object",) * 2,
}
SHOWN = {
    # Images by class and feature.
    (0, 59): ("a", "b"),
    (0, 686): ("b",),
    (0, 981): ("b", "c"),
    (1, 316): ("d",),
}
SYNSETS = (TENCH, GOLDFISH)


def soft_mask(label, feature, name):
    """Smooth, as maps of features are, so that JPEG keeps it; uint8 [224, 224]."""
    x, y = np.meshgrid(np.arange(224), np.arange(224))
    centre = {59: (60, 60), 686: (160, 90), 981: (110, 180), 316: (30, 200)}[feature]
    far = np.hypot(x - centre[0], y - centre[1]) + 5 * (name == "b")
    return np.clip(255 - 3 * far, 0, 255).astype(np.uint8)


def salient_imagenet(root, size=(300, 400)):
    folder = root / "salient_imagenet_dataset"
    for (label, feature), names in SHOWN.items():
        for name in names:
            name = f"{SYNSETS[label]}_{name}"
            path = folder / SYNSETS[label] / f"feature_{feature}" / f"{name}.JPEG"
            write_jpeg(path, soft_mask(label, feature, name[-1]))
            write(root / "ILSVRC2012/train" / SYNSETS[label] / f"{name}.JPEG", picture(5, size))
    for label, synset in enumerate(SYNSETS):
        features = [feature for number, feature in SHOWN if number == label]
        length = max(len(SHOWN[label, feature]) for feature in features)
        columns = [
            [f"{synset}_{n}" for n in SHOWN[label, feature]] + [""] * length for feature in features
        ]
        rows = list(zip(*columns))[:length]
        write_table(folder / synset / "image_names_map.csv", features, rows)
    write_table(
        root / "mturk_results/discover_spurious_features.csv",
        ("WorkerId", "Input.wordnet_id", "Input.class_index", "Input.feature_index", "Answer.main"),
        [
            (worker, SYNSETS[label], label, feature, answer)
            for (label, feature), answers in ANSWERS.items()
            for worker, answer in enumerate(answers)
        ],
    )
