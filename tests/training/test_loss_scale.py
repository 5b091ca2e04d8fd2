"""The loss scale of float16: halved by an overflow, doubled after many good steps."""

from __future__ import annotations

import pytest
import tensorflow as tf

from reszoo.training.loss_scale import GROWTH_STEPS, START, LossScale


def test_the_scale_follows_overflows_and_good_steps() -> None:
    scale = LossScale(enabled=True)
    scale.update(tf.constant(False))
    assert scale.scale.numpy() == START / 2 and scale.good_steps.numpy() == 0
    scale.good_steps.assign(GROWTH_STEPS - 2)
    for expected in (START / 2, START, START):  # doubled once, and counted anew
        scale.update(tf.constant(True))
        assert scale.scale.numpy() == expected
    assert scale.good_steps.numpy() == 1


def test_the_scale_stays_at_least_one() -> None:
    scale = LossScale(enabled=True)
    scale.scale.assign(1.0)
    scale.update(tf.constant(False))
    assert scale.scale.numpy() == 1


@pytest.mark.parametrize(("value", "finite"), [(2.0, True), (float("inf"), False)])
def test_gradients_are_unscaled_and_checked(value: float, finite: bool) -> None:
    scale = LossScale(enabled=True)
    gradients, found = scale.unscale([tf.constant([value * START]), tf.constant([START])])
    assert bool(found) is finite and gradients[1].numpy() == [1.0]
    unchanged, always = LossScale(enabled=False).unscale([tf.constant([value])])
    assert bool(always) and unchanged[0].numpy() == [value]
