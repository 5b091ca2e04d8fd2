"""What a net can be exported as, and in which precision. Standard library only."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass

from reszoo.errors import ReszooError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Format:
    """One format. file: where its net lies in the exported folder. precisions: those it can hold, the default first.

    needs: modules that an export imports beside reszoo's own, which `pip install 'reszoo[extra]'` brings.
    """

    name: str
    title: str
    file: str
    precisions: tuple[str, ...]
    needs: tuple[str, ...] = ()
    extra: str = ""


FORMATS = {
    one.name: one
    for one in (
        # TensorFlow Serving watches a folder of versions, each in a folder with its number.
        Format(name="savedmodel", title="SavedModel", file="1", precisions=("float32", "float16")),
        Format(
            name="litert",
            title="LiteRT",
            file="model.tflite",
            precisions=("float32", "float16", "dynamic", "int8"),
            needs=("ai_edge_litert",),
            extra="litert",
        ),
        Format(
            name="onnx",
            title="ONNX",
            file="model.onnx",
            precisions=("float32", "float16", "int8"),
            needs=("onnx", "tf2onnx", "onnxruntime"),
            extra="onnx",
        ),
    )
}

QUANTIZE = ("float16", "dynamic", "int8")
"""float16: weights kept in half precision, sums in float32. dynamic: weights in 8 bits, activations as they come. int8: both in 8 bits,
with ranges found on real images."""


def check_class_names(names: Sequence[str]) -> None:
    """Check that an export can hold class names, of which its file class_names.txt has one per line.

    Raises:
        ReszooError: if a name is empty, has a line break, or is not UTF-8.
    """
    for name in names:
        if len(name.splitlines()) != 1 or name.splitlines() != [name]:
            raise ReszooError(
                f"class name {name!r} is empty or has a line break; expected text on one line, because class_names.txt holds one "
                "name per line. Rename the class, or train with: --set train.export=false"
            )
        try:
            name.encode()
        except UnicodeEncodeError:
            raise ReszooError(
                f"class name {name!r} is not UTF-8; expected UTF-8, which exported models hold. Rename the class, or train with: "
                "--set train.export=false"
            ) from None


def get_format(name: str, quantize: str | None = None) -> tuple[Format, str]:
    """Return a format and the precision it is to hold.

    Raises ReszooError for a format that there is not, one that cannot hold the precision, and one whose modules are not installed.
    """
    if name not in FORMATS:
        raise ReszooError(
            f"no format '{name}'{did_you_mean(name, FORMATS) or '; there are ' + ', '.join(FORMATS)}"
        )
    found = FORMATS[name]
    if quantize is not None and quantize not in QUANTIZE:
        raise ReszooError(
            f"no quantisation '{quantize}'{did_you_mean(quantize, QUANTIZE) or '; there are ' + ', '.join(QUANTIZE)}"
        )
    precision = quantize or found.precisions[0]
    if precision not in found.precisions:
        able = [other.name for other in FORMATS.values() if precision in other.precisions]
        raise ReszooError(
            f"{found.title} is not written in {precision}: it takes {', '.join(found.precisions[1:])}, "
            f"and {precision} goes with {' and '.join(able)}"
        )
    if missing := [module for module in found.needs if importlib.util.find_spec(module) is None]:
        raise ReszooError(
            f"{found.title} needs {', '.join(missing)}, which is not installed: pip install 'reszoo[{found.extra}]'"
        )
    return found, precision
