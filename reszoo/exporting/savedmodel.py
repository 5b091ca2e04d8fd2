"""A trained net as a SavedModel that brings its preprocessing and class names, for programs that have TensorFlow alone."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import reszoo
from reszoo.data.preprocessing import Preprocessing
from reszoo.errors import ReszooError
from reszoo.evaluation.source import Given, open_source
from reszoo.exporting import parity
from reszoo.exporting.fold import Folded, fold, unfolded
from reszoo.exporting.signatures import Classifier
from reszoo.files import atomic_dir, write_json


@dataclass(frozen=True, kw_only=True)
class Report:
    """What an export left: the folder, its size, and how it was checked."""

    path: str
    bytes: int
    images_checked: int
    difference: float
    """Largest difference in any probability from the Keras model."""
    folded: int
    """Normalisations that went into the convolution before them."""
    kept: int
    """Normalisations that could not."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, fit for JSON."""
        return asdict(self)


def export(net: Given, out: str | os.PathLike[str], *, weights: str | None = None, fold_norms: bool = True) -> Report:
    """Export a trained net as a SavedModel in the new folder `out`; see `export_savedmodel`.

    net: a run or its folder, a net's name, whose published `weights` (by default its first) are taken, or a model built with
    such. fold_norms: fold batch normalisation into convolutions wherever that is exact.
    """
    refuse_occupied(out)
    source = open_source(net, weights)
    details = dict(source.details)
    if source.run:
        test = Path(source.run.path) / "test.json"
        details["test"] = _json(test) if test.is_file() else None
    return export_savedmodel(
        source.load(),
        out,
        preprocessing=source.preprocessing,
        class_names=source.class_names,
        details=details,
        fold_norms=fold_norms,
    )


def export_savedmodel(
    model: Any,
    out: str | os.PathLike[str],
    *,
    preprocessing: Preprocessing,
    class_names: Sequence[str],
    details: Mapping[str, Any] | None = None,
    check_images: Sequence[np.ndarray] | None = None,
    fold_norms: bool = True,
) -> Report:
    """Write `model`, images in and probabilities out, as a SavedModel to `out`, a new or empty folder.

    Signatures (float32 throughout, whatever precision the net was trained in):
    - `serving_default`: `images` float32 [n, h, w, c], pixels 0..255 of any height and width, rounded to whole numbers;
      gives `probabilities` and `logits`, float32 [n, classes].
    - `image_bytes`: `image_bytes` string [n], JPEG or PNG files; gives `probabilities` [n, classes], `labels` (string) and
      `scores` [n, k] of the k = min(5, classes) best, and `status` int32 [n]: 0, or 1 for a file that could not be
      decoded, whose other outputs are zeros and empty strings. The size of an image is not limited here.

    Normalisations are folded into the convolutions before them (`reszoo.exporting.fold`) unless `fold_norms` is False.
    Beside them lie `assets/class_names.txt`, `assets/preprocessing.json`, and `card.json` with `details`.
    Before `out` appears the SavedModel is loaded in a fresh process by TensorFlow alone and compared with the Keras model
    on `check_images` (uint8 [h, w, c], any sizes; a fixed few by default): more than 1e-5 apart in any probability, or
    not loadable, raises ReszooError, as do a model, preprocessing and names that do not fit each other, and an occupied
    `out`. OSError when it cannot be written. In each case nothing is left behind.
    """
    refuse_occupied(out)
    _check_fit(model, preprocessing, class_names)
    images = parity.check_images(preprocessing) if check_images is None else list(check_images)
    target = Path(out)
    with atomic_dir(target) as part, tempfile.TemporaryDirectory(prefix="reszoo-assets-") as assets:
        names_file, preprocessing_file = Path(assets) / "class_names.txt", Path(assets) / "preprocessing.json"
        names_file.write_text("".join(f"{name}\n" for name in class_names))
        write_json(preprocessing_file, preprocessing.to_dict())
        with tf.device("CPU:0"):
            net = as_float32(model)
            folded = fold(net) if fold_norms else unfolded(net)
        classifier = Classifier(folded.model, preprocessing, class_names, names_file, preprocessing_file)
        signatures = {"serving_default": classifier.serving_default, "image_bytes": classifier.image_bytes}
        try:
            tf.saved_model.save(classifier, str(part), signatures=signatures)
        except tf.errors.OpError as error:
            reason = str(error.message).strip().splitlines()[0]
            raise OSError(f"cannot write the SavedModel for {target}: {reason}") from error
        difference = parity.largest_difference(part, net, preprocessing, images)
        if not difference <= parity.TOLERANCE:
            raise ReszooError(
                f"the exported net's probabilities differ from the Keras model's by {difference:.1e}, more than "
                f"{parity.TOLERANCE:.0e}; {target} was not written"
            )
        write_json(part / "card.json", _card(net, folded, class_names, difference, details or {}))
        size = sum(path.stat().st_size for path in part.rglob("*") if path.is_file())
    return Report(
        path=str(target),
        bytes=size,
        images_checked=3 * len(images),
        difference=difference,
        folded=len(folded.removed),
        kept=len(folded.kept),
    )


def as_float32(model: Any) -> Any:
    """Return a copy of a Keras model that computes in float32 on one device, whatever policy or strategy made `model`."""

    def in_float32(layer: Any) -> Any:
        return type(layer).from_config(layer.get_config() | {"dtype": "float32"})

    copy = keras.models.clone_model(model, clone_function=in_float32)
    copy.set_weights(model.get_weights())
    return copy


def refuse_occupied(out: str | os.PathLike[str]) -> None:
    """Raise ReszooError unless `out` is free: absent, or an empty folder."""
    path = Path(out)
    if path.is_dir() and any(path.iterdir()):
        raise ReszooError(f"{path} is not empty; give a new folder to export to")
    if path.exists() and not path.is_dir():
        raise ReszooError(f"{path} is a file; give a new folder to export to")


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ReszooError(f"{path} is not JSON; write it anew with: reszoo evaluate {path.parent}") from error


def _check_fit(model: Any, preprocessing: Preprocessing, class_names: Sequence[str]) -> None:
    shape, outputs = tuple(model.input_shape)[1:], tuple(model.output_shape)
    if any(own not in (None, wanted) for own, wanted in zip(shape, preprocessing.input_shape, strict=True)):
        raise ReszooError(f"the model takes images of {shape}, but the preprocessing makes {preprocessing.input_shape}")
    if len(outputs) != 2 or outputs[1] != len(class_names):
        raise ReszooError(f"the model's output has shape {outputs}, but there are {len(class_names)} class names")
    if broken := [name for name in class_names if "\n" in name or not name]:
        raise ReszooError(f"class name {broken[0]!r} is empty or has a line break; class_names.txt holds one a line")


def _card(
    net: Any, folded: Folded, class_names: Sequence[str], difference: float, details: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "name": net.name,
        # By name, because a fine-tuned net may have frozen layers, whose weights Keras does not count as trainable.
        "parameters": sum(
            math.prod(weight.shape)
            for weight in net.weights
            if not weight.name.startswith("moving_") and weight.name != "seed_generator_state"
        ),
        "classes": len(class_names),
        "signatures": {
            "serving_default": "images float32 [n, h, w, c], pixels 0..255 -> probabilities, logits",
            "image_bytes": "image_bytes string [n], JPEG or PNG -> probabilities, labels, scores, status (0 = decoded)",
        },
        "normalisations": {"folded": len(folded.removed), "kept": len(folded.kept)},
        "difference_from_keras": difference,
        "exported_with": {"reszoo": reszoo.__version__, "tensorflow": tf.__version__, "keras": keras.__version__},
        **details,
    }
