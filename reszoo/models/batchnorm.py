"""Batch norm as one kernel on the TensorFlow backend, Keras' own layer everywhere else."""

from __future__ import annotations

import sys

import keras

from reszoo.types import Tensor

# Keras walks a functional graph by recursion, one frame per layer, and fails at Python's limit of
# 1,000, at a depth of about 280. The deepest model has 4,210 layers. Set here because loading a
# file imports only the registered layers.
sys.setrecursionlimit(max(sys.getrecursionlimit(), 10_000))


@keras.saving.register_keras_serializable(package="reszoo")
class BatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]
    """`keras.layers.BatchNormalization` with the same weights and results, in one fused operation.

    Weight files depend on the class name: a file written with either layer loads into the other.
    Keras' layer on TensorFlow is a chain of operations; `FusedBatchNormV3` does the same in one
    kernel, forward and backward, for inputs [n, height, width, channels]. Other ranks and other
    backends use Keras' own code. Synchronized statistics too, but with one collective per direction
    where Keras has three: between hosts, each takes over a millisecond.
    """

    def call(
        self, inputs: Tensor, training: bool | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Normalize, with TensorFlow's fused kernel where it applies."""
        if not self._fused(inputs, mask):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        learn = bool(training) and self.trainable
        output, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma.value,
            offset=self.beta.value,
            mean=tf.zeros([0]) if learn else self.moving_mean.value,
            variance=tf.zeros([0]) if learn else self.moving_variance.value,
            epsilon=self.epsilon,
            is_training=learn,
        )
        if learn:
            # The kernel returns the variance over n - 1; Keras' moving average is of that over n.
            rows = tf.cast(tf.reduce_prod(tf.shape(inputs)[:3]), tf.float32)
            variance *= (rows - 1) / rows
            keep = self.momentum
            self.moving_mean.assign(self.moving_mean.value * keep + mean * (1 - keep))
            self.moving_variance.assign(self.moving_variance.value * keep + variance * (1 - keep))
        return output

    def _moments(self, inputs: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return mean and variance [channels]; synchronized, those of all replicas."""
        context = None
        if self.synchronized and mask is None and keras.config.backend() == "tensorflow":
            import tensorflow as tf

            context = tf.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:
            moments: tuple[Tensor, Tensor] = super()._moments(inputs, mask)
            return moments
        rank, channels = len(inputs.shape), inputs.shape[self.axis]
        axes = [axis for axis in range(rank) if axis != self.axis % rank]
        total = tf.reduce_sum(inputs, axes)
        squares = tf.reduce_sum(tf.square(inputs), axes)
        count = tf.cast(tf.size(inputs) / channels, inputs.dtype)
        packed = tf.concat([total, squares, count[None]], 0)
        packed = context.all_reduce(tf.distribute.ReduceOp.SUM, packed)
        total, squares, count = tf.split(packed, [channels, channels, 1])
        mean = tf.math.divide_no_nan(total, count)
        variance = tf.math.divide_no_nan(squares, count) - tf.square(mean)
        return mean, tf.maximum(variance, 0.0)

    def _fused(self, inputs: Tensor, mask: Tensor | None) -> bool:
        return (
            keras.config.backend() == "tensorflow"
            and not self.synchronized
            and not self.renorm
            and mask is None
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and self.scale
            and self.center
            and self.variable_dtype == "float32"  # what the kernel takes
            and keras.backend.standardize_dtype(inputs.dtype) in ("float32", "bfloat16", "float16")
        )


def synchronize_batch_norm(model: keras.Model) -> None:
    """Make batch norm use the statistics of all replicas. Call it before the model is traced."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True
