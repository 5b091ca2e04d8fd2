"""A net as a SavedModel that brings its preprocessing and class names, for programs that have TensorFlow alone."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from reszoo.data.preprocessing import Preprocessing
from reszoo.exporting.half import SMALL, to_half
from reszoo.exporting.signatures import Classifier, Net
from reszoo.files import write_json
from reszoo.models.graph import producer


def write_savedmodel(
    path: Path,
    model: Any,
    preprocessing: Preprocessing,
    class_names: Sequence[str],
    *,
    precision: str,
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
    pooled = _pooled(model)
    net, parameters = (_halved if precision == "float16" else _whole)(model, pooled)
    with tempfile.TemporaryDirectory(prefix="reszoo-assets-") as assets:
        names_file, preprocessing_file = (
            Path(assets) / "class_names.txt",
            Path(assets) / "preprocessing.json",
        )
        names_file.write_text("".join(f"{name}\n" for name in class_names), encoding="utf-8")
        write_json(preprocessing_file, preprocessing.to_dict())
        classifier = Classifier(
            net,
            parameters,
            preprocessing,
            class_names,
            names_file,
            preprocessing_file,
            pooled=pooled is not None,
        )
        signatures = {
            "serving_default": classifier.serving_default,
            "image_bytes": classifier.image_bytes,
        }
        if classifier.features is not None:
            signatures["features"] = classifier.features
        tf.saved_model.save(classifier, str(path), signatures=signatures)
    return pooled is not None


def _pooled(model: Any) -> Any:
    """Return the tensor [n, d] that a model's closing classifier reads, or None where it does not close so."""
    last, sources = producer(model.outputs[0])
    return (
        sources[0] if isinstance(last, keras.layers.Dense) and len(sources[0].shape) == 2 else None
    )


def _whole(model: Any, pooled: Any) -> tuple[Net, list[Any]]:
    """Return the net on the model's own variables, and these."""
    both = keras.Model(
        model.inputs, [model.outputs[0], model.outputs[0] if pooled is None else pooled]
    )

    def net(inputs: Any) -> tuple[Any, Any]:
        logits, vectors = both(inputs, training=False)
        return tf.cast(logits, tf.float32), vectors

    return net, [variable.value for variable in both.variables]


def _halved(model: Any, pooled: Any) -> tuple[Net, list[Any]]:
    """Return the net on copies of the variables, the larger ones in float16, and these; it computes in float32."""
    both = keras.Model(
        model.inputs, [model.outputs[0], model.outputs[0] if pooled is None else pooled]
    )

    def kept(variable: Any) -> Any:
        value = variable.numpy()
        return tf.Variable(to_half(value) if value.size >= SMALL else value)

    trained, fixed = (
        list(map(kept, group)) for group in (both.trainable_variables, both.non_trainable_variables)
    )

    def net(inputs: Any) -> tuple[Any, Any]:
        values = ([tf.cast(one, tf.float32) for one in group] for group in (trained, fixed))
        (logits, vectors), _ = both.stateless_call(*values, inputs, training=False)
        return logits, vectors

    return net, trained + fixed
