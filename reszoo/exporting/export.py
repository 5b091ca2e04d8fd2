"""A trained net as an artefact to deploy: folded, written in one format, checked in its own runtime, described, handed over whole."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from reszoo.commands import format_command
from reszoo.config.data import NoCrop
from reszoo.data.pipeline import open_dataset
from reszoo.data.preprocessing import Preprocessing
from reszoo.errors import ChangedDataError, ReszooError
from reszoo.evaluation.evaluate import BATCH, other_data
from reszoo.evaluation.scores import one_class_line
from reszoo.evaluation.source import Named, Source, open_source
from reszoo.exporting import card as cards
from reszoo.exporting.fold import Folded, fold, unfolded
from reszoo.exporting.formats import Format, check_class_names, get_format
from reszoo.exporting.parity import Check, check_pixels, check_savedmodel
from reszoo.exporting.samples import CALIBRATED, CHECKED, Sample, draw, photographs, without_folders
from reszoo.files import (
    atomic_dir,
    check_output,
    check_outside,
    plain_folder,
    write_json,
    write_text,
)
from reszoo.keywords import explain_keywords
from reszoo.models.settings import fixed_settings
from reszoo.versions import module_versions


@dataclass(frozen=True, kw_only=True)
class Report:
    """What an export left: the folder, the net's size in bytes, and how it was checked.

    folded, kept: normalisations that went into the convolution before them, and that could not. note: why the check was
    made on other images than the run's own, if it was. one_class: a line that reports a model which predicts one class only.
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

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, fit for JSON."""
        return dataclasses.asdict(self)


@explain_keywords
@fixed_settings()
def export(
    net: Named,
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
    """Export a trained net to the new folder `out`; see `export_model` for what it holds then.

    net: a run or its folder, a net's name, whose published `weights` (by default its first) are taken, or a model built with
    such. format: "savedmodel", "litert" or "onnx". quantize: "float16", "dynamic" or "int8", where the format has it.
    fold_norms: fold batch normalisation into convolutions wherever that is exact.
    image_size: of the input, a side or (height, width), in place of the size trained at.
    data: a set's name or `folder:PATH`, on whose test images the export is checked and on whose training images the ranges of
    "int8" are found; by default the run's own, and where there is none, parts of two photographs for the check.
    check: the images to check on, where they are at hand already.

    Raises ReszooError for bad input, an export further from the Keras model than its precision may be, and an occupied
    `out`; OSError where it cannot be written. Nothing is left behind then.
    """
    refuse_occupied(out)
    get_format(format, quantize)
    source = open_source(net, weights)
    for location in (source.run.recipe.data.name if source.run else "", data or ""):
        if location.startswith("folder:"):
            check_outside(out, location.removeprefix("folder:"), "export folder")
    size = _size(image_size)
    own = source.preprocessing
    preprocessing = own.at(size) if size else own
    found, calibration, note = _samples(
        source, preprocessing, data, quantize, resized=preprocessing is not own, check=check
    )
    model = source.load()
    report = export_model(
        model if preprocessing is own else as_float32(model, preprocessing.image_size),
        out,
        preprocessing=preprocessing,
        class_names=source.class_names,
        format=format,
        quantize=quantize,
        fold_norms=fold_norms,
        details=_details(source),
        check=found,
        calibration=calibration,
    )
    return dataclasses.replace(report, note=note)


@fixed_settings()
def export_model(
    model: Any,
    out: str | os.PathLike[str],
    *,
    preprocessing: Preprocessing,
    class_names: Sequence[str],
    format: str = "savedmodel",
    quantize: str | None = None,
    fold_norms: bool = True,
    details: Mapping[str, Any] | None = None,
    check: Sample | None = None,
    calibration: Sample | None = None,
) -> Report:
    """Write a Keras model, images in and logits out, to `out`, a new or empty folder.

    It holds `1/` (a SavedModel: `reszoo.exporting.savedmodel`), `model.tflite` or `model.onnx`, the latter two beside
    `class_names.txt` and `preprocessing.json`, and `card.json` and `README.md`, which say what it is, how it was checked and how
    to run it. Everything is float32, whatever precision the net was trained in, unless `quantize` says otherwise.

    preprocessing: how images become its input. details: what the card is to say of where the net comes from. check: real images to
    compare on (parts of two photographs by default). calibration: training images, which "int8" needs.

    Before `out` appears the export is loaded in its own runtime in a fresh process and compared with the Keras model: if a
    probability or the first classes differ more than the precision may (`reszoo.exporting.parity.BOUNDS`), or it does not load,
    ReszooError; so for parts that do not fit each other, and an occupied `out`. OSError when it cannot be written. In each
    case nothing is left behind.
    """
    refuse_occupied(out)
    kind, precision = get_format(format, quantize)
    _check_fit(model, preprocessing, class_names)
    if precision == "int8" and calibration is None:
        raise ReszooError(
            "int8 needs real training images to find its ranges on; give data, such as folder:PATH"
        )
    sample = photographs() if check is None else check
    target = Path(out)
    with atomic_dir(target) as written, plain_folder(written) as part:
        with tf.device("CPU:0"):
            net = as_float32(model)
            folded = fold(net) if fold_norms else unfolded(net)
        ranges = (
            calibration.inputs(preprocessing)
            if calibration is not None and precision == "int8"
            else None
        )
        try:
            features = _write(
                part, folded.model, preprocessing, class_names, kind, precision, ranges
            )
        except tf.errors.OpError as error:
            reason = str(error.message).strip().splitlines()[0]
            raise OSError(f"cannot write the {kind.title} for {target}: {reason}") from error
        try:
            if kind.name == "savedmodel":
                found = check_savedmodel(part / kind.file, net, preprocessing, sample)
            else:
                found = check_pixels(kind.name, part / kind.file, net, preprocessing, sample)
            found.refuse(precision)
        except ReszooError as error:
            raise ReszooError(f"{error}; {target} was not written") from None
        card = {
            **_facts(net, folded, class_names, preprocessing, details or {}),
            "format": kind.name,
            "precision": precision,
            "signatures": cards.signatures(
                kind.name, precision, preprocessing.input_shape, features=features
            ),
            "bytes": _bytes(part / kind.file),
            "check": found.to_dict(),
            "machine": cards.machine(),
            "exported_with": _versions(kind),
        }
        write_json(part / "card.json", card)
        write_text(part / "README.md", cards.readme(card))
    return Report(
        path=str(target),
        format=kind.name,
        precision=precision,
        bytes=card["bytes"],
        folded=len(folded.removed),
        kept=len(folded.kept),
        check=found,
        one_class=""
        if found.single_class is None
        else one_class_line(class_names[found.single_class]),
    )


@fixed_settings()
def as_float32(model: Any, image_size: tuple[int, int] | None = None) -> Any:
    """Return a copy of a Keras model that computes in float32 on one device, whatever policy or strategy made `model`.

    image_size: (height, width) of its input, where that is to be another.
    """

    def in_float32(layer: Any) -> Any:
        return type(layer).from_config(layer.get_config() | {"dtype": "float32"})

    inputs = (
        keras.Input((*image_size, model.input_shape[-1]), dtype="float32") if image_size else None
    )
    copy = keras.models.clone_model(model, clone_function=in_float32, input_tensors=inputs)
    copy.set_weights(model.get_weights())
    return copy


def refuse_occupied(out: str | os.PathLike[str]) -> None:
    """Raise ReszooError unless `out` is free, absent or an empty folder, and can be written."""
    path = Path(out)
    check_output(path, "export folder")
    if path.is_dir() and any(path.iterdir()):
        raise ReszooError(f"{path} is not empty; give a new folder to export to")
    if path.exists() and not path.is_dir():
        raise ReszooError(f"{path} is a file; give a new folder to export to")


def _write(
    part: Path,
    model: Any,
    preprocessing: Preprocessing,
    class_names: Sequence[str],
    kind: Format,
    precision: str,
    ranges: np.ndarray | None,
) -> bool:
    """Write the net in its format, and what its runtime needs beside it; return whether it has a signature `features`."""
    if kind.name == "savedmodel":
        from reszoo.exporting.savedmodel import write_savedmodel

        return write_savedmodel(
            part / kind.file, model, preprocessing, class_names, precision=precision
        )
    write_text(part / "class_names.txt", "".join(f"{name}\n" for name in class_names))
    write_json(part / "preprocessing.json", preprocessing.to_dict())
    if kind.name == "litert":
        from reszoo.exporting.litert import write_litert

        write_litert(
            part / kind.file, model, preprocessing, precision=precision, calibration=ranges
        )
    else:
        from reszoo.exporting.onnx_file import write_onnx

        write_onnx(
            part / kind.file,
            model,
            preprocessing,
            precision=precision,
            calibration=ranges,
            class_names=class_names,
        )
    return False


def _samples(
    source: Source,
    preprocessing: Preprocessing,
    data: str | None,
    quantize: str | None,
    *,
    resized: bool,
    check: Sample | None,
) -> tuple[Sample | None, Sample | None, str]:
    """Return the images to check on (None: photographs), those to find ranges on, and why they are not the run's own."""
    calibrating = quantize == "int8"
    if check is not None and not calibrating:
        return check, None, ""
    run, own = source.run, source.run.recipe.data if source.run else None
    if data is None and own is None:
        return check, None, ""
    try:
        pipeline = None
        if run and own and not resized and data in (None, own.name):
            try:
                pipeline = run.open_pipeline()
            except ChangedDataError:
                if data is None:
                    raise
        if pipeline is None:
            config = other_data(data or own.name, own, preprocessing)  # type: ignore[union-attr]  # one of them is there
            pipeline = open_dataset(config, NoCrop(), batch_size=BATCH, seed=0)
            if run and data is None:
                run.refuse_other_data(pipeline.info, counts=False)
    except ChangedDataError:
        raise
    except (ReszooError, OSError) as error:
        if data is not None or calibrating:
            raise
        return None, None, str(error)
    names = pipeline.info.class_names
    found = check or draw(pipeline, "test", CHECKED)
    if names not in (source.class_names, source.class_ids):
        found = dataclasses.replace(found, labels=None)
    return found, draw(pipeline, "train", CALIBRATED) if calibrating else None, ""


def _details(source: Source) -> dict[str, Any]:
    """Return what the card says of where a net comes from."""
    details = without_folders(source.details)
    if source.run:
        test = Path(source.run.path) / "test.json"
        details["test"] = _json(test) if test.is_file() else None
    return dict(details)


def _facts(
    net: Any,
    folded: Folded,
    class_names: Sequence[str],
    preprocessing: Preprocessing,
    details: Mapping[str, Any],
) -> dict[str, Any]:
    weights = details.get("weights")
    return {
        "name": details.get("name") or net.name,
        "net": net.name,
        # By name, because a fine-tuned net may have frozen layers, whose weights Keras does not count as trainable.
        "parameters": sum(
            math.prod(weight.shape)
            for weight in net.weights
            if not weight.name.startswith("moving_") and weight.name != "seed_generator_state"
        ),
        "multiply_adds": cards.multiply_adds(
            details.get("spec"), preprocessing.input_shape, len(class_names)
        ),
        "input_shape": list(preprocessing.input_shape),
        "classes": len(class_names),
        "class_names": list(class_names),
        "preprocessing": preprocessing.to_dict(),
        "normalisations": {"folded": len(folded.removed), "kept": len(folded.kept)},
        "licence": weights["licence"] if isinstance(weights, Mapping) else "not specified",
        **{key: value for key, value in details.items() if key != "name"},
    }


def _versions(kind: Format) -> dict[str, str]:
    found = module_versions("reszoo", "tensorflow", "keras", *kind.needs)
    return {name.replace("_", "-"): version for name, version in found.items()}


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _size(given: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if given is None:
        return None
    size = tuple(given) if isinstance(given, tuple | list) else (given, given)
    if len(size) != 2 or any(not isinstance(side, int) or side < 1 for side in size):
        raise ReszooError(f"image_size must be a side or (height, width) in pixels, got {given}")
    return size[0], size[1]


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ReszooError(
            f"{path} is not JSON; write it again with: {format_command('evaluate', path.parent)}"
        ) from error


def _check_fit(model: Any, preprocessing: Preprocessing, class_names: Sequence[str]) -> None:
    shape, outputs = tuple(model.input_shape)[1:], tuple(model.output_shape)
    if any(
        own not in (None, wanted)
        for own, wanted in zip(shape, preprocessing.input_shape, strict=True)
    ):
        raise ReszooError(
            f"the model takes images of {shape}, but the preprocessing makes {preprocessing.input_shape}"
        )
    if len(outputs) != 2 or outputs[1] != len(class_names):
        raise ReszooError(
            f"the model's output has shape {outputs}, but there are {len(class_names)} class names"
        )
    check_class_names(class_names)
