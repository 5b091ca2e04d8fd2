"""Weight files between frameworks: a checkpoint of any layout to Keras' file of a net, and a net trained here to another's."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np

from reszoo.errors import ReszooError
from reszoo.files import atomic_path, check_output
from reszoo.models.build import build
from reszoo.models.settings import fixed_settings
from reszoo.training.run import Run
from reszoo.weights.convert import ENTRY, HEAD, Conversion, assign, export_arrays, refuse_misfit
from reszoo.weights.formats import local_file
from reszoo.weights.layouts import LAYOUTS, detect, get_layout
from reszoo.weights.read import read_checkpoint
from reszoo.zoo.catalog import spec as get_spec
from reszoo.zoo.spec import Spec

OURS, THEIRS = ".weights.h5", ".safetensors"
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
    """Convert a file of weights to `out`, written whole or not at all, and return what became of each tensor.

    source: a checkpoint (safetensors, PyTorch's, Keras' `.h5`, `.weights.h5` or `.keras`), as `FILE#ENTRY` where it holds several
    models, or a finished run's folder, whose net is known.
    model, fields: the net that a file holds, by name or spec; its classes and input channels are the file's.
    layout: whose names the file's tensors have, found out when left out.
    to: None writes `out`, a `.weights.h5` that `build(weights=...)` and Keras load; "torchvision", "timm" or "akamaster" writes a
    `.safetensors` with the names and axes that their net's `load_state_dict` takes.

    Raises ReszooError for files that cannot be read, an occupied `out`, and a net that the file or the other framework does
    not fit; where tensors are missing or left over, it is returned as it is and nothing is written.
    """
    suffix = OURS if to is None else THEIRS
    if not str(out).endswith(suffix):
        raise ReszooError(f"{out}: what is written is a {suffix} file; give it a name that ends so")
    if Path(out).exists():
        raise ReszooError(f"{out} exists; remove it, or give another name")
    check_output(out, "weights file")
    if to is not None and to not in TARGETS:
        raise ReszooError(f"no layout '{to}' to convert to; there are {', '.join(TARGETS)}")
    net, made, found = _load(source, model, layout, fields)
    if not found.complete:
        return found
    if to is None:
        with atomic_path(out) as part:
            # Keras goes by the end of the name, which the temporary one has not.
            whole = part.with_name(part.name + OURS)
            try:
                made.save_weights(whole)
                os.replace(whole, part)
            finally:
                whole.unlink(missing_ok=True)
    else:
        from safetensors.numpy import save_file

        arrays = export_arrays(made, net, to)
        with atomic_path(out) as part:
            save_file(arrays, part, metadata={"format": "pt"})
    return found


def _load(
    source: str | os.PathLike[str],
    model: str | Spec | None,
    layout: str | None,
    fields: dict[str, Any],
) -> tuple[Spec, keras.Model, Conversion]:
    """Return the net, a model of it with the source's weights, and how they got there."""
    if (Path(source) / "recipe.toml").is_file():
        run = Run.open(source)
        if model is not None or fields or layout:
            raise ReszooError(
                f"{source} is a run, whose net is known; drop --model, its fields and --from"
            )
        return run.recipe.model.spec, run.load_model(), Conversion(layout="reszoo")
    file = local_file(source)
    checkpoint = read_checkpoint(file)
    arrays = checkpoint.arrays
    try:
        scheme = get_layout(layout or detect(arrays))
        if model is None:
            raise ReszooError(
                "which net is it? Give --model, such as --model resnet50; `reszoo list` shows them"
            )
        net = get_spec(model, **fields)
        refuse_misfit(net, scheme)
        arrays = {scheme.current(key): array for key, array in arrays.items()}
        head, entry = (scheme.key(name, net) for name in (f"{HEAD}/kernel", ENTRY))
        if missing := next((key for key in (entry, head) if key not in arrays), None):
            raise ReszooError(
                f"as {scheme.name}'s {net.name} it should hold '{missing}', and does not{_without_head(missing == head)}"
            )
        shapes = [np.shape(scheme.to_ours(arrays[key])) for key in (entry, head)]
        if len(shapes[0]) != 4 or len(shapes[1]) != 2:
            raise ReszooError(
                f"'{entry}' and '{head}' are no kernels of a convolution and a classifier: {shapes}"
            )
        made = build(net, input_shape=(None, None, shapes[0][2]), classes=shapes[1][1])
        found = assign(made, net, arrays, layout=scheme.name)
    except ReszooError as error:
        raise ReszooError(f"{source}: {error}") from None
    for line in checkpoint.lines:
        print(line, file=sys.stderr)
    return net, made, found


def _without_head(lacks: bool) -> str:
    return (
        ". To load it without a classifier: reszoo.build(NAME, weights=FILE, top=False)"
        if lacks
        else ""
    )
