"""The loss scale of training in float16."""

from __future__ import annotations

from reszoo.lazy import tf
from reszoo.types import Tensor

START = 2.0**15
GROWTH_STEPS = 2000  # steps without overflow after which the scale doubles, as in PyTorch and Keras


class LossScale:
    """A factor on the loss that prevents underflow of float16 gradients; 1 if not `enabled`.

    Attributes:
        scale: The factor, a float32 variable.
        good_steps: Steps since the last change of the factor, an int32 variable.
    """

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled
        self.scale = tf.Variable(START if enabled else 1.0, trainable=False, name="loss_scale")
        self.good_steps = tf.Variable(0, trainable=False, name="calm_steps")

    def unscale(self, gradients: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Return the gradients of the unscaled loss, and whether all are finite (bool [])."""
        if not self.enabled:
            return gradients, tf.constant(True)
        gradients = [gradient / self.scale for gradient in gradients]
        finite = [tf.reduce_all(tf.math.is_finite(gradient)) for gradient in gradients]
        return gradients, tf.reduce_all(finite)

    def update(self, finite: Tensor) -> None:
        """Halve the factor after an overflow; double it after many steps without one."""
        good = tf.where(finite, self.good_steps + 1, 0)
        grown = good >= GROWTH_STEPS
        larger = tf.where(grown, self.scale * 2, self.scale)
        self.scale.assign(tf.where(finite, larger, tf.maximum(self.scale / 2, 1.0)))
        self.good_steps.assign(tf.where(grown, 0, good))
