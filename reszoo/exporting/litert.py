"""A net as a LiteRT file, once called TensorFlow Lite, in float32 or quantised."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from reszoo.data.preprocessing import Preprocessing
from reszoo.exporting.pixels import PixelClassifier

SIGNATURE = "serving_default"


def write_litert(
    path: Path,
    model: Any,
    preprocessing: Preprocessing,
    *,
    precision: str,
    calibration: np.ndarray | None,
) -> None:
    """Write a float32 Keras model to the file `path`.

    Signature `serving_default`: `images` [n, height, width, c], pixels 0..255, float32, or uint8 in "int8"; gives `logits` and
    `probabilities`, float32 [n, classes]. precision: "float32"; "float16" and "dynamic" keep weights in half precision and in 8
    bits; "int8" computes in 8 bits too, its ranges found on `calibration` (uint8 [n, height, width, c]).
    """
    classifier = PixelClassifier(model, preprocessing)
    with tempfile.TemporaryDirectory(prefix="reszoo-litert-") as folder:
        tf.saved_model.save(classifier, folder, signatures={SIGNATURE: classifier.classify})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[SIGNATURE])
        if precision != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if precision == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if precision == "int8":
            assert calibration is not None

            def images() -> Iterator[dict[str, Any]]:
                for image in calibration:
                    yield {"images": image[np.newaxis].astype(np.float32)}

            converter.representative_dataset = images
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = tf.uint8
        with warnings.catch_warnings():
            # Its calibrator still goes through the interpreter that TensorFlow is about to give up; we run files in LiteRT's.
            warnings.filterwarnings("ignore", r"\s*Warning: tf\.lite\.Interpreter is deprecated")
            path.write_bytes(converter.convert())
