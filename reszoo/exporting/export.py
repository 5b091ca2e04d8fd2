"""Export of a trained model: folded, written, compared in its own runtime, described."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import tensorflow as tf

from reszoo.commands import format_command
from reszoo.errors import ReszooError
from reszoo.evaluation.source import Named, Source, open_source
from reszoo.exporting.card import describe_class, make_card, make_readme
from reszoo.exporting.fold import fold
from reszoo.exporting.formats import Artifact, Format, check_class_names, get_format
from reszoo.exporting.parity import Check, check_export
from reszoo.exporting.samples import Sample, Samples, choose_samples, photographs, remove_folders
from reszoo.exporting.savedmodel import write_assets, write_savedmodel
from reszoo.files import (
    atomic_dir,
    check_output,
    check_outside,
    plain_folder,
    write_json,
    write_text,
)
from reszoo.images.preprocessing import Preprocessing
from reszoo.keywords import explain_keywords
from reszoo.models.settings import fixed_settings
from reszoo.types import JsonObject


@dataclass(frozen=True, kw_only=True)
class Report:
    """Result of an export.

    Attributes:
        path: The folder.
        format: The name of the format.
        precision: The precision.
        bytes: Size of the exported model.
        folded: Batch norms that were folded into the convolution before them.
        kept: Batch norms that could not be folded.
        check: How the export compares with Keras.
        note: Why the check used other images than the run's own, if it did.
        one_class: A line if the model predicts one class only, else "".
    """

    path: str
    format: str
    precision: str
    bytes: int
    folded: int
    kept: int
    check: Check
    note: str = ""
    one_class: str = ""

    def to_dict(self) -> JsonObject:
        """Return the fields for JSON."""
        return dataclasses.asdict(self)


@explain_keywords
@fixed_settings()
def export(
    model: Named,
    out: str | os.PathLike[str],
    *,
    format: str = "savedmodel",
    quantize: str | None = None,
    fold_norms: bool = True,
    image_size: int | tuple[int, int] | None = None,
    data: str | None = None,
    weights: str | None = None,
    check: Sample | None = None,
) -> Report:
    """Export a trained model to the new folder `out`; `export_model` says what the folder holds.

    Args:
        model: A run or its folder, a model name with published weights, or a model built with them.
        out: A new or empty folder.
        format: "savedmodel", "litert" or "onnx".
        quantize: "float16", "dynamic" or "int8", if the format supports it.
        fold_norms: Fold batch norms into convolutions where that is exact.
        image_size: Another input size: a side or (height, width).
        data: A dataset name or `folder:PATH`. Its test images are compared, its training images
            give the ranges of "int8". By default those of the run, else parts of two photographs.
        weights: Which published weights; by default the first.
        check: Images to compare on, if they are at hand.

    Returns:
        What was written and how it compares with Keras.

    Raises:
        ReszooError: Bad input, an occupied `out`, or an export that differs more than its precision
            allows.
        OSError: `out` cannot be written. In each case nothing is left behind.
    """
    check_output(out, "export folder", occupied=False)
    get_format(format, quantize)
    source = open_source(model, weights)
    for location in (source.run.recipe.data.name if source.run else "", data or ""):
        if location.startswith("folder:"):
            check_outside(out, location.removeprefix("folder:"), "export folder")
    own = source.preprocessing
    preprocessing = own if image_size is None else own.fit((*_parse_size(image_size), own.channels))
    calibrate = quantize == "int8"
    samples = Samples(check)
    if check is None or calibrate:
        samples = choose_samples(source, preprocessing, data, calibrate=calibrate)
    model = source.load()
    if preprocessing is not own:
        model = fold(model, norms=False, image_size=preprocessing.image_size).model
    report = export_model(
        model,
        out,
        preprocessing=preprocessing,
        class_names=source.class_names,
        multi_label=source.multi_label,
        format=format,
        quantize=quantize,
        fold_norms=fold_norms,
        details=_describe_source(source),
        check=check or samples.check,
        calibration=samples.calibration,
    )
    return dataclasses.replace(report, note=samples.note)


@fixed_settings()
def export_model(
    model: keras.Model,
    out: str | os.PathLike[str],
    *,
    preprocessing: Preprocessing,
    class_names: Sequence[str],
    multi_label: bool = False,
    format: str = "savedmodel",
    quantize: str | None = None,
    fold_norms: bool = True,
    details: JsonObject | None = None,
    check: Sample | None = None,
    calibration: Sample | None = None,
) -> Report:
    """Write a Keras model to the new folder `out`, after comparing the result with the model.

    The folder holds `1/` (a SavedModel), `model.tflite` or `model.onnx`, the latter two next to
    `class_names.txt` and `preprocessing.json`; and `card.json` and `README.md`, which describe it.
    Everything is float32, whatever precision the model was trained in, unless `quantize` is given.

    Args:
        model: From images to logits.
        out: A new or empty folder.
        preprocessing: How images become its input.
        class_names: The names of its logits.
        multi_label: Whether an image may have several classes: each logit has its own sigmoid.
        format: "savedmodel", "litert" or "onnx".
        quantize: "float16", "dynamic" or "int8", if the format supports it.
        fold_norms: Fold batch norms into convolutions where that is exact.
        details: What the card says of the model's origin; see `make_card`.
        check: Images to compare on; by default parts of two photographs.
        calibration: Training images, which "int8" needs.

    Returns:
        What was written and how it compares with Keras.

    Raises:
        ReszooError: Parts do not fit each other, `out` is occupied, or the export cannot be loaded
            in a fresh process or differs more than its precision allows
            (`reszoo.exporting.parity.BOUNDS`).
        OSError: `out` cannot be written. In each case nothing is left behind.
    """
    check_output(out, "export folder", occupied=False)
    found, precision = get_format(format, quantize)
    _check_fit(model, preprocessing, class_names)
    if precision == "int8" and calibration is None:
        raise ReszooError(
            "int8 needs training images to measure ranges on. Example: --data folder:PATH"
        )
    sample, target = check or photographs(), Path(out)
    with atomic_dir(target) as written, plain_folder(written) as folder:
        with tf.device("CPU:0"):
            whole = fold(model, norms=False).model
            folded = fold(whole, norms=fold_norms)
        ranges = calibration.inputs(preprocessing) if calibration and precision == "int8" else None
        artifact = Artifact(
            folded.model, preprocessing, class_names, precision, ranges, multi_label
        )
        path = folder / found.file
        try:
            _write(folder, found, artifact)
            result = check_export(
                found.name, path, whole, preprocessing, sample, multi_label=multi_label
            )
            result.require(precision)
        except tf.errors.OpError as error:
            reason = str(error.message).strip().splitlines()[0]
            raise OSError(f"cannot write the {found.title} for {target}: {reason}") from error
        except ReszooError as error:
            raise ReszooError(f"{error}; {target} was not written") from None
        files = [path, *path.rglob("*")]
        size = sum(file.stat().st_size for file in files if file.is_file())
        card = make_card(whole, artifact, found, folded, result, size=size, details=details or {})
        one_class = describe_class(result, class_names)
        write_json(folder / "card.json", card)
        write_text(folder / "README.md", make_readme(card, one_class))
    return Report(
        path=str(target),
        format=found.name,
        precision=precision,
        bytes=size,
        folded=len(folded.removed),
        kept=len(folded.kept),
        check=result,
        one_class=one_class,
    )


def _write(folder: Path, format: Format, artifact: Artifact) -> None:
    """Write the model, and what else its runtime needs."""
    path = folder / format.file
    if format.name == "savedmodel":
        write_savedmodel(path, artifact)
        return
    write_assets(folder, artifact)
    if format.name == "litert":
        from reszoo.exporting.litert import write_litert

        write_litert(path, artifact)
    else:
        from reszoo.exporting.onnx_file import write_onnx

        write_onnx(path, artifact)


def _describe_source(source: Source) -> JsonObject:
    """Return what the card says of a model's origin."""
    details: JsonObject = remove_folders(source.details)
    if source.run and (file := Path(source.run.path) / "test.json").is_file():
        try:
            details["test"] = json.loads(file.read_text())
        except ValueError as error:
            command = format_command("evaluate", file.parent)
            raise ReszooError(f"{file} is not JSON; write it again with: {command}") from error
    return details


def _parse_size(value: int | tuple[int, int]) -> tuple[int, int]:
    size = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(size) != 2 or any(not isinstance(side, int) or side < 1 for side in size):
        raise ReszooError(
            f"image_size: {value} is invalid; expected a side or (height, width) in pixels. "
            "Example: image_size=192"
        )
    return size[0], size[1]


def _check_fit(
    model: keras.Model, preprocessing: Preprocessing, class_names: Sequence[str]
) -> None:
    shape, outputs = tuple(model.input_shape)[1:], tuple(model.output_shape)
    wanted = preprocessing.input_shape
    if any(own not in (None, side) for own, side in zip(shape, wanted, strict=True)):
        raise ReszooError(
            f"the model takes images of {shape}, but the preprocessing makes {wanted}"
        )
    if len(outputs) != 2 or outputs[1] != len(class_names):
        raise ReszooError(
            f"the model's output has shape {outputs}, but there are {len(class_names)} class names"
        )
    check_class_names(class_names)
