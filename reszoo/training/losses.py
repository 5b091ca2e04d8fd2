"""The loss of each image, from its target and the model's logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import keras

from reszoo.config.training import TrainConfig
from reszoo.errors import ReszooError, did_you_mean
from reszoo.lazy import tf
from reszoo.references import invalid_reference, is_reference
from reszoo.types import Tensor
from reszoo.validation.messages import show


def find_class_weights(
    setting: str | Mapping[str, float],
    class_names: Sequence[str],
    counts: Sequence[int],
    images: int = 0,
) -> list[float]:
    """Return the weight of each class in the loss; none if all classes count alike.

    Args:
        setting: `train.class_weights`.
        class_names: In label order.
        counts: Training images of each class; empty if they are unknown.
        images: All training images, if an image may have several classes; else 0.

    Raises:
        ReszooError: If the setting names another class, or needs counts that are unknown or 0.

    Reference: scikit-learn, `compute_class_weight`.
    """
    if setting == "none":
        return []
    if not isinstance(setting, str):
        for name in setting:
            if name not in class_names:
                near = did_you_mean(name, class_names) or f"; expected {', '.join(class_names[:9])}"
                raise ReszooError(f"train.class_weights: unknown class {show(name)}{near}")
        return [setting.get(name, 1.0) for name in class_names]
    if not counts or not min(counts):
        why = "a class without training images" if counts else "streamed images of unknown labels"
        example = f"train.class_weights={{{show(class_names[0])}=2.0}}"
        raise ReszooError(
            f'train.class_weights: "balanced" is invalid for {why}; expected a table. '
            f"Example: --set '{example}'"
        )
    if images:
        return [max(1, images - count) / count for count in counts]
    return [sum(counts) / (len(counts) * count) for count in counts]


def make_losses(
    train: TrainConfig, dtype: str, class_weights: Sequence[float] = ()
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a function from targets and logits, both [n, classes], to losses [n].

    Args:
        train: The kind of loss, label smoothing and threshold of the targets.
        dtype: Of the logits.
        class_weights: Factors on the losses, [classes]; none if all classes count alike. A soft
            target has the mean of them. With `bce`: of images that have the class.
    """
    if train.loss == "bce":
        return _make_multi_label(train, class_weights)
    plain = _make_plain(train, dtype)
    if not class_weights:
        return plain

    def weighted(targets: Tensor, logits: Tensor) -> Tensor:
        losses = plain(targets, logits)
        weights = tf.constant(class_weights, losses.dtype)
        return losses * tf.linalg.matvec(tf.cast(targets, losses.dtype), weights)

    return weighted


def _make_plain(train: TrainConfig, dtype: str) -> Callable[[Tensor, Tensor], Tensor]:
    smoothing = train.label_smoothing
    if train.loss == "categorical":
        losses: Callable[[Tensor, Tensor], Tensor] = keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=smoothing, reduction=None, dtype=dtype
        )
        return losses
    if is_reference(train.loss):
        return _make_own(train, dtype)
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


def _make_multi_label(
    train: TrainConfig, class_weights: Sequence[float]
) -> Callable[[Tensor, Tensor], Tensor]:
    smoothing = train.label_smoothing

    def multi_label(targets: Tensor, logits: Tensor) -> Tensor:
        targets = tf.cast(targets, logits.dtype) * (1 - smoothing) + smoothing / 2
        weights = tf.constant(class_weights or [1.0], logits.dtype)
        losses = tf.nn.weighted_cross_entropy_with_logits(targets, logits, weights)
        return tf.reduce_mean(losses, axis=-1)

    return multi_label


def _make_own(train: TrainConfig, dtype: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the user's loss, which gets smoothed targets, checked on zeros.

    Raises:
        ReszooError: If it does not return one number per image.
    """
    found = train.load_object("loss")
    if isinstance(found, type) and issubclass(found, keras.losses.Loss):
        found = found()
    if isinstance(found, keras.losses.Loss):
        found = found.call  # without the reduction

    def own(targets: Tensor, logits: Tensor) -> Tensor:
        targets = tf.cast(targets, logits.dtype)
        smoothing = train.label_smoothing
        if smoothing:
            targets = targets * (1 - smoothing) + smoothing / logits.shape[-1]
        return tf.cast(found(targets, logits), logits.dtype)

    zeros = tf.zeros((2, 3), dtype)
    try:
        shape = tuple(own(zeros, zeros).shape)
    except Exception as error:
        line = str(error).strip().partition("\n")[0]
        why = f"called with targets and logits, [2, 3], it raised {type(error).__name__}: {line}"
        raise invalid_reference("train.loss", train.loss, why) from error
    if shape != (2,):
        why = f"from targets and logits, [2, 3], it returned {shape}; expected one loss per image"
        raise invalid_reference("train.loss", train.loss, why)
    return own
