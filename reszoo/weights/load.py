"""`weights=` of a model: find the file that is meant, load it, and record what it was."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reszoo.errors import ReszooError
from reszoo.images.preprocessing import Preprocessing
from reszoo.reporting.reporter import Reporter
from reszoo.weights.checkpoint import read_checkpoint
from reszoo.weights.convert import HEAD, Conversion, assign
from reszoo.weights.download import fetch
from reszoo.weights.files import TORCH, LocalFile, RemoteFile, is_file_name, local_file
from reszoo.weights.published import Weights, find_weights
from reszoo.zoo.spec import Spec

if TYPE_CHECKING:
    import keras

# What other libraries call their usual weights.
DEFAULTS = ("default", "true", "pretrained", "auto")


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """What a model with published weights carries, as `model.pretrained`.

    Attributes:
        weights: The published weights.
        transforms: The preprocessing for this model's input.
        class_names: Of its logits; empty if its classifier is new or left out.
        class_ids: As `class_names`.
    """

    weights: Weights
    transforms: Preprocessing
    class_names: tuple[str, ...]
    class_ids: tuple[str, ...]


def resolve(spec: Spec, weights: str | os.PathLike[str]) -> Weights | LocalFile:
    """Return the published weights, or the file, that `weights` means.

    Raises:
        ReszooError: If it is neither.
    """
    if not isinstance(weights, str | os.PathLike):
        name = getattr(weights, "name", None)
        example = "Example: weights='imagenet'" if weights is True else ""
        if type(weights).__name__.endswith("_Weights") and isinstance(name, str):
            example = f"Example: weights='torchvision/{name}'"  # torchvision's enumerations
        raise ReszooError(
            f"weights: {weights!r} is invalid; expected a tag such as 'imagenet', or a file. "
            f"{example}".rstrip()
        )
    if is_file_name(weights):
        return local_file(weights)
    if str(weights).lower() in DEFAULTS:
        example = "cifar10" if spec.stem == "cifar" else "imagenet"
        raise ReszooError(
            f"weights: {weights!r} is invalid; expected a tag or a file. "
            f"Example: weights={example!r}"
        )
    return find_weights(spec, str(weights))


def load(
    model: keras.Model, spec: Spec, source: Weights | LocalFile, *, other_classes: bool = True
) -> Conversion:
    """Load published weights, or those of a file, into a model.

    What was chosen or ignored in a file, and what of the model is new or adapted, is reported on
    standard error. With published weights, `model.pretrained` is set.

    Args:
        model: The model.
        spec: Its spec.
        source: The weights.
        other_classes: As in `assign`.

    Raises:
        ReszooError: If something does not fit. The model is unchanged.
    """
    if isinstance(source, LocalFile):
        file, layout = source, None
    else:
        file, layout = LocalFile(path=fetch(find_readable(source.files))), source.layout
    checkpoint = read_checkpoint(file)
    failure = f"{file.path} does not hold the weights of {model.name}"
    try:
        found = assign(model, spec, checkpoint.arrays, layout=layout, other_classes=other_classes)
    except ReszooError as error:
        raise ReszooError(f"{failure}: {error}") from error
    if not found.complete:
        raise ReszooError(f"{failure}: {found.reason}{_suggest_head(found)}")
    if isinstance(source, Weights):
        whole = f"{HEAD}/kernel" in found.matched
        model.pretrained = Pretrained(
            weights=source,
            transforms=source.transforms.fit(model.input_shape[1:]),
            class_names=source.class_names if whole else (),
            class_ids=source.class_ids if whole else (),
        )
    lines = list(checkpoint.lines) if isinstance(source, LocalFile) else []
    reporter = Reporter(stderr=True)
    for line in (*lines, *_describe(model, found)):
        reporter.line(line)
    return found


def _describe(model: keras.Model, found: Conversion) -> list[str]:
    """Return lines about what of a model does not come from the weights."""
    lines = []
    if found.new:
        classes = model.output_shape[-1]
        lines.append(f"{model.name}: new classifier for {classes} classes, the rest loaded")
    if found.adapted:
        channels = model.input_shape[-1]
        how = "summed to 1" if channels == 1 else f"repeated to {channels}"
        lines.append(f"{model.name}: the first convolution's input channels were {how}")
    return lines


def _suggest_head(found: Conversion) -> str:
    """Return what to type if only the classifier does not fit."""
    if found.lacks_head:
        return ". The file holds no classifier: give top=False for none, or classes=N for a new one"
    wrong = [name for name, *_ in found.wrong_shape]
    if wrong == [f"{HEAD}/kernel", f"{HEAD}/bias"] and not found.missing:
        classes = found.wrong_shape[0][2][-1]
        return (
            f". Give classes={classes} for the file's classifier, or another classes=N for a new "
            "one"
        )
    return ""


def renew_head(model: keras.Model) -> None:
    """Re-initialize the classifier, for other classes of the same number."""
    head = model.get_layer(HEAD)
    head.kernel.assign(head.kernel_initializer(head.kernel.shape))
    head.bias.assign(head.bias_initializer(head.bias.shape))
    model.pretrained = dataclasses.replace(model.pretrained, class_names=(), class_ids=())


def find_readable(files: Sequence[RemoteFile]) -> list[RemoteFile]:
    """Return the files that can be read here: those in PyTorch's format need PyTorch.

    Raises:
        ReszooError: If none can be read.
    """
    has_torch = importlib.util.find_spec("torch") is not None
    found = [file for file in files if has_torch or not file.url.endswith(TORCH)]
    if not found:
        raise ReszooError(
            f"{files[0].url} is in PyTorch's own format; to read it: pip install 'reszoo[torch]'"
        )
    return found
