"""The formats and precisions of an export. Standard library only."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reszoo.errors import ReszooError, did_you_mean

if TYPE_CHECKING:
    import keras

    from reszoo.images.preprocessing import Preprocessing
    from reszoo.types import Array


@dataclass(frozen=True, kw_only=True)
class Format:
    """One format.

    Attributes:
        name: The name that users type.
        title: The name in sentences.
        runtime: The library that runs it.
        file: Where the model lies in the exported folder.
        precisions: What it can hold, the default first.
        needs: The modules that an export imports, which `pip install 'reszoo[extra]'` brings.
        extra: The name of that extra.
    """

    name: str
    title: str
    runtime: str
    file: str
    precisions: tuple[str, ...]
    needs: tuple[str, ...] = ()
    extra: str = ""


FORMATS = {
    one.name: one
    for one in (
        Format(
            name="savedmodel",
            title="SavedModel",
            runtime="TensorFlow",
            file="1",  # TensorFlow Serving watches a folder of numbered versions
            precisions=("float32", "float16"),
        ),
        Format(
            name="litert",
            title="LiteRT",
            runtime="LiteRT",
            file="model.tflite",
            precisions=("float32", "float16", "dynamic", "int8"),
            needs=("ai_edge_litert",),
            extra="litert",
        ),
        Format(
            name="onnx",
            title="ONNX",
            runtime="onnxruntime",
            file="model.onnx",
            precisions=("float32", "float16", "int8"),
            needs=("onnx", "tf2onnx", "onnxruntime"),
            extra="onnx",
        ),
    )
}

QUANTIZE = ("float16", "dynamic", "int8")
"""float16: weights in half precision, sums in float32. dynamic: weights in 8 bits. int8: everything
in 8 bits, with ranges of activations measured on real images."""


@dataclass(frozen=True, eq=False)
class Artifact:
    """What is written to a file of any format.

    Attributes:
        model: A float32 Keras model, from inputs to logits.
        preprocessing: How images become its input.
        class_names: The names of the logits.
        precision: One of the format's precisions.
        calibration: For "int8", the images that ranges are measured on, uint8 [n, h, w, c].
        multi_label: Whether an image may have several classes: each logit has its own sigmoid.
    """

    model: keras.Model
    preprocessing: Preprocessing
    class_names: Sequence[str]
    precision: str = "float32"
    calibration: Array | None = None
    multi_label: bool = False


def get_format(name: str, quantize: str | None = None) -> tuple[Format, str]:
    """Return a format and its precision.

    Raises:
        ReszooError: The format or the precision is unknown, they do not fit, or a module is
            missing.
    """
    for key, value, known in (("format", name, FORMATS), ("quantize", quantize, QUANTIZE)):
        if value is not None and value not in known:
            hint = did_you_mean(value, known) or f"; expected one of {', '.join(known)}"
            raise ReszooError(f"{key}: {value} is unknown{hint}")
    found = FORMATS[name]
    precision = quantize or found.precisions[0]
    if precision not in found.precisions:
        able = [other.name for other in FORMATS.values() if precision in other.precisions]
        raise ReszooError(
            f"quantize: {precision} is invalid for {found.title}; expected "
            f"{' or '.join(found.precisions[1:])}. {precision} needs --format {' or '.join(able)}"
        )
    if missing := [module for module in found.needs if importlib.util.find_spec(module) is None]:
        raise ReszooError(
            f"{found.title} needs {', '.join(missing)}, which is not installed: "
            f"pip install 'reszoo[{found.extra}]'"
        )
    return found, precision


def check_class_names(names: Sequence[str]) -> None:
    """Check that an export can hold class names: class_names.txt has one per line, in UTF-8.

    Raises:
        ReszooError: A name is empty, has a line break, or is not UTF-8.
    """
    for name in names:
        if name.splitlines() != [name]:
            what, expected = "is empty or has a line break", "text on one line"
        elif name.encode(errors="replace").decode() != name:
            what, expected = "is not UTF-8", "UTF-8"
        else:
            continue
        raise ReszooError(
            f"class name {name!r} {what}; expected {expected}, for class_names.txt. "
            "Rename the class, or train with: --set train.export=false"
        )
