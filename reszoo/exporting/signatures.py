"""What an exported net can be asked: float images or the bytes of image files in, probabilities and labels out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from reszoo.data.preprocessing import Preprocessing

TOP = 5
OK, UNDECODABLE = 0, 1


class Classifier(tf.Module):
    """A net with its preprocessing and class names, in TensorFlow operations alone.

    `model` maps float32 [n, h, w, c] to logits; `class_names` and `preprocessing` are written by the caller to the files
    `names_file` and `preprocessing_file`, which become assets of the SavedModel.
    """

    def __init__(
        self,
        model: Any,
        preprocessing: Preprocessing,
        class_names: Sequence[str],
        names_file: Path,
        preprocessing_file: Path,
    ) -> None:
        super().__init__(name="reszoo_classifier")
        # The variables alone: a Keras object in the tree would be written with Keras' own records around it.
        self.parameters = [variable.value for variable in model.variables]
        self.class_names_file = tf.saved_model.Asset(str(names_file))
        self.preprocessing_file = tf.saved_model.Asset(str(preprocessing_file))
        classes, top = len(class_names), min(TOP, len(class_names))

        def classify(inputs: Any) -> dict[str, Any]:
            rows = tf.shape(inputs)[0]
            # Convolutions on a processor fail on no rows at all; one row of zeros is computed and dropped instead.
            inputs = tf.pad(inputs, [[0, tf.cast(rows == 0, tf.int32)], [0, 0], [0, 0], [0, 0]])
            logits = tf.ensure_shape(tf.cast(model(inputs, training=False), tf.float32)[:rows], (None, classes))
            return {"logits": logits, "probabilities": tf.nn.softmax(logits)}

        @tf.function(input_signature=[tf.TensorSpec((None, None, None, preprocessing.channels), tf.float32, "images")])
        def serving_default(images: Any) -> dict[str, Any]:
            return classify(tf.map_fn(preprocessing.from_image, images, fn_output_signature=tf.float32))

        @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, "image_bytes")])
        def image_bytes(image_bytes: Any) -> dict[str, Any]:
            inputs, readable = decode_rows(image_bytes, preprocessing)
            probabilities = tf.where(readable[:, tf.newaxis], classify(inputs)["probabilities"], 0.0)
            best = tf.math.top_k(probabilities, k=top)
            names = tf.gather(tf.constant(list(class_names)), best.indices)
            return {
                "probabilities": probabilities,
                "labels": tf.where(readable[:, tf.newaxis], names, ""),
                "scores": best.values,
                "status": tf.where(readable, OK, UNDECODABLE),
            }

        self.serving_default = serving_default
        self.image_bytes = image_bytes


def decode_rows(contents: Any, preprocessing: Preprocessing) -> tuple[Any, Any]:
    """Decode a batch of image files (string [n]) to a net's float32 inputs [n, h, w, c], and say which were readable.

    An unreadable row is all zeros and False; it does not fail the others. A graph cannot catch an error, but a tf.data
    pipeline can leave out the elements that fail: those that survive are put back at their index.
    """
    count = tf.size(contents, out_type=tf.int64)
    zeros = tf.zeros(preprocessing.input_shape)
    decoded = (
        tf.data.Dataset.from_tensor_slices(contents)
        .enumerate()
        .map(lambda index, row: (index, preprocessing.from_bytes(row)), num_parallel_calls=tf.data.AUTOTUNE)
        .ignore_errors()
        .concatenate(tf.data.Dataset.from_tensors((count, zeros)))  # so that one batch comes out even of nothing
        .batch(count + 1)
    )
    index, inputs = decoded.get_single_element()
    where, rows = index[:, tf.newaxis], count + 1
    shape = tf.concat([[rows], tf.constant(preprocessing.input_shape, tf.int64)], axis=0)
    readable = tf.scatter_nd(where, tf.ones_like(index), [rows]) > 0
    return tf.ensure_shape(tf.scatter_nd(where, inputs, shape)[:-1], (None, *preprocessing.input_shape)), readable[:-1]
