"""What an exported net can be asked: float images or the bytes of image files in, probabilities and labels out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import tensorflow as tf

from reszoo.data.header import MAX_PIXELS, pixel_count
from reszoo.data.preprocessing import Preprocessing

TOP = 5
OK, UNDECODABLE, TOO_LARGE = 0, 1, 2

Net: TypeAlias = Callable[[Any], tuple[Any, Any]]
"""From float32 [n, h, w, c] to logits [n, classes] and pooled features [n, d], or None."""


class Classifier(tf.Module):
    """A net with its preprocessing and class names, in TensorFlow operations alone.

    `parameters` are the tf.Variables that `net` reads; `pooled` says whether it gives features, without which `features` is None.
    `class_names` and `preprocessing` are written by the caller to the files `names_file` and `preprocessing_file`, which become
    assets of the SavedModel.
    """

    def __init__(
        self,
        net: Net,
        parameters: Sequence[Any],
        preprocessing: Preprocessing,
        class_names: Sequence[str],
        names_file: Path,
        preprocessing_file: Path,
        *,
        pooled: bool,
    ) -> None:
        super().__init__(name="reszoo_classifier")
        # The variables alone: a Keras object in the tree would be written with Keras' own records around it.
        self.parameters = list(parameters)
        self.class_names_file = tf.saved_model.Asset(str(names_file))
        self.preprocessing_file = tf.saved_model.Asset(str(preprocessing_file))
        classes, top = len(class_names), min(TOP, len(class_names))

        def run(inputs: Any) -> tuple[Any, Any]:
            rows = tf.shape(inputs)[0]
            # Convolutions on a processor fail on no rows at all; one row of zeros is computed and dropped instead.
            inputs = tf.pad(inputs, [[0, tf.cast(rows == 0, tf.int32)], [0, 0], [0, 0], [0, 0]])
            logits, vectors = net(inputs)
            return tf.ensure_shape(logits[:rows], (None, classes)), vectors[
                :rows
            ] if pooled else None

        def prepared(images: Any) -> Any:
            return tf.map_fn(preprocessing.from_image, images, fn_output_signature=tf.float32)

        of_images = tf.TensorSpec((None, None, None, preprocessing.channels), tf.float32, "images")

        @tf.function(input_signature=[of_images])
        def serving_default(images: Any) -> dict[str, Any]:
            logits, _ = run(prepared(images))
            return {"logits": logits, "probabilities": tf.nn.softmax(logits)}

        @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, "image_bytes")])
        def image_bytes(image_bytes: Any) -> dict[str, Any]:
            inputs, status = decode_rows(image_bytes, preprocessing)
            answered = (status == OK)[:, tf.newaxis]
            probabilities = tf.where(answered, tf.nn.softmax(run(inputs)[0]), 0.0)
            best = tf.math.top_k(probabilities, k=top)
            names = tf.gather(tf.constant(list(class_names)), best.indices)
            return {
                "probabilities": probabilities,
                "labels": tf.where(answered, names, ""),
                "scores": best.values,
                "status": status,
            }

        @tf.function(input_signature=[of_images])
        def features(images: Any) -> dict[str, Any]:
            return {"features": run(prepared(images))[1]}

        self.serving_default = serving_default
        self.image_bytes = image_bytes
        self.features = features if pooled else None


def decode_rows(contents: Any, preprocessing: Preprocessing) -> tuple[Any, Any]:
    """Decode a batch of image files (string [n]) to a net's float32 inputs [n, h, w, c], and say how each went (int32 [n]).

    A row without an answer is all zeros; it does not fail the others. A graph cannot catch an error, but a tf.data
    pipeline can leave out the elements that fail: those that survive are put back at their index. A file of more than MAX_PIXELS
    pixels is not decoded at all.
    """
    count = tf.size(contents, out_type=tf.int64)
    zeros = tf.zeros(preprocessing.input_shape)

    def row(index: Any, contents: Any) -> tuple[Any, Any, Any]:
        pixels = pixel_count(contents)
        # TensorFlow would decode some GIFs too, of whose size nothing is known before.
        status = tf.where(pixels == 0, UNDECODABLE, tf.where(pixels > MAX_PIXELS, TOO_LARGE, OK))
        return (
            index,
            tf.cond(status == OK, lambda: preprocessing.from_bytes(contents), lambda: zeros),
            status,
        )

    decoded = (
        tf.data.Dataset.from_tensor_slices(contents)
        .enumerate()
        .map(row, num_parallel_calls=tf.data.AUTOTUNE)
        .ignore_errors()
        .concatenate(
            tf.data.Dataset.from_tensors((count, zeros, OK))
        )  # so that one batch comes out even of nothing
        .batch(count + 1)
    )
    index, inputs, status = decoded.get_single_element()
    where, rows = index[:, tf.newaxis], count + 1
    shape = tf.concat([[rows], tf.constant(preprocessing.input_shape, tf.int64)], axis=0)
    status = tf.tensor_scatter_nd_update(tf.fill([rows], UNDECODABLE), where, status)
    return tf.ensure_shape(
        tf.scatter_nd(where, inputs, shape)[:-1], (None, *preprocessing.input_shape)
    ), status[:-1]
