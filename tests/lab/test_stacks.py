"""Stacks of blocks against closed forms and NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from reszoo.lab.stacks import (
    FORMS,
    LINEAR,
    LINEAR_RESIDUAL,
    LINEAR_SMALL,
    PLAIN,
    PLAIN_IDENTITY,
    RESIDUAL,
    RESIDUAL_SMALL,
    RESIDUAL_ZERO,
    Form,
    Stacks,
    fit,
)
from tests.models.helpers import images as normal


def test_a_plain_block_can_be_the_identity_exactly() -> None:
    stacks = Stacks(PLAIN_IDENTITY, depth=5, width=4, hidden=9, seeds=[0, 1])
    x = 100 * normal((2, 50, 4))
    np.testing.assert_array_equal(stacks(tf.constant(x)), x)
    np.testing.assert_array_equal(stacks.relative_change(tf.constant(x)), 0)


def test_forms_differ_in_block_and_start_alone() -> None:
    made = {form: [np.asarray(w) for w in Stacks(form, 4, 8, 16, [3]).weights] for form in FORMS}
    for form, (first, bias, second, shift) in made.items():
        assert first.shape == (4, 1, 8, 16) and bias.shape == (4, 1, 1, 16)
        assert second.shape == (4, 1, 16, 8) and shift.shape == (4, 1, 1, 8)
        if form is not PLAIN_IDENTITY:
            np.testing.assert_array_equal(first, made[PLAIN][0])
        assert not bias.any() and not shift.any()
    second = {form: weights[2] for form, weights in made.items()}
    np.testing.assert_array_equal(second[RESIDUAL], second[PLAIN])
    np.testing.assert_allclose(second[RESIDUAL_SMALL], second[PLAIN] / 2)
    np.testing.assert_allclose(second[LINEAR], second[PLAIN] / 2**0.5, rtol=1e-6)
    np.testing.assert_allclose(second[LINEAR_SMALL], second[LINEAR_RESIDUAL] / 2)
    assert not second[RESIDUAL_ZERO].any()


@pytest.mark.parametrize(
    ("form", "growth"),
    [(PLAIN, 1), (LINEAR, 1), (RESIDUAL, 16), (LINEAR_RESIDUAL, 16), (RESIDUAL_SMALL, 1.25**4)],
)
def test_random_blocks_multiply_the_mean_square_as_designed(form: Form, growth: float) -> None:
    stacks = Stacks(form, depth=4, width=32, hidden=64, seeds=range(20))
    squares = np.mean(np.square(stacks(tf.constant(normal((20, 100, 32))))))
    assert squares == pytest.approx(growth, rel=0.15)


@pytest.mark.parametrize("form", [PLAIN, RESIDUAL, LINEAR_RESIDUAL])
def test_states_are_those_of_the_formula(form: Form) -> None:
    x = normal((1, 7, 3))
    stacks = Stacks(form, depth=2, width=3, hidden=6, seeds=[5])
    for seed, weight in enumerate(stacks.weights):
        weight.assign(normal(tuple(weight.shape), seed=seed))
    wanted, moved = x[0].astype(np.float64), []
    for block in range(2):
        first, bias, second, shift = (
            np.asarray(weight)[block, 0].astype(np.float64) for weight in stacks.weights
        )
        inner = wanted @ first + bias
        out = (inner if form.linear else np.maximum(inner, 0)) @ second + shift
        out = out + wanted if form.residual else out
        moved.append(np.linalg.norm(out - wanted) / np.linalg.norm(wanted))
        wanted = out
    np.testing.assert_allclose(stacks(tf.constant(x))[0], wanted, rtol=1e-4, atol=1e-4)
    change = stacks.relative_change(tf.constant(x))
    np.testing.assert_allclose(change, [np.mean(moved)], rtol=1e-4)


def test_a_member_trains_as_if_alone_even_beside_one_that_diverges() -> None:
    x, y = normal((3, 6, 4)), normal((3, 6, 4), seed=1)
    y[1, 0, 0] = np.inf

    def train(members: list[int]) -> tuple[Stacks, list[int]]:
        stacks, evaluated = Stacks(RESIDUAL, 3, 4, 8, members), []
        weight = np.full((len(members), 6, 1), 1 / 6, np.float32)
        batch = (x[members], y[members], weight)
        fit(stacks, lambda step: batch, 10, 0.01, 4, evaluated.append)
        return stacks, evaluated

    together, evaluated = train([0, 1, 2])
    assert evaluated == [0, 4, 8, 10]
    for member in (0, 2):
        alone, _ = train([member])
        for every, own in zip(together.weights, alone.weights, strict=True):
            one, other = np.asarray(every)[:, member], np.asarray(own)[:, 0]
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert not np.isfinite(np.asarray(together.weights[0])[:, 1]).all()


def test_one_linear_residual_block_reaches_least_squares() -> None:
    x, noise = normal((1, 30, 3)), normal((1, 30, 3), seed=1)
    y = x @ normal((3, 3), seed=2) + 0.3 * noise + 1
    # Twenty examples of weight 0 do not count.
    padded = [np.concatenate([part, 9 * normal((1, 20, 3), seed=3)], axis=1) for part in (x, y)]
    weight = np.zeros((1, 50, 1), np.float32)
    weight[:, :30] = 1 / 30
    stacks = Stacks(LINEAR_RESIDUAL, 1, 3, 6, [0])
    fit(stacks, lambda step: (*padded, weight), 1500, 0.02, 1500, lambda step: None)
    design = np.concatenate([x[0], np.ones((30, 1))], axis=1)
    best = design @ np.linalg.lstsq(design, y[0], rcond=None)[0]
    np.testing.assert_allclose(stacks(tf.constant(x))[0], best, atol=2e-3)
