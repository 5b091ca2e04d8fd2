"""Small stacks of fully connected blocks, plain and residual, many trained side by side that never meet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf


@dataclass(frozen=True)
class Form:
    """What a block is and where it starts; x goes to F(x) if plain, to x + F(x) if residual.

    F(x) = relu(x W1 + b1) W2 + b2, without the ReLU if linear: every form has the same parameters. start, with which `begin` deals:
    "random"; "small", Var W2 over the depth; "zero", W2 = 0, so F = 0; "identity", `identity_weights`, where F(x) = x.
    """

    name: str
    residual: bool = False
    linear: bool = False
    start: str = "random"


PLAIN = Form("plain")
RESIDUAL = Form("residual", residual=True)
SMALL = Form("residual, small start", residual=True, start="small")
ZERO = Form("residual, zero start", residual=True, start="zero")
HELD = Form("plain, identity start", start="identity")
LINEAR = Form("plain, linear", linear=True)
LINEAR_RESIDUAL = Form("residual, linear", residual=True, linear=True)
LINEAR_SMALL = Form("residual, linear, small start", residual=True, linear=True, start="small")
FORMS = (PLAIN, RESIDUAL, SMALL, ZERO, HELD, LINEAR, LINEAR_RESIDUAL, LINEAR_SMALL)

Weights = tuple[Any, Any, Any, Any]
Batch = Callable[[Any], tuple[Any, Any, Any]]


def begin(form: Form, depth: int, width: int, hidden: int, seed: int) -> Weights:
    """Return a stack's first weights W1 [depth, width, hidden], b1 [depth, 1, hidden], W2 [depth, hidden, width], b2, float32.

    Random weights are normal with mean 0, biases 0. Var W1 = 1 / width, for its input has no ReLU before it; Var W2 = 2 / hidden
    behind a ReLU (He et al., arXiv 1502.01852, eq. 10), 1 / hidden without: so a plain block keeps the mean square of its input,
    and a residual one doubles it. A small start divides Var W2 by the depth: all blocks together then grow it by less than e
    (arXiv 1901.09321, section 2, on why they must). The seed draws the same normal numbers for every form.
    """
    if form.start == "identity":
        one = identity_weights(width, hidden)
        return tuple(np.repeat(part[None], depth, axis=0) for part in one)  # type: ignore[return-value]
    draw = np.random.default_rng([seed, 1])
    first = draw.normal(0, width**-0.5, (depth, width, hidden)).astype(np.float32)
    second = draw.normal(
        0, ((1 if form.linear else 2) / hidden) ** 0.5, (depth, hidden, width)
    ).astype(np.float32)
    second *= np.float32({"random": 1, "small": depth**-0.5, "zero": 0}[form.start])
    return (
        first,
        np.zeros((depth, 1, hidden), np.float32),
        second,
        np.zeros((depth, 1, width), np.float32),
    )


def identity_weights(width: int, hidden: int) -> Weights:
    """Return weights with which a plain block is the identity, exactly: W1 = [I, -I], W2 = [I; -I], as x = relu(x) - relu(-x).

    Units beyond 2 width stay 0. hidden: at least 2 width.
    """
    first = np.zeros((width, hidden), np.float32)
    first[:, :width], first[:, width : 2 * width] = np.eye(width), -np.eye(width)
    return (
        first,
        np.zeros((1, hidden), np.float32),
        first.T.copy(),
        np.zeros((1, width), np.float32),
    )


class Stacks:
    """Stacks of one form and depth, one for each entry of `seeds`: the members.

    x and what comes out: float32 [members, examples, width]. No member's values or gradients reach another.
    """

    def __init__(
        self, form: Form, depth: int, width: int, hidden: int, seeds: Sequence[int]
    ) -> None:
        self.form, self.depth = form, depth
        members = [begin(form, depth, width, hidden, seed) for seed in seeds]
        # One variable for all blocks and members keeps the optimizer to four updates a step.
        self.weights = [
            keras.Variable(np.stack(parts, axis=1), dtype="float32")
            for parts in zip(*members, strict=True)
        ]

    def states(self, x: Any) -> list[Any]:
        """Return the input of the first block and the output of each."""
        states = [x]
        for first, bias, second, shift in zip(
            *[tf.unstack(weight.value) for weight in self.weights], strict=True
        ):
            inner = tf.matmul(states[-1], first) + bias
            branch = tf.matmul(inner if self.form.linear else tf.nn.relu(inner), second) + shift
            states.append(states[-1] + branch if self.form.residual else branch)
        return states

    def __call__(self, x: Any) -> Any:
        """Return the last block's output."""
        return self.states(x)[-1]

    def move(self, x: Any) -> np.ndarray:
        """Return norm(H(x) - x) / norm(x) of a block H, mean over blocks, for each member [members].

        Norms are roots of mean squares over the examples. For a residual block H(x) - x is F(x); for a plain one it is what
        F would have to be.
        """
        states = self.states(x)
        size = [tf.reduce_mean(tf.square(state), (1, 2)) for state in states[:-1]]
        moved = [
            tf.reduce_mean(tf.square(after - before), (1, 2))
            for before, after in zip(states, states[1:], strict=False)
        ]
        return np.asarray(tf.reduce_mean(tf.sqrt(tf.stack(moved) / tf.stack(size)), 0), np.float64)


def fit(
    stacks: Stacks, batch: Batch, steps: int, rate: float, every: int, look: Callable[[int], None]
) -> None:
    """Train every member for `steps` steps of Adam on its mean squared error, the rate falling to 0 on a half cosine.

    batch: of a step (int32 scalar), inputs and targets [members, examples, width] and weights [members, examples, 1], which sum
    to 1 over a member's examples. look: called with the steps done, at 0, after every `every` steps and at the end.
    """
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps))
    optimizer.build(stacks.weights)

    def step(now: Any) -> Any:
        x, target, weight = batch(now)
        with tf.GradientTape() as tape:
            # Adam acts on each number alone, so the sum over members trains each as if it were alone.
            loss = tf.reduce_sum(tf.reduce_mean(weight * tf.square(stacks(x) - target), 2))
        optimizer.apply(
            tape.gradient(loss, [weight.value for weight in stacks.weights]), stacks.weights
        )
        return now + 1

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def run(now: Any, end: Any) -> Any:
        return tf.while_loop(lambda now: now < end, lambda now: (step(now),), [now])

    # The concrete function, as TensorFlow warns of many traces otherwise: one for each form and depth there must be.
    run = run.get_concrete_function(*[tf.TensorSpec([], tf.int32)] * 2)
    look(0)
    for now in range(0, steps, every):
        end = min(now + every, steps)
        run(tf.constant(now), tf.constant(end))
        look(end)
