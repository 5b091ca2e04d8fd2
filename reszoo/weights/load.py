"""`weights=` of a net: which file is meant, fetched and put into it, and the record that it leaves."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reszoo.errors import ReszooError
from reszoo.images.preprocessing import Preprocessing
from reszoo.weights.convert import HEAD, Conversion, assign
from reszoo.weights.download import fetch
from reszoo.weights.formats import TORCH, LocalFile, RemoteFile, is_file_name, local_file
from reszoo.weights.published import Weights, find_weights
from reszoo.weights.read import read_checkpoint
from reszoo.zoo.spec import Spec

# Other libraries' words for "the usual weights".
DEFAULTS = ("default", "true", "pretrained", "auto")


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """What a net with published weights carries, as `model.pretrained`.

    weights: the row. transforms: how images are prepared for this model's input. class_names, class_ids: of its logits,
    empty when its classifier is new or left out.
    """

    weights: Weights
    transforms: Preprocessing
    class_names: tuple[str, ...]
    class_ids: tuple[str, ...]


def resolve(net: Spec, weights: str | os.PathLike[str]) -> Weights | LocalFile:
    """Return the published weights, or the file, that `weights` means. Raises ReszooError where it is neither."""
    if not isinstance(weights, str | os.PathLike):
        raise ReszooError(
            f"weights is {weights!r}, but must be a tag such as 'imagenet', or a file{_hint(weights)}"
        )
    if is_file_name(weights):
        return local_file(weights)
    if str(weights).lower() in DEFAULTS:
        raise ReszooError(
            f"weights: {weights!r} is invalid; expected a tag or a file. Example: weights={_example(net)!r}"
        )
    return find_weights(net, str(weights))


def _hint(weights: object) -> str:
    """Return what is meant by torchvision's enumerations and timm's `True`."""
    name = getattr(weights, "name", None)
    if type(weights).__name__.endswith("_Weights") and isinstance(name, str):
        return f". Example: weights='torchvision/{name}'"
    return ". Example: weights='imagenet'" if weights is True else ""


def _example(net: Spec) -> str:
    return "cifar10" if net.stem == "cifar" else "imagenet"


def load(
    model: Any, net: Spec, source: Weights | LocalFile, *, other_classes: bool = True
) -> Conversion:
    """Put published weights, or those of a file, into a model of `net`.

    What was chosen or ignored in a file, and what of the model is new or adapted, is printed to standard error.

    other_classes: as for `assign`. With published weights the model's `pretrained` is set. Raises ReszooError, the
    model as it was, for what does not fit.
    """
    if isinstance(source, LocalFile):
        file, layout = source, None
    else:
        file, layout = LocalFile(path=fetch(readable(source.files))), source.layout
    checkpoint = read_checkpoint(file)
    path = file.path
    try:
        found = assign(model, net, checkpoint.arrays, layout=layout, other_classes=other_classes)
    except ReszooError as error:
        raise ReszooError(f"{path} does not hold the weights of {model.name}: {error}") from error
    if not found.complete:
        raise ReszooError(
            f"{path} does not hold the weights of {model.name}: {found.reason}{_remedy(found)}"
        )
    if isinstance(source, LocalFile):
        for line in checkpoint.lines:
            print(line, file=sys.stderr)
    else:
        whole = f"{HEAD}/kernel" in found.matched
        model.pretrained = Pretrained(
            weights=source,
            transforms=source.transforms.fit(model.input_shape[1:]),
            class_names=source.class_names if whole else (),
            class_ids=source.class_ids if whole else (),
        )
    tell(model, found)
    return found


def _remedy(found: Conversion) -> str:
    """Return what to type where only the classifier does not fit."""
    if found.lacks_head:
        return ". The file holds no classifier: give top=False for none, or classes=N for a new one"
    if [name for name, *_ in found.wrong_shape] == [
        f"{HEAD}/kernel",
        f"{HEAD}/bias",
    ] and not found.missing:
        return f". Give classes={found.wrong_shape[0][2][-1]} for the file's classifier, or another classes=N for a new one"
    return ""


def tell(model: Any, found: Conversion) -> None:
    """Say on standard error what of a net does not come from the weights loaded."""
    if found.new:
        print(
            f"{model.name}: new classifier for {model.output_shape[-1]} classes, the rest loaded",
            file=sys.stderr,
        )
    if found.adapted:
        how = (
            "summed to 1" if model.input_shape[-1] == 1 else f"repeated to {model.input_shape[-1]}"
        )
        print(f"{model.name}: the first convolution's input channels were {how}", file=sys.stderr)


def renew_head(model: Any) -> None:
    """Start the classifier anew: for other classes than the weights' that happen to be as many."""
    head = model.get_layer(HEAD)
    head.kernel.assign(head.kernel_initializer(head.kernel.shape))
    head.bias.assign(head.bias_initializer(head.bias.shape))
    model.pretrained = dataclasses.replace(model.pretrained, class_names=(), class_ids=())


def readable(files: Sequence[RemoteFile]) -> list[RemoteFile]:
    """Return the files that can be read here: those in PyTorch's own format need PyTorch.

    Raises:
        ReszooError: there are only files in PyTorch's own format and no PyTorch.
    """
    found = [file for file in files if not file.url.endswith(TORCH) or _has_torch()]
    if not found:
        raise ReszooError(
            f"{files[0].url} is in PyTorch's own format; to read it: pip install 'reszoo[torch]'"
        )
    return found


def _has_torch() -> bool:
    import importlib.util

    return importlib.util.find_spec("torch") is not None
