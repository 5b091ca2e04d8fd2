"""A net from pixels to probabilities, for runtimes that decode and resize elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from reszoo.data.preprocessing import Preprocessing


class PixelClassifier(tf.Module):
    """`images` float32 [n, height, width, c], RGB or grey pixels 0..255 of the input's size, to `logits` and `probabilities`."""

    def __init__(self, model: Any, preprocessing: Preprocessing) -> None:
        super().__init__(name="reszoo_pixels")
        self.parameters = [variable.value for variable in model.variables]
        scale = (1 / (255 * preprocessing.std.astype(np.float64))).astype(np.float32)
        shift = (preprocessing.mean / preprocessing.std).astype(np.float32)

        @tf.function(
            input_signature=[
                tf.TensorSpec((None, *preprocessing.input_shape), tf.float32, "images")
            ]
        )
        def classify(images: Any) -> dict[str, Any]:
            if preprocessing.channel_order == "BGR":
                images = tf.reverse(images, axis=[-1])
            logits = tf.cast(model(images * scale - shift, training=False), tf.float32)
            return {"logits": logits, "probabilities": tf.nn.softmax(logits)}

        # Keras wraps a grouped convolution in a function for XLA, which no other runtime knows; traced so, it is a plain operation.
        before = tf.config.functions_run_eagerly()
        tf.config.run_functions_eagerly(True)
        try:
            classify.get_concrete_function()
        finally:
            tf.config.run_functions_eagerly(before)
        self.classify = classify
