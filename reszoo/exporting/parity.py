"""Comparison of an exported model, in its own runtime in a fresh process, with the Keras model."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from reszoo.errors import ReszooError
from reszoo.evaluation.multilabel import to_probabilities
from reszoo.evaluation.rows import THRESHOLD
from reszoo.evaluation.scores import mean_known, single_class
from reszoo.exporting import runtimes
from reszoo.exporting.formats import FORMATS
from reszoo.exporting.samples import Sample, drawings
from reszoo.exporting.signatures import OK, UNDECODABLE
from reszoo.images.preprocessing import Preprocessing
from reszoo.types import Array, JsonObject

BOUNDS = {
    "float32": (1e-4, 0.99),  # sums in another order differ by about 1e-6
    "float16": (1e-2, 0.98),
    "dynamic": (1.0, 0.9),
    "int8": (1.0, 0.9),
}
"""Largest difference of a probability, and smallest share of equal decisions."""

BROKEN = b"\xff\xd8\xff\xe0 not an image"
FLOATS = 16  # real images, in addition to the drawings, that `serving_default` runs on
LARGE = 2**22  # pixels above which an image goes to `image_bytes` only


@dataclass(frozen=True, kw_only=True)
class Check:
    """Result of a comparison on real images.

    Attributes:
        images: How many.
        what: Which.
        logit_difference: The largest.
        probability_difference: The largest.
        agreement: The share with the same first class. If an image may have several classes: the
            share of all classes of all images with the same decision.
        accuracy: Of the export; None without labels. Of several classes, all must be right.
        keras_accuracy: Of the Keras model; None without labels.
        balanced_accuracy: The export's mean accuracy of the classes; None without labels, and if
            an image may have several classes.
        single_class: The class that the export gave to all images although their labels differ,
            else None.
        speed: Images per second on this CPU, by rows per batch.
    """

    images: int
    what: str
    logit_difference: float
    probability_difference: float
    agreement: float
    accuracy: float | None
    keras_accuracy: float | None
    balanced_accuracy: float | None
    single_class: int | None
    speed: dict[str, float]

    def to_dict(self) -> JsonObject:
        """Return the fields for JSON."""
        return asdict(self)

    def require(self, precision: str) -> None:
        """Raise ReszooError if the export differs more from Keras than its precision allows."""
        difference, agreement = BOUNDS[precision]
        if not self.probability_difference <= difference:
            raise ReszooError(
                f"the exported model's probabilities differ from the Keras model's by "
                f"{self.probability_difference:.1e}; expected at most {difference:.0e} "
                f"({self.what})"
            )
        if not self.agreement >= agreement:
            raise ReszooError(
                f"{100 * self.agreement:.1f} % of the exported model's decisions are the Keras "
                f"model's ({self.what}); expected at least {100 * agreement:.0f} % in {precision}"
            )


@dataclass(frozen=True)
class Outputs:
    """Logits and probabilities, float32 [n, classes]."""

    logits: Array
    probabilities: Array


def check_export(
    kind: str,
    export: Path,
    model: keras.Model,
    preprocessing: Preprocessing,
    sample: Sample,
    *,
    multi_label: bool = False,
) -> Check:
    """Compare an export with the Keras model; both compute on the CPU.

    A LiteRT or ONNX file runs on the images in the size of its input. A SavedModel runs on drawings
    and the first images as floats, and on drawings, all images and a broken file as files.

    Args:
        kind: The name of the format.
        export: The exported file, or folder.
        model: The Keras model.
        preprocessing: How images become its input.
        sample: The images.
        multi_label: Whether each logit has its own sigmoid.

    Raises:
        ReszooError: The export cannot be loaded or run, or misjudges which files are images.
    """
    run_keras = KerasRunner(model, preprocessing, multi_label=multi_label)
    with tempfile.TemporaryDirectory(prefix="reszoo-parity-") as name:
        folder = Path(name)
        if kind == "savedmodel":
            floats, files = _write_inputs(folder, preprocessing, sample)
            outputs = run_export(kind, export, folder)
            _check_statuses(outputs["bytes/status"].tolist(), len(files))
            pairs = [
                (
                    Outputs(
                        *(outputs[f"float-{i:04d}/{key}"] for key in ("logits", "probabilities"))
                    ),
                    run_keras(preprocessing.to_input(image)[np.newaxis]),
                )
                for i, image in enumerate(floats)
            ]
            expected = run_keras(Sample(files, None, "").inputs(preprocessing), broken=1)
            probabilities = outputs["bytes/probabilities"][:-1]
            pairs.append((Outputs(expected.logits, probabilities), expected))
            real = slice(len(files) - len(sample.images), None)
        else:
            pixels = sample.inputs(preprocessing)
            np.save(folder / "pixels.npy", pixels)
            outputs = run_export(kind, export, folder)
            expected = run_keras(pixels)
            probabilities = outputs["pixels/probabilities"]
            pairs = [(Outputs(outputs["pixels/logits"], probabilities), expected)]
            real = slice(None)
    labels, accuracy, keras_accuracy, balanced, single = sample.labels, None, None, None, None
    if multi_label:
        best, wanted = probabilities[real] > THRESHOLD, expected.probabilities[real] > THRESHOLD
        if labels is not None:
            accuracy, keras_accuracy = (
                float((found == (labels > 0)).all(axis=1).mean()) for found in (best, wanted)
            )
    else:
        best = probabilities[real].argmax(axis=1)
        wanted = expected.probabilities[real].argmax(axis=1)
    if labels is not None and not multi_label:
        matrix = np.zeros((probabilities.shape[1],) * 2, np.int64)
        np.add.at(matrix, (labels, best), 1)
        recalls = [float(matrix[own, own] / matrix[own].sum()) for own in np.unique(labels)]
        accuracy, keras_accuracy = (float((found == labels).mean()) for found in (best, wanted))
        balanced, single = mean_known(recalls), single_class(matrix.tolist())
    speed = {key: float(value) for key, value in outputs.items() if key.startswith("speed/")}
    return Check(
        images=len(best),
        what=sample.origin,
        logit_difference=max(_difference(own.logits, want.logits) for own, want in pairs),
        probability_difference=max(
            _difference(own.probabilities, want.probabilities) for own, want in pairs
        ),
        agreement=float((best == wanted).mean()),
        accuracy=accuracy,
        keras_accuracy=keras_accuracy,
        balanced_accuracy=balanced,
        single_class=single,
        speed={key.removeprefix("speed/"): round(value, 1) for key, value in speed.items()},
    )


def _write_inputs(
    folder: Path, preprocessing: Preprocessing, sample: Sample
) -> tuple[list[Array], list[bytes]]:
    """Write and return the float images and files that a SavedModel runs on; add a broken file."""
    drawn = drawings(preprocessing)
    few = [preprocessing.pixels(image).numpy() for image in sample.images[:FLOATS]]
    floats = [*drawn, *(image for image in few if image.shape[0] * image.shape[1] <= LARGE)]
    files = [tf.io.encode_png(image).numpy() for image in drawn]
    files += [tf.io.encode_jpeg(image).numpy() for image in drawn]
    files += [
        one if isinstance(one, bytes) else tf.io.encode_png(one).numpy() for one in sample.images
    ]
    for number, image in enumerate(floats):
        np.save(folder / f"float-{number:04d}.npy", image[np.newaxis].astype(np.float32))
    for number, contents in enumerate([*files, BROKEN]):
        (folder / f"image-{number:06d}").write_bytes(contents)
    return floats, files


def _check_statuses(found: list[int], valid: int) -> None:
    expected = [OK] * valid + [UNDECODABLE]
    wrong = [number for number, status in enumerate(found) if status != expected[number]]
    if wrong:
        raise ReszooError(
            "the exported model misjudges which files are images: "
            f"status {found[wrong[0]]} for file {wrong[0]}"
        )


class KerasRunner:
    """Runs the Keras model on the CPU on pixels, uint8 [n, height, width, c].

    The batches have as many rows as the export's, so that only rounding differs.
    """

    def __init__(
        self, model: keras.Model, preprocessing: Preprocessing, *, multi_label: bool = False
    ) -> None:
        self.name, self.preprocessing = model.name, preprocessing
        self.multi_label = multi_label
        spec = tf.TensorSpec((None, *preprocessing.input_shape), tf.float32)
        self.compiled = tf.function(
            lambda inputs: tf.cast(model(inputs, training=False), tf.float32),
            input_signature=[spec],
        )

    def __call__(self, pixels: Array, broken: int = 0) -> Outputs:
        """Return the outputs; `broken` rows of zeros follow the pixels."""
        with tf.device("CPU:0"):
            inputs = self.preprocessing.apply(pixels)
            inputs = tf.pad(inputs, [[0, broken], [0, 0], [0, 0], [0, 0]])
            logits = tf.concat([self.compiled(some) for some in runtimes.chunks(inputs)], axis=0)
            logits = logits[: len(pixels)]
            probabilities = to_probabilities(logits, multi_label=self.multi_label).numpy()
        if not np.isfinite(probabilities).all():
            raise ReszooError(
                f"the probabilities of {self.name} are not finite numbers; "
                "did its training diverge?"
            )
        return Outputs(logits.numpy(), probabilities)


def _difference(found: Array, wanted: Array) -> float:
    """Return the largest difference; inf for a NaN."""
    return float(np.nan_to_num(np.abs(found - wanted).max(), nan=np.inf))


def run_export(kind: str, export: Path, folder: Path) -> dict[str, Array]:
    """Run `runtimes.py` in a fresh process without GPUs, whose memory this process may hold."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-P", str(runtimes.__file__), kind, str(export), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        raise ReszooError(
            f"{FORMATS[kind].runtime} alone cannot load the exported model: {lines[-1]}"
        )
    with np.load(folder / "outputs.npz", allow_pickle=False) as outputs:
        return dict(outputs)
