"""A model from pixels to probabilities, for runtimes that decode and resize elsewhere."""

from __future__ import annotations

import tensorflow as tf

from reszoo.evaluation.multilabel import to_probabilities
from reszoo.exporting.formats import Artifact
from reszoo.types import Tensor


class PixelClassifier(tf.Module):  # type: ignore[misc]
    """`classify` takes `images` float32 [n, height, width, c], pixels 0..255 of the input's size.

    It returns `logits` and `probabilities`, float32 [n, classes].
    """

    def __init__(self, artifact: Artifact) -> None:
        super().__init__(name="reszoo_pixels")
        model, preprocessing = artifact.model, artifact.preprocessing
        self.parameters = [variable.value for variable in model.variables]
        scale, shift = preprocessing.scale_and_shift
        shape = (None, *preprocessing.input_shape)

        @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32, "images")])  # type: ignore[untyped-decorator]
        def classify(images: Tensor) -> dict[str, Tensor]:
            if preprocessing.channel_order == "BGR":
                images = tf.reverse(images, axis=[-1])
            logits = tf.cast(model(images * scale - shift, training=False), tf.float32)
            probabilities = to_probabilities(logits, multi_label=artifact.multi_label)
            return {"logits": logits, "probabilities": probabilities}

        # Keras wraps a grouped convolution in a function for XLA, which other runtimes do not
        # support. Traced eagerly, it is a plain operation.
        before = tf.config.functions_run_eagerly()
        tf.config.run_functions_eagerly(True)
        try:
            classify.get_concrete_function()
        finally:
            tf.config.run_functions_eagerly(before)
        self.classify = classify
