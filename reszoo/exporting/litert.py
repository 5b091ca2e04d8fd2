"""Models as LiteRT files (formerly TensorFlow Lite)."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from reszoo.exporting.formats import Artifact
from reszoo.exporting.pixels import PixelClassifier
from reszoo.loading import quiet_logger
from reszoo.types import Array

SIGNATURE = "serving_default"


def write_litert(path: Path, artifact: Artifact) -> None:
    """Write an artifact to the LiteRT file `path`.

    The signature `serving_default` takes `images` as `PixelClassifier` does; in "int8" they are
    uint8. "float16" and "dynamic" store weights in half precision and in 8 bits; "int8" computes in
    8 bits.
    """
    classifier = PixelClassifier(artifact)
    with tempfile.TemporaryDirectory(prefix="reszoo-litert-") as folder:
        with quiet_logger("tensorflow"):
            tf.saved_model.save(classifier, folder, signatures={SIGNATURE: classifier.classify})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[SIGNATURE])
        if artifact.precision != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if artifact.precision == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if artifact.precision == "int8":
            calibration = artifact.calibration
            assert calibration is not None

            def images() -> Iterator[dict[str, Array]]:
                for image in calibration:
                    yield {"images": image[np.newaxis].astype(np.float32)}

            converter.representative_dataset = images
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = tf.uint8
        with warnings.catch_warnings():  # the converter's calibration uses the old interpreter
            warnings.filterwarnings("ignore", r"\s*Warning: tf\.lite\.Interpreter is deprecated")
            path.write_bytes(converter.convert())
