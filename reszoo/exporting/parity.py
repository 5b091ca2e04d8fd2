"""Whether an exported net, loaded by TensorFlow alone in a fresh process, computes what the Keras model computes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from reszoo.data.preprocessing import Preprocessing
from reszoo.errors import ReszooError
from reszoo.exporting import reload
from reszoo.exporting.signatures import OK, UNDECODABLE

TOLERANCE = 1e-5
"""Largest difference in a probability that an export may show; float32 sums in another order differ by about 1e-6."""

BROKEN = b"\xff\xd8\xff\xe0 no image"


def largest_difference(export: Path, model: Any, preprocessing: Preprocessing, images: Sequence[np.ndarray]) -> float:
    """Return the largest difference in any probability between the SavedModel `export` and the Keras `model`.

    images: uint8 [h, w, c], of any sizes. Each is asked of the float signature and, as a PNG and as a JPEG file, of the
    bytes signature, in one call with a broken file that must be reported and must not disturb the others. Both sides
    compute on the CPU. Raises ReszooError when the export cannot be loaded or run, or gets a file's status wrong.
    """
    files = [encode(image).numpy() for image in images for encode in (tf.io.encode_png, tf.io.encode_jpeg)]
    with tempfile.TemporaryDirectory(prefix="reszoo-parity-") as name:
        folder = Path(name)
        for number, image in enumerate(images):
            np.save(folder / f"float-{number:04d}.npy", image[np.newaxis].astype(np.float32))
        for number, contents in enumerate([*files, BROKEN]):
            (folder / f"image-{number:04d}").write_bytes(contents)
        outputs = _reload(export, folder)

    # Compiled, and in batches of the same rows, as the export computes: what then differs is not mere rounding.
    compiled = tf.function(
        lambda inputs: tf.nn.softmax(tf.cast(model(inputs, training=False), tf.float32)),
        input_signature=[tf.TensorSpec((None, *preprocessing.input_shape), tf.float32)],
    )
    with tf.device("CPU:0"):
        floats = [compiled(preprocessing.from_image(tf.constant(image))[tf.newaxis])[0] for image in images]
        decoded = [preprocessing.from_bytes(tf.constant(contents)) for contents in files]
        as_files = compiled(tf.stack([*decoded, tf.zeros(preprocessing.input_shape)]))[:-1]
    expected = np.concatenate([tf.stack(floats), as_files])
    if not np.isfinite(expected).all():
        raise ReszooError(f"the probabilities of {model.name} are not finite numbers; did its training diverge?")
    if outputs["bytes/status"].tolist() != [OK] * len(files) + [UNDECODABLE]:
        raise ReszooError(
            f"the exported net misjudges which files are images: status {outputs['bytes/status'].tolist()}"
        )
    given = [outputs[f"float-{number:04d}/probabilities"] for number in range(len(images))]
    difference = np.abs(np.concatenate([*given, outputs["bytes/probabilities"][:-1]]) - expected).max()
    return float(np.nan_to_num(difference, nan=np.inf))  # a NaN must not pass for agreement


def check_images(preprocessing: Preprocessing) -> list[np.ndarray]:
    """Return images to check by: one of the input's own size, one wider and one taller; uint8 [h, w, c], always the same."""
    rng = np.random.default_rng(0)
    height, width, channels = preprocessing.input_shape
    images = []
    for size in ((height, width), (height + 7, 2 * width + 3), (3 * height + 1, width)):
        coarse = rng.uniform(0, 255, (1, 5, 5, channels))
        images.append(tf.cast(tf.image.resize(coarse, size, method="bilinear"), tf.uint8).numpy()[0])
    return images


def _reload(export: Path, folder: Path) -> dict[str, np.ndarray]:
    """Run `reload.py` in a fresh interpreter, without GPUs: this process may hold all of their memory."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-P", str(reload.__file__), str(export), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        raise ReszooError(f"the exported net does not load by TensorFlow alone: {lines[-1]}")
    with np.load(folder / "outputs.npz", allow_pickle=False) as outputs:
        return dict(outputs)
