"""Whether an exported net, loaded in its own runtime in a fresh process, computes what the Keras model computes, and how fast."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from reszoo.data.preprocessing import Preprocessing
from reszoo.errors import ReszooError
from reszoo.evaluation.scores import mean_recall, single_class
from reszoo.exporting import reload
from reszoo.exporting.samples import Sample, drawings, encode
from reszoo.exporting.signatures import OK, UNDECODABLE

BOUNDS = {
    "float32": (1e-4, 0.99),
    "float16": (1e-2, 0.98),
    "dynamic": (1.0, 0.9),
    "int8": (1.0, 0.9),
}
"""Largest difference in a probability, and smallest part of the images given the same first class, by precision. float32 sums in
another order differ by about 1e-6."""

BROKEN = b"\xff\xd8\xff\xe0 no image"
FLOATS = 16  # real images that the float signature is asked, beside the drawings
LARGE = 2**22  # pixels above which a picture is left to the bytes signature


@dataclass(frozen=True, kw_only=True)
class Check:
    """What a comparison on real images found.

    images: how many, what: which. logit_difference, probability_difference: the largest. agreement: the part given the same
    first class. accuracy, keras_accuracy: the part given its own class by the export and by Keras, None without labels.
    balanced_accuracy: the export's mean accuracy over the classes, None without labels. single_class: the class that the export
    gave to all images although their labels differ, else None.
    speed: images a second on this machine's processor, by rows in a batch.
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

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, fit for JSON."""
        return asdict(self)

    def refuse(self, precision: str) -> None:
        """Raise ReszooError where the export is further from Keras than its precision may be."""
        difference, agreement = BOUNDS[precision]
        if not self.probability_difference <= difference:
            raise ReszooError(
                f"the exported net's probabilities differ from the Keras model's by {self.probability_difference:.1e}, more than "
                f"{difference:.0e}, on {self.what}"
            )
        if not self.agreement >= agreement:
            raise ReszooError(
                f"the exported net has the Keras model's first class for {100 * self.agreement:.1f} % of the images ({self.what}); in "
                f"{precision} it must be at least {100 * agreement:.0f} %"
            )


def check_savedmodel(
    export: Path, model: Any, preprocessing: Preprocessing, sample: Sample
) -> Check:
    """Compare every signature of the SavedModel `export` with the Keras `model`, on drawings and on real pictures.

    The drawings and the first pictures are asked of the float signature; the drawings, as PNG and as JPEG files, and all
    pictures, of the bytes signature, together with a broken file that must be reported and must not disturb the others.
    Both sides compute on the CPU. Raises ReszooError when the export cannot be loaded or run, or gets a file's status wrong.
    """
    drawn = drawings(preprocessing)
    few = [preprocessing.pixels(picture).numpy() for picture in sample.pictures[:FLOATS]]
    floats = [*drawn, *(image for image in few if image.shape[0] * image.shape[1] <= LARGE)]
    files = [encode(image) for image in drawn] + [
        tf.io.encode_jpeg(image).numpy() for image in drawn
    ]
    files += [one if isinstance(one, bytes) else encode(one) for one in sample.pictures]
    with tempfile.TemporaryDirectory(prefix="reszoo-parity-") as name:
        for number, image in enumerate(floats):
            np.save(Path(name) / f"float-{number:04d}.npy", image[np.newaxis].astype(np.float32))
        for number, contents in enumerate([*files, BROKEN]):
            (Path(name) / f"image-{number:06d}").write_bytes(contents)
        outputs = _run("savedmodel", export, Path(name))

    status = outputs["bytes/status"].tolist()
    if status != [OK] * len(files) + [UNDECODABLE]:
        wrong = [
            number
            for number, (own, want) in enumerate(
                zip(status, [OK] * len(files) + [UNDECODABLE], strict=True)
            )
            if own != want
        ]
        raise ReszooError(
            f"the exported net misjudges which files are images: status {status[wrong[0]]} for file {wrong[0]}"
        )
    wanted = _Keras(model, preprocessing)
    singly = [wanted(preprocessing.to_input(image)[np.newaxis]) for image in floats]
    as_files = wanted(Sample(files, None, "").inputs(preprocessing), broken=1)
    given = [
        (outputs[f"float-{i:04d}/logits"], outputs[f"float-{i:04d}/probabilities"])
        for i in range(len(floats))
    ]
    real = slice(2 * len(drawn), len(files))
    probabilities = outputs["bytes/probabilities"][:-1]
    return _check(
        sample,
        logits=_largest(
            np.concatenate([own for own, _ in given]), np.concatenate([own for own, _ in singly])
        ),
        probabilities=max(
            _largest(
                np.concatenate([own for _, own in given]),
                np.concatenate([own for _, own in singly]),
            ),
            _largest(probabilities, as_files[1]),
        ),
        given=probabilities[real],
        keras=as_files[1][real],
        outputs=outputs,
    )


def check_pixels(
    kind: str, export: Path, model: Any, preprocessing: Preprocessing, sample: Sample
) -> Check:
    """Compare the LiteRT or ONNX file `export` (`kind`) with the Keras `model` on real pictures, decoded and resized by us.

    Raises ReszooError when the export cannot be loaded or run.
    """
    pixels = sample.inputs(preprocessing)
    with tempfile.TemporaryDirectory(prefix="reszoo-parity-") as name:
        np.save(Path(name) / "pixels.npy", pixels)
        outputs = _run(kind, export, Path(name))
    logits, probabilities = _Keras(model, preprocessing)(pixels)
    return _check(
        sample,
        logits=_largest(outputs["pixels/logits"], logits),
        probabilities=_largest(outputs["pixels/probabilities"], probabilities),
        given=outputs["pixels/probabilities"],
        keras=probabilities,
        outputs=outputs,
    )


class _Keras:
    """The Keras model's logits and probabilities of uint8 [n, height, width, c], compiled, on the CPU.

    In batches of the same rows as the export computes, those of the broken file included: what then differs is not mere rounding.
    """

    def __init__(self, model: Any, preprocessing: Preprocessing) -> None:
        self.name, self.preprocessing = model.name, preprocessing
        self.compiled = tf.function(
            lambda inputs: tf.cast(model(inputs, training=False), tf.float32),
            input_signature=[tf.TensorSpec((None, *preprocessing.input_shape), tf.float32)],
        )

    def __call__(self, pixels: Any, broken: int = 0) -> tuple[np.ndarray, np.ndarray]:
        with tf.device("CPU:0"):
            inputs = self.preprocessing.apply(pixels)
            inputs = tf.pad(inputs, [[0, broken], [0, 0], [0, 0], [0, 0]])
            logits = tf.concat([self.compiled(some) for some in reload.chunks(inputs)], axis=0)[
                : len(pixels)
            ]
            probabilities = tf.nn.softmax(logits).numpy()
        if not np.isfinite(probabilities).all():
            raise ReszooError(
                f"the probabilities of {self.name} are not finite numbers; did its training diverge?"
            )
        return logits.numpy(), probabilities


def _check(
    sample: Sample,
    *,
    logits: float,
    probabilities: float,
    given: np.ndarray,
    keras: np.ndarray,
    outputs: dict[str, Any],
) -> Check:
    best, wanted = given.argmax(axis=1), keras.argmax(axis=1)
    labels = sample.labels
    if labels is not None:
        matrix = np.zeros((given.shape[1],) * 2, np.int64)
        np.add.at(matrix, (labels, best), 1)
        recalls = [float(matrix[own, own] / matrix[own].sum()) for own in np.unique(labels)]
    return Check(
        images=len(given),
        what=sample.origin,
        logit_difference=logits,
        probability_difference=probabilities,
        agreement=float((best == wanted).mean()),
        accuracy=None if labels is None else float((best == labels).mean()),
        keras_accuracy=None if labels is None else float((wanted == labels).mean()),
        balanced_accuracy=None if labels is None else mean_recall(recalls),
        single_class=None if labels is None else single_class(matrix.tolist()),
        speed={
            key.removeprefix("speed/"): round(float(outputs[key]), 1)
            for key in outputs
            if key.startswith("speed/")
        },
    )


def _largest(given: np.ndarray, wanted: np.ndarray) -> float:
    return float(
        np.nan_to_num(np.abs(given - wanted).max(), nan=np.inf)
    )  # a NaN must not pass for agreement


def _run(kind: str, export: Path, folder: Path) -> dict[str, np.ndarray]:
    """Run `reload.py` in a fresh interpreter, without GPUs: this process may hold all of their memory."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-P", str(reload.__file__), kind, str(export), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        alone = {"savedmodel": "TensorFlow", "litert": "LiteRT", "onnx": "onnxruntime"}[kind]
        raise ReszooError(f"the exported net does not load by {alone} alone: {lines[-1]}")
    with np.load(folder / "outputs.npz", allow_pickle=False) as outputs:
        return dict(outputs)
