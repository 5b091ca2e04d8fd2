"""What a user may write: a model, a dataset, an optimizer and so on, for references in recipes."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from reszoo.data.embedded import load_digits

constant = 3


def model(input_shape: tuple[int, int, int], classes: int, units: int = 8) -> keras.Model:
    images = keras.Input(input_shape)
    x = keras.layers.Dense(units, "relu")(keras.layers.Flatten()(images))
    return keras.Model(images, keras.layers.Dense(classes)(x), name="own")


def dataset() -> dict[str, Any]:
    splits = load_digits()
    return {name: (each.images[:256], each.labels[:256]) for name, each in splits.items()}


def sgd(learning_rate: float) -> keras.optimizers.Optimizer:
    return keras.optimizers.SGD(learning_rate, momentum=0.9)


def cosine(step: int, total_steps: int, rate: float) -> float:
    return rate * (1 + np.cos(np.pi * step / total_steps)) / 2


def loss(targets: Any, logits: Any) -> Any:
    return tf.nn.softmax_cross_entropy_with_logits(targets, logits)


def invert(image: Any) -> Any:
    return 255 - image


def noise(image: Any, seed: Any) -> Any:
    return image + tf.random.stateless_uniform(image.shape, seed, -20, 20)


def unseeded(image: Any, seed: Any) -> Any:
    return image + tf.random.uniform(image.shape)


class Steps(keras.callbacks.Callback):
    """Counts steps, and writes the count to the run folder."""

    def __init__(self, run_dir: str) -> None:
        super().__init__()
        self.run_dir, self.count = run_dir, 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.count += 1

    def on_train_end(self, logs: Any = None) -> None:
        with open(f"{self.run_dir}/steps.txt", "w") as file:
            file.write(str(self.count))


def wrong_loss(targets: Any, logits: Any) -> Any:
    return tf.reduce_mean(targets - logits)


def negative(step: int) -> float:
    return -1.0


def needs_more(learning_rate: float, momentum: float) -> None:
    raise AssertionError


def decays(learning_rate: float) -> keras.optimizers.Optimizer:
    return keras.optimizers.AdamW(learning_rate)


def floats() -> dict[str, Any]:
    return {"train": (np.zeros((2, 8, 8, 1)), [0, 1]), "test": (np.zeros((2, 8, 8, 1)), [0, 1])}
