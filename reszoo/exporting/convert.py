"""Conversion of weight files between reszoo and other frameworks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import keras
import numpy as np

from reszoo.errors import ReszooError
from reszoo.files import atomic_path, check_output
from reszoo.models.build import build
from reszoo.models.settings import fixed_settings
from reszoo.reporting.reporter import Reporter
from reszoo.training.run import Run
from reszoo.types import JsonObject
from reszoo.weights.checkpoint import read_checkpoint
from reszoo.weights.convert import ENTRY, HEAD, Conversion, assign, check_layout, export_arrays
from reszoo.weights.detection import detect_layout
from reszoo.weights.files import local_file
from reszoo.weights.layouts import LAYOUTS, get_layout
from reszoo.zoo.catalog import spec as find_spec
from reszoo.zoo.spec import Spec

OWN_SUFFIX, OTHER_SUFFIX = ".weights.h5", ".safetensors"
TARGETS = tuple(name for name, layout in LAYOUTS.items() if layout.torch)


@fixed_settings()
def convert(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    model: str | Spec | None = None,
    layout: str | None = None,
    to: str | None = None,
    **fields: Any,
) -> Conversion:
    """Convert a file of weights to `out`, written whole or not at all.

    Args:
        source: A checkpoint (safetensors, PyTorch, Keras' `.h5`, `.weights.h5` or `.keras`), with
            `#ENTRY` for one of several models in it, or the folder of a finished run.
        out: A new file.
        model: The model that a file holds, by name or spec; its classes and channels are the
            file's.
        layout: Whose names the file's tensors have; detected by default.
        to: None writes a `.weights.h5` that `build(weights=...)` and Keras load. "torchvision",
            "timm" or "akamaster" writes a `.safetensors` for the `load_state_dict` of their model.
        **fields: Changes to the model's spec.

    Returns:
        What became of each tensor. If tensors are missing or left over, nothing is written.

    Raises:
        ReszooError: A file cannot be read, `out` is occupied, or the model does not fit the file or
            `to`.
    """
    suffix = OWN_SUFFIX if to is None else OTHER_SUFFIX
    if not str(out).endswith(suffix):
        raise ReszooError(f"{out} is invalid; expected a name that ends in {suffix}")
    if Path(out).exists():
        raise ReszooError(f"{out} exists; remove it, or give another name")
    check_output(out, "weights file")
    if to is not None and to not in TARGETS:
        raise ReszooError(f"to: {to} is invalid; expected one of {', '.join(TARGETS)}")
    net, made, found = _load(source, model, layout, fields)
    if not found.complete:
        return found
    with atomic_path(out) as part:
        if to is None:
            whole = part.with_name(part.name + OWN_SUFFIX)  # Keras requires the suffix
            try:
                made.save_weights(whole)
                os.replace(whole, part)
            finally:
                whole.unlink(missing_ok=True)
        else:
            from safetensors.numpy import save_file

            save_file(export_arrays(made, net, to), part, metadata={"format": "pt"})
    return found


def _load(
    source: str | os.PathLike[str],
    model: str | Spec | None,
    layout: str | None,
    fields: JsonObject,
) -> tuple[Spec, keras.Model, Conversion]:
    """Return the spec, a model with the source's weights, and what became of each tensor."""
    if (Path(source) / "recipe.toml").is_file():
        run = Run.open(source)
        if model is not None or fields or layout:
            raise ReszooError(
                f"{source} is a run, whose model is known; omit --model, its fields and --from"
            )
        return run.recipe.model.spec, run.load_model(), Conversion(layout="reszoo")
    checkpoint = read_checkpoint(local_file(source))
    try:
        scheme = get_layout(layout or detect_layout(checkpoint.arrays))
        if model is None:
            raise ReszooError(
                "model: expected a model name, which `reszoo list` shows. Example: --model resnet50"
            )
        net = find_spec(model, **fields)
        check_layout(net, scheme)
        arrays = {scheme.update_name(key): array for key, array in checkpoint.arrays.items()}
        head, entry = (scheme.find_name(name, net) for name in (f"{HEAD}/kernel", ENTRY))
        if missing := next((key for key in (entry, head) if key not in arrays), None):
            without = "reszoo.build(NAME, weights=FILE, top=False)"
            hint = f". To load it without a classifier: {without}" if missing == head else ""
            raise ReszooError(
                f"expected the tensor '{missing}' of {scheme.name}'s {net.name}{hint}"
            )
        shapes = [np.shape(scheme.to_ours(arrays[key], "")) for key in (entry, head)]
        if len(shapes[0]) != 4 or len(shapes[1]) != 2:
            raise ReszooError(
                f"'{entry}' and '{head}' have shapes {shapes}; expected a convolution and a "
                "classifier"
            )
        made = build(net, input_shape=(None, None, shapes[0][2]), classes=shapes[1][1])
        found = assign(made, net, arrays, layout=scheme.name)
    except ReszooError as error:
        raise ReszooError(f"{source}: {error}") from None
    reporter = Reporter(stderr=True)
    for line in checkpoint.lines:
        reporter.line(line)
    return net, made, found
