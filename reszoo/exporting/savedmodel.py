"""A net as a SavedModel that brings its preprocessing and class names, for programs that have TensorFlow alone."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from reszoo.data.preprocessing import Preprocessing
from reszoo.exporting.signatures import Classifier
from reszoo.files import write_json


def write_savedmodel(
    path: Path, model: Any, preprocessing: Preprocessing, class_names: Sequence[str], *, precision: str
) -> bool:
    """Write a float32 Keras model to the new folder `path`; return whether it has a signature `features`.

    - `serving_default`: `images` float32 [n, h, w, c], pixels 0..255 of any height and width, rounded to whole numbers;
      gives `probabilities` and `logits`, float32 [n, classes].
    - `image_bytes`: `image_bytes` string [n], JPEG or PNG files; gives `probabilities` [n, classes], `labels` (string) and
      `scores` [n, k] of the k = min(5, classes) best, and `status` int32 [n]: 0, or why a file got no answer, whose other
      outputs are zeros and empty strings then.
    - `features`: `images` as above; gives `features` float32 [n, d], the pooled map that the classifier sees. Where it has one.

    Class names and preprocessing lie in `assets/`.
    """
    with tempfile.TemporaryDirectory(prefix="reszoo-assets-") as assets:
        names_file, preprocessing_file = Path(assets) / "class_names.txt", Path(assets) / "preprocessing.json"
        names_file.write_text("".join(f"{name}\n" for name in class_names), encoding="utf-8")
        write_json(preprocessing_file, preprocessing.to_dict())
        classifier = Classifier(model, preprocessing, class_names, names_file, preprocessing_file)
        signatures = {"serving_default": classifier.serving_default, "image_bytes": classifier.image_bytes}
        if (features := getattr(classifier, "features", None)) is not None:
            signatures["features"] = features
        tf.saved_model.save(classifier, str(path), signatures=signatures)
        return features is not None
