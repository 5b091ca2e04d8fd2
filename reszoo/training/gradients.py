"""The gradient of the mean loss of a whole batch, of which each replica computes its share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import keras

from reszoo.config.training import TrainConfig
from reszoo.data.micro_batches import Part
from reszoo.lazy import tf
from reszoo.training.compiled import Compiled
from reszoo.training.forward import Forward
from reszoo.training.reduction import reduce_sums
from reszoo.types import Tensor, Variable

Gradients: TypeAlias = "tuple[list[Tensor], Tensor]"
"""One gradient per weight, and the sums [loss, right answers, images] (float64)."""


class LossGradient:
    """Computes the gradient in a step on every replica.

    Args:
        model: The model.
        weights: The weights to differentiate by.
        forward: Maps images to logits.
        training: Whether the model computes as in training; not in a linear probe.
        losses: Maps targets and logits to one loss per image.
        train: Accumulation, reduction and XLA.
        part: The part of every batch that this worker reads.
        images_on: The device that holds the batches; only a replica's share leaves it.
        statistics: Moving statistics, which are set to their mean over the replicas.
        multi_label: Whether an image may have several classes. Then it is right if all are.

    Attributes:
        weights: As given.
    """

    def __init__(
        self,
        model: keras.Model,
        weights: Sequence[Variable],
        forward: Forward,
        losses: Callable[[Tensor, Tensor], Tensor],
        train: TrainConfig,
        part: Part,
        images_on: str,
        statistics: Sequence[Variable],
        *,
        training: bool,
        multi_label: bool = False,
    ) -> None:
        self.weights, self._forward, self._losses = weights, forward, losses
        self._classes, self._part, self._images_on = model.output_shape[-1], part, images_on
        self._statistics, self._reduction = statistics if training else [], train.reduction
        self._training, self._multi_label = training, multi_label
        compute = self._differentiate
        self._compute: Callable[..., Gradients] = Compiled(model, compute) if train.jit else compute

    def __call__(self, images: Tensor, labels: Tensor, rows: Tensor, scale: Tensor) -> Gradients:
        """Return the batch's gradient, on every replica, and the sums of this one.

        Args:
            images: float32 [n, h, w, c].
            labels: int32 [n], or soft targets, float32 [n, classes].
            rows: Images in the whole batch.
            scale: The factor on the loss.
        """
        context = tf.distribute.get_replica_context()
        gradients: list[Tensor | None] = [None] * len(self.weights)
        sums = tf.zeros(3, tf.float64)
        for micro_batch in range(self._part.micro_batches):
            replica = context.replica_id_in_sync_group
            first, last, weight = self._part.local_share(rows, replica, micro_batch)
            with tf.device(self._images_on):  # only the share goes to the replica's device
                x = images[first:last]
            with tf.device("CPU:0"):
                y = labels[first:last]
            new, more = self._compute(x, y, rows, weight, scale)
            pairs = zip(gradients, new, strict=True)
            gradients = [added if known is None else known + added for known, added in pairs]
            sums += more
        if context.num_replicas_in_sync > 1:
            return reduce_sums(context, gradients, self._statistics, self._reduction), sums
        return gradients, sums

    @property
    def read(self) -> dict[int, Tensor]:
        """Values that the last call read from weights, by the weight's id.

        In a deep model, reading the weights a second time is a tenth of all operations.
        """
        return self._forward.values(training=self._training)

    def _differentiate(
        self, x: Tensor, y: Tensor, rows: Tensor, weight: Tensor, scale: Tensor
    ) -> Gradients:
        """Return the gradients and the sums of one micro-batch on one replica.

        Args:
            x: Images, float32 [n, h, w, c].
            y: Labels, int32 [n], or soft targets, float32 [n, classes].
            rows: Images in the whole batch, which divide the losses.
            weight: 1, or 0 for images that do not count.
            scale: The factor on the loss.
        """
        soft = y.dtype.is_floating
        # TensorFlow's variables ignore Keras' frozen layers; a tape would watch all of them.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            for each in self.weights:
                tape.watch(each.value)
            logits = self._forward(x, training=self._training)
            losses = self._losses(y if soft else tf.one_hot(y, self._classes), logits)
            losses *= tf.cast(weight, logits.dtype)
            mean = tf.reduce_sum(losses) / tf.cast(rows, logits.dtype)
            scaled = mean * tf.cast(scale, logits.dtype)
        gradients = tape.gradient(scaled, [variable.value for variable in self.weights])
        if self._multi_label:
            answered = tf.reduce_all((logits > 0) == (y > 0.5), axis=-1)
        else:
            answers = tf.argmax(y, -1, tf.int32) if soft else y
            answered = tf.argmax(logits, -1, tf.int32) == answers
        right = tf.cast(answered, tf.float64) * weight
        count = tf.cast(tf.shape(x)[0], tf.float64) * weight
        loss = tf.cast(tf.reduce_sum(losses), tf.float64)
        return gradients, tf.stack([loss, tf.reduce_sum(right), count])
