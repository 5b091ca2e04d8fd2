"""The loss of each image, from its target and the model's logits."""

from __future__ import annotations

from collections.abc import Callable

import keras

from reszoo.config.training import TrainConfig
from reszoo.lazy import tf
from reszoo.types import Tensor


def make_losses(train: TrainConfig, dtype: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a function from targets and logits, both [n, classes], to losses [n].

    Args:
        train: The kind of loss, label smoothing and threshold of the targets.
        dtype: Of the logits.
    """
    smoothing = train.label_smoothing
    if train.loss == "categorical":
        losses: Callable[[Tensor, Tensor], Tensor] = keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=smoothing, reduction=None, dtype=dtype
        )
        return losses
    combine = tf.reduce_mean if train.loss == "binary" else tf.reduce_sum

    def binary(targets: Tensor, logits: Tensor) -> Tensor:
        """Reference: timm 1.0.31, loss/binary_cross_entropy.py."""
        targets = tf.cast(targets, logits.dtype)
        targets = targets * (1 - smoothing) + smoothing / logits.shape[-1]
        if train.target_threshold:
            targets = tf.cast(targets > train.target_threshold, logits.dtype)
        losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=logits)
        return combine(losses, axis=-1)

    return binary
