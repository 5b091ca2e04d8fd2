"""Small stacks of fully connected blocks, plain and residual, many trained side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from reszoo.types import Array, Tensor


@dataclass(frozen=True)
class Form:
    """What a block is and where it starts.

    F(x) = relu(x W1 + b1) W2 + b2, without the ReLU if `linear`. A block returns F(x), or x + F(x)
    if `residual`. All forms have the same parameters.

    Attributes:
        name: As records and reports call it.
        residual: Whether x is added.
        linear: Whether F has no ReLU.
        start: "random"; "small": Var W2 is divided by the depth; "zero": W2 = 0, so F = 0;
            "identity": F(x) = x by `identity_weights`.
    """

    name: str
    residual: bool = False
    linear: bool = False
    start: str = "random"


PLAIN = Form("plain")
RESIDUAL = Form("residual", residual=True)
RESIDUAL_SMALL = Form("residual, small start", residual=True, start="small")
RESIDUAL_ZERO = Form("residual, zero start", residual=True, start="zero")
PLAIN_IDENTITY = Form("plain, identity start", start="identity")
LINEAR = Form("plain, linear", linear=True)
LINEAR_RESIDUAL = Form("residual, linear", residual=True, linear=True)
LINEAR_SMALL = Form("residual, linear, small start", residual=True, linear=True, start="small")
MAIN_FORMS = (PLAIN, RESIDUAL, RESIDUAL_SMALL, RESIDUAL_ZERO, PLAIN_IDENTITY)
FORMS = (*MAIN_FORMS, LINEAR, LINEAR_RESIDUAL, LINEAR_SMALL)

Weights = tuple[Array, Array, Array, Array]
Batch = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]


def initial_weights(form: Form, depth: int, width: int, hidden: int, seed: int) -> Weights:
    """Return W1 [depth, width, hidden], b1 [depth, 1, hidden], W2 [depth, hidden, width] and b2.

    Random weights are normal with mean 0; biases are 0. Var W1 = 1 / width, because no ReLU is
    before it. Var W2 = 2 / hidden after a ReLU, else 1 / hidden: a plain block then keeps the mean
    square of its input, and a residual one doubles it. With a small start all blocks together
    multiply it by less than e. All forms use the same normal numbers of a seed.

    Reference: arXiv 1502.01852, equation 10; arXiv 1901.09321, section 2.
    """
    if form.start == "identity":
        first, bias, second, shift = (
            np.repeat(part[None], depth, axis=0) for part in identity_weights(width, hidden)
        )
        return first, bias, second, shift
    draw = np.random.default_rng([seed, 1])
    first = draw.normal(0, width**-0.5, (depth, width, hidden)).astype(np.float32)
    scale = ((1 if form.linear else 2) / hidden) ** 0.5
    second = draw.normal(0, scale, (depth, hidden, width)).astype(np.float32)
    second *= np.float32({"random": 1, "small": depth**-0.5, "zero": 0}[form.start])
    zeros = np.zeros
    return (
        first,
        zeros((depth, 1, hidden), np.float32),
        second,
        zeros((depth, 1, width), np.float32),
    )


def identity_weights(width: int, hidden: int) -> Weights:
    """Return weights of one plain block that is exactly the identity: x = relu(x) - relu(-x).

    W1 = [I, -I] and W2 = [I; -I]; units beyond 2 width are 0. hidden is at least 2 width.
    """
    first = np.zeros((width, hidden), np.float32)
    first[:, :width], first[:, width : 2 * width] = np.eye(width), -np.eye(width)
    zeros = np.zeros
    return first, zeros((1, hidden), np.float32), first.T.copy(), zeros((1, width), np.float32)


class Stacks:
    """Stacks of one form and depth, one per entry of `seeds`: the members.

    Inputs and outputs are float32 [members, examples, width]. Members do not influence each other.
    """

    def __init__(
        self, form: Form, depth: int, width: int, hidden: int, seeds: Sequence[int]
    ) -> None:
        self.form, self.depth = form, depth
        members = [initial_weights(form, depth, width, hidden, seed) for seed in seeds]
        # One variable for all blocks and members keeps the optimizer to four updates per step.
        self.weights = [
            keras.Variable(np.stack(parts, axis=1), dtype="float32")
            for parts in zip(*members, strict=True)
        ]

    def states(self, x: Tensor) -> list[Tensor]:
        """Return the input of the first block and the output of each."""
        states = [x]
        blocks = zip(*[tf.unstack(weight.value) for weight in self.weights], strict=True)
        for first, bias, second, shift in blocks:
            inner = tf.matmul(states[-1], first) + bias
            branch = tf.matmul(inner if self.form.linear else tf.nn.relu(inner), second) + shift
            states.append(states[-1] + branch if self.form.residual else branch)
        return states

    def __call__(self, x: Tensor) -> Tensor:
        """Return the last block's output."""
        return self.states(x)[-1]

    def relative_change(self, x: Tensor) -> Array:
        """Return norm(H(x) - x) / norm(x) of a block H, mean over blocks, per member [members].

        Norms are roots of mean squares over the examples.
        """
        states = self.states(x)
        size = [tf.reduce_mean(tf.square(state), (1, 2)) for state in states[:-1]]
        moved = [
            tf.reduce_mean(tf.square(after - before), (1, 2))
            for before, after in zip(states, states[1:], strict=False)
        ]
        return np.asarray(tf.reduce_mean(tf.sqrt(tf.stack(moved) / tf.stack(size)), 0), np.float64)


def fit(
    stacks: Stacks,
    batch: Batch,
    steps: int,
    rate: float,
    every: int,
    evaluate: Callable[[int], None],
) -> None:
    """Train every member by Adam on its mean squared error.

    Args:
        stacks: The members.
        batch: Returns for a step (int32 scalar) inputs and targets [members, examples, width], and
            weights [members, examples, 1], which sum to 1 over a member's examples.
        steps: Number of updates.
        rate: The first learning rate; it falls to 0 on a half cosine.
        every: Steps between evaluations.
        evaluate: Called with the number of updates done: 0, every `every`, and `steps`.
    """
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps))
    optimizer.build(stacks.weights)

    def step(now: Tensor) -> Tensor:
        x, target, weight = batch(now)
        with tf.GradientTape() as tape:
            # Adam acts on each number alone, so the sum over members trains each as if alone.
            loss = tf.reduce_sum(tf.reduce_mean(weight * tf.square(stacks(x) - target), 2))
        gradients = tape.gradient(loss, [weight.value for weight in stacks.weights])
        optimizer.apply(gradients, stacks.weights)
        return now + 1

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def run(now: Tensor, end: Tensor) -> Tensor:
        return tf.while_loop(lambda now: now < end, lambda now: (step(now),), [now])

    # The concrete function, because TensorFlow warns of one trace per form and depth otherwise.
    run = run.get_concrete_function(*[tf.TensorSpec([], tf.int32)] * 2)
    evaluate(0)
    for now in range(0, steps, every):
        end = min(now + every, steps)
        run(tf.constant(now), tf.constant(end))
        evaluate(end)
