"""Tangent kernels against wide finite models, and against limits that follow by hand."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from reszoo.lab.tangent_kernel import plain_kernel, residual_kernel

WIDTH, DEPTH, SCALE, COSINE = 1024, 3, 0.5, 0.4


@pytest.mark.parametrize("kind", ["plain", "residual"])
def test_a_kernel_is_that_of_a_wide_model(kind: str) -> None:
    """The inner product of a wide model's gradients at two inputs, by automatic differentiation."""
    tf.random.set_seed(1)
    inputs = tf.constant([[1.0, 0.0], [COSINE, (1 - COSINE**2) ** 0.5]])
    shapes = [(2, WIDTH), *[(WIDTH, WIDTH)] * 6, (WIDTH, 1)]
    first, *inner, last = (tf.random.normal(shape, seed=1) for shape in shapes)
    gradients = []
    for x in (inputs[:1], inputs[1:]):
        with tf.GradientTape() as tape:
            learned = [first, *inner[:2], last] if kind == "plain" else inner
            tape.watch(learned)
            x = x @ first
            if kind == "plain":
                for matrix in (*inner[:2], last):
                    x = tf.nn.relu(x) @ matrix * (2 / WIDTH) ** 0.5
            else:
                for down, up in zip(inner[::2], inner[1::2], strict=True):
                    hidden = tf.nn.relu(x @ down * (2 / WIDTH) ** 0.5)
                    x += SCALE * hidden @ up * WIDTH**-0.5
                x = x @ last * WIDTH**-0.5
        gradients.append([np.ravel(each) for each in tape.gradient(x, learned)])
    products = np.array([[sum(map(np.dot, a, b)) for b in gradients] for a in gradients])
    found = products[0, 1] / np.sqrt(products[0, 0] * products[1, 1])
    cosine = np.array([COSINE, 1.0])
    if kind == "plain":
        expected = plain_kernel(cosine, DEPTH)
    else:
        expected = residual_kernel(cosine, DEPTH, SCALE)
    assert found == pytest.approx(expected[0], abs=0.04)
    assert expected[1] == pytest.approx(1)


def test_deep_plain_kernels_forget_their_inputs_and_residual_ones_do_not() -> None:
    """Near cosine 1 the recursion of a plain kernel is that of depth / 4; a single block is exact."""
    cosine = np.array([0.1, 0.5, 0.9])
    np.testing.assert_allclose(plain_kernel(cosine, 4000), 0.25, atol=0.003)
    np.testing.assert_allclose(residual_kernel(cosine, 4000, 1.0), 0.25, atol=0.004)
    angle = np.pi - np.arccos(cosine)
    single = (np.sqrt(1 - cosine**2) + 2 * cosine * angle) / (2 * np.pi)
    np.testing.assert_allclose(residual_kernel(cosine, 1, 1.0), single, rtol=1e-12)
    np.testing.assert_allclose(residual_kernel(cosine, 4000, 1 / 4000), single, atol=1e-3)
