"""The signatures of a SavedModel: images or image files to probabilities and labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import tensorflow as tf

from reszoo.evaluation.multilabel import to_probabilities
from reszoo.exporting.formats import Artifact
from reszoo.images.formats import MAX_PIXELS
from reszoo.images.header import pixel_count
from reszoo.images.preprocessing import Preprocessing
from reszoo.types import Tensor, Variable

TOP = 5
OK, UNDECODABLE, TOO_LARGE = 0, 1, 2

Network: TypeAlias = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From inputs float32 [n, h, w, c] to logits [n, classes] and features [n, d]."""


class Classifier(tf.Module):  # type: ignore[misc]
    """A model with its preprocessing and class names, in TensorFlow operations alone.

    Args:
        network: Computes logits and features.
        parameters: The tf.Variables that `network` reads.
        artifact: What is exported.
        assets: Files that become assets of the SavedModel.
        with_features: Whether the signature `features` exists.
    """

    def __init__(
        self,
        network: Network,
        parameters: Sequence[Variable],
        artifact: Artifact,
        assets: Sequence[Path],
        *,
        with_features: bool,
    ) -> None:
        super().__init__(name="reszoo_classifier")
        # The variables alone: TensorFlow would save a Keras object with Keras' own records around
        # it.
        self.parameters = list(parameters)
        self.assets = [tf.saved_model.Asset(str(file)) for file in assets]
        preprocessing, names = artifact.preprocessing, list(artifact.class_names)
        shape = (None, None, None, preprocessing.channels)
        pixels = tf.TensorSpec(shape, tf.float32, "images")

        def run(inputs: Tensor) -> tuple[Tensor, Tensor]:
            rows = tf.shape(inputs)[0]
            # On a CPU convolutions fail without rows; one row of zeros is computed and dropped.
            inputs = tf.pad(inputs, [[0, tf.cast(rows == 0, tf.int32)], [0, 0], [0, 0], [0, 0]])
            logits, vectors = network(inputs)
            return tf.ensure_shape(logits[:rows], (None, len(names))), vectors[:rows]

        def prepare(images: Tensor) -> Tensor:
            return tf.map_fn(preprocessing.from_image, images, fn_output_signature=tf.float32)

        @tf.function(input_signature=[pixels])  # type: ignore[untyped-decorator]
        def serving_default(images: Tensor) -> dict[str, Tensor]:
            logits, _ = run(prepare(images))
            probabilities = to_probabilities(logits, multi_label=artifact.multi_label)
            return {"logits": logits, "probabilities": probabilities}

        @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, "image_bytes")])  # type: ignore[untyped-decorator]
        def image_bytes(image_bytes: Tensor) -> dict[str, Tensor]:
            inputs, status = decode_rows(image_bytes, preprocessing)
            answered = (status == OK)[:, tf.newaxis]
            found = to_probabilities(run(inputs)[0], multi_label=artifact.multi_label)
            probabilities = tf.where(answered, found, 0.0)
            best = tf.math.top_k(probabilities, k=min(TOP, len(names)))
            labels = tf.where(answered, tf.gather(tf.constant(names), best.indices), "")
            return {
                "probabilities": probabilities,
                "labels": labels,
                "scores": best.values,
                "status": status,
            }

        @tf.function(input_signature=[pixels])  # type: ignore[untyped-decorator]
        def features(images: Tensor) -> dict[str, Tensor]:
            return {"features": run(prepare(images))[1]}

        self.serving_default = serving_default
        self.image_bytes = image_bytes
        self.features = features if with_features else None


def decode_rows(contents: Tensor, preprocessing: Preprocessing) -> tuple[Tensor, Tensor]:
    """Decode image files, string [n], to inputs, float32 [n, h, w, c], and a status, int32 [n].

    A row that cannot be decoded is all zeros and does not fail the others. A graph cannot catch an
    error, but a tf.data pipeline can skip the elements that fail; those that remain are put
    back at their index. A file of more than MAX_PIXELS pixels is not decoded.
    """
    count = tf.size(contents, out_type=tf.int64)
    zeros = tf.zeros(preprocessing.input_shape)

    def decode(index: Tensor, contents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pixels = pixel_count(contents)  # 0 for GIFs, whose size TensorFlow would not check first
        status = tf.where(pixels == 0, UNDECODABLE, tf.where(pixels > MAX_PIXELS, TOO_LARGE, OK))
        row = tf.cond(status == OK, lambda: preprocessing.from_bytes(contents), lambda: zeros)
        return index, row, status

    decoded = (
        tf.data.Dataset.from_tensor_slices(contents)
        .enumerate()
        .map(decode, num_parallel_calls=tf.data.AUTOTUNE)
        .ignore_errors()
        # One more row, so that there is a batch even if nothing remains.
        .concatenate(tf.data.Dataset.from_tensors((count, zeros, OK)))
        .batch(count + 1)
    )
    index, inputs, status = decoded.get_single_element()
    where, rows = index[:, tf.newaxis], count + 1
    shape = tf.concat([[rows], tf.constant(preprocessing.input_shape, tf.int64)], axis=0)
    status = tf.tensor_scatter_nd_update(tf.fill([rows], UNDECODABLE), where, status)
    inputs = tf.scatter_nd(where, inputs, shape)[:-1]
    return tf.ensure_shape(inputs, (None, *preprocessing.input_shape)), status[:-1]
