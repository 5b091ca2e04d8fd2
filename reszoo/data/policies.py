"""Which operations each image gets, and how strong they are: pure functions of a key.

The tables state the ranges and search results that the sources publish.

Reference: arXiv 1805.09501 (AutoAugment), 1909.13719 (RandAugment), 2103.10158 (TrivialAugment).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from reszoo.config.augmentation import RandomChanges
from reszoo.data.operations import AFFINE, OPERATIONS, apply_operations
from reszoo.data.random_keys import fold_in
from reszoo.lazy import tf
from reszoo.types import Array, Tensor

# Two steps each: operation, probability, and magnitude in 0..9 where the operation has one.
AUTO_CIFAR = """
invert .1, contrast .2 6
rotate .7 2, translate_x .3 9
sharpness .8 1, sharpness .9 3
shear_y .5 8, translate_y .7 9
auto_contrast .5, equalize .9
shear_y .2 7, posterize .3 7
color .4 3, brightness .6 7
sharpness .3 9, brightness .7 9
equalize .6, equalize .5
contrast .6 7, sharpness .6 5
color .7 7, translate_x .5 8
equalize .3, auto_contrast .4
translate_y .4 3, sharpness .2 6
brightness .9 6, color .2 8
solarize .5 2, invert 0
equalize .2, auto_contrast .6
equalize .2, equalize .6
color .9 9, equalize .6
auto_contrast .8, solarize .2 8
brightness .1 3, color .7 0
solarize .4 5, auto_contrast .9
translate_y .9 9, translate_y .7 9
auto_contrast .9, solarize .8 3
equalize .8, invert .1
translate_y .7 9, auto_contrast .9
"""
AUTO_IMAGENET = """
posterize .4 8, rotate .6 9
solarize .6 5, auto_contrast .6
equalize .8, equalize .6
posterize .6 7, posterize .6 6
equalize .4, solarize .2 4
equalize .4, rotate .8 8
solarize .6 3, equalize .6
posterize .8 5, equalize 1
rotate .2 3, solarize .6 8
equalize .6, posterize .4 6
rotate .8 8, color .4 0
rotate .4 9, equalize .6
equalize 0, equalize .8
invert .6, equalize 1
color .6 4, contrast 1 8
rotate .8 8, color 1 2
color .8 8, solarize .8 7
sharpness .4 7, invert .6
shear_x .6 5, equalize 1
color .4 0, equalize .6
equalize .4, solarize .2 4
solarize .6 5, auto_contrast .6
invert .6, equalize 1
color .6 4, contrast 1 8
equalize .8, equalize .6
"""
ENHANCE = ("brightness", "contrast", "color", "sharpness")
TRIVIAL = (
    *("identity", *AFFINE, *ENHANCE),
    *("posterize", "solarize", "auto_contrast", "equalize"),
)
RAND = (
    *("auto_contrast", "equalize", "invert", "rotate", "posterize", "solarize", "solarize_add"),
    *(*ENHANCE, "shear_x", "shear_y", "translate_x", "translate_y"),
)
JITTER = ("brightness", "contrast", "color", "hue")
TRIVIAL_LEVELS = 31
AUTO_LEVELS = 10


class Limits(NamedTuple):
    """The arguments at the greatest magnitude.

    Attributes:
        shear: Columns per row, or rows per column.
        translate: Pixels of height and width.
        degrees: Of a rotation.
        enhance: Distance of a factor from 1.
        bits: How many bits `posterize` removes.
    """

    shear: float
    translate: tuple[float, float]
    degrees: float
    enhance: float
    bits: int


TRIVIAL_LIMITS = Limits(shear=0.99, translate=(32, 32), degrees=135, enhance=0.99, bits=6)


def make_auto_limits(size: tuple[int, int]) -> Limits:
    """Return the limits of AutoAugment for images of a height and width."""
    height, width = (150 / 331 * length for length in size)
    return Limits(shear=0.3, translate=(height, width), degrees=30, enhance=0.9, bits=4)


class Drawn(NamedTuple):
    """What `apply_policy` does: int32 and float64 [n, layers], as `apply_operations` takes them."""

    kinds: Tensor
    arguments: Tensor


def apply_policy(images: Tensor, drawn: Drawn, fill: Sequence[int], interpolation: str) -> Tensor:
    """Apply the operations of each image, one layer after the other; see `apply_operations`."""
    for kinds, arguments in zip(
        tf.unstack(drawn.kinds, axis=1), tf.unstack(drawn.arguments, axis=1), strict=True
    ):
        images = apply_operations(images, kinds, arguments, fill, interpolation)
    return images


def draw_policy(
    augment: RandomChanges, count: int | Tensor, size: tuple[int, int], key: Tensor
) -> Drawn:
    """Draw what the policy of a recipe does to each of `count` images.

    Args:
        augment: The policy and its settings.
        count: How many images.
        size: Their height and width.
        key: Of the random numbers, int64 [2].
    """
    if augment.policy == "rand":
        return _draw_rand(augment, count, size, key)
    if augment.policy == "trivial":
        return _draw_trivial(count, key)
    steps = AUTO_CIFAR if augment.policy == "auto_cifar" else AUTO_IMAGENET
    return _draw_auto(steps, count, size, key)


def draw_jitter(strengths: Sequence[float], count: int | Tensor, key: Tensor) -> Drawn:
    """Draw factors of brightness, contrast, color and a turn of hue, and the order of the four.

    Args:
        strengths: The greatest distance of each factor from 1, and the greatest turn of the hue as
            a part of a circle. Operations of strength 0 are left out.
        count: How many images.
        key: Of the random numbers, int64 [2].

    Reference: torchvision 0.29, transforms.ColorJitter.
    """
    used = [at for at, strength in enumerate(strengths) if strength]
    draws = tf.random.stateless_uniform([count, 2, len(used)], key, dtype=tf.float64)
    order = tf.argsort(draws[:, 0], axis=-1)
    reach = np.array([strengths[at] for at in used])
    low = np.where(np.array(used) < 3, np.maximum(1 - reach, 0), -reach)
    high = np.where(np.array(used) < 3, 1 + reach, reach)
    amounts = low + draws[:, 1] * (high - low)
    hue = np.array([JITTER[at] == "hue" for at in used])
    amounts = tf.where(hue, tf.cast(tf.cast(amounts * 255, tf.int32), tf.float64), amounts)
    kinds = tf.constant(_find_kinds([JITTER[at] for at in used]), tf.int32)
    return Drawn(tf.gather(kinds, order), tf.gather(amounts, order, batch_dims=1))


def _find_kinds(names: Sequence[str]) -> list[int]:
    return [OPERATIONS.index(name) for name in names]


def compute_arguments(name: str, strength: Array | float, limits: Limits) -> Array:
    """Return the arguments [..., 2] of an operation, of either sign, for strengths in 0..1."""
    strength = np.asarray(strength, np.float64)
    height, width = limits.translate
    reach = {"shear_x": limits.shear, "shear_y": limits.shear, "rotate": limits.degrees}
    if name in reach:
        amount = strength * reach[name]
    elif name in ("translate_x", "translate_y"):  # whole pixels, as torchvision
        amount = np.trunc(strength * (width if name == "translate_x" else height))
    elif name in ENHANCE:
        return np.stack([1 + strength * limits.enhance, 1 - strength * limits.enhance], axis=-1)
    else:
        ranges = {
            "posterize": 8 - np.round(strength * limits.bits),
            "solarize": 255 * (1 - strength),
        }
        amount = ranges.get(name, np.zeros_like(strength))
        return np.stack([amount, amount], axis=-1)
    return np.stack([amount, -amount], axis=-1)


def _draw_trivial(count: int | Tensor, key: Tensor) -> Drawn:
    """Draw one operation of uniform magnitude.

    Reference: arXiv 2103.10158, table 1 (wide); torchvision 0.29, TrivialAugmentWide.
    """
    strengths = np.linspace(0, 1, TRIVIAL_LEVELS)
    arguments = np.stack([compute_arguments(name, strengths, TRIVIAL_LIMITS) for name in TRIVIAL])
    draws = tf.random.stateless_uniform([count, 1, 3], key, dtype=tf.float64)
    places = tf.cast(draws * arguments.shape, tf.int32)
    kinds = tf.gather(tf.constant(_find_kinds(TRIVIAL), tf.int32), places[..., 0])
    return Drawn(kinds, tf.gather_nd(tf.constant(arguments), places))


def _draw_auto(steps: str, count: int | Tensor, size: tuple[int, int], key: Tensor) -> Drawn:
    """Draw one pair of steps; each is applied with its own probability.

    Reference: arXiv 1805.09501; torchvision 0.29, AutoAugment.
    """
    limits = make_auto_limits(size)
    pairs = [[step.split() for step in line.split(",")] for line in steps.split("\n") if line]
    kinds = tf.constant([_find_kinds([step[0] for step in pair]) for pair in pairs], tf.int32)
    chances = tf.constant([[float(step[1]) for step in pair] for pair in pairs], tf.float64)
    strengths = [[[*step, "0"][2] for step in pair] for pair in pairs]
    arguments = np.array(
        [
            [
                compute_arguments(step[0], int(strength) / (AUTO_LEVELS - 1), limits)
                for step, strength in zip(pair, both, strict=True)
            ]
            for pair, both in zip(pairs, strengths, strict=True)
        ]
    )
    draws = tf.random.stateless_uniform([count, 5], key, dtype=tf.float64)
    pair = tf.cast(draws[:, 0] * len(pairs), tf.int32)
    chosen = tf.where(draws[:, 1:3] < tf.gather(chances, pair), tf.gather(kinds, pair), 0)
    signs = tf.cast(draws[:, 3:] < 0.5, tf.int32)
    return Drawn(chosen, tf.gather(tf.gather(arguments, pair), signs, batch_dims=2))


def _draw_rand(
    augment: RandomChanges, count: int | Tensor, size: tuple[int, int], key: Tensor
) -> Drawn:
    """Draw operations whose strength grows with the magnitude, which varies by normal noise.

    Reference: timm 1.0.31, data/auto_augment.py (`rand-m9-mstd0.5-inc1`).
    """
    shape = [count, augment.rand_layers]
    draws = tf.random.stateless_uniform([*shape, 3], fold_in(key, 0), dtype=tf.float64)
    noise = tf.random.stateless_normal(shape, fold_in(key, 1), dtype=tf.float64)
    strength = (augment.rand_magnitude + augment.rand_noise * noise) / 10.0
    signs = tf.where(draws[..., 2] < 0.5, tf.ones_like(noise), -tf.ones_like(noise))
    arguments = compute_rand_arguments(tf.clip_by_value(strength, 0.0, 1.0), signs, size)
    choice = tf.cast(draws[..., 0] * len(RAND), tf.int32)
    kinds = tf.gather(tf.constant(_find_kinds(RAND), tf.int32), choice)
    kinds = tf.where(draws[..., 1] < augment.rand_probability, kinds, 0)
    return Drawn(kinds, tf.gather(arguments, choice, batch_dims=2))


def compute_rand_arguments(strength: Tensor, signs: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the argument of each operation of `RAND`, float64 [..., 15].

    Args:
        strength: In 0..1, float64 [...].
        signs: 1 or -1, float64 [...].
        size: Height and width of the images.
    """
    signed = strength * signs
    ranges = {
        "rotate": 30.0 * signed,
        "posterize": 4.0 - tf.floor(strength * 4.0),
        "solarize": 256.0 - tf.floor(strength * 256.0),
        "solarize_add": tf.floor(strength * 110.0),
        "shear_x": 0.3 * signed,
        "shear_y": 0.3 * signed,
        "translate_x": 0.45 * size[1] * signed,
        "translate_y": 0.45 * size[0] * signed,
        **dict.fromkeys(ENHANCE, tf.maximum(tf.constant(0.1, tf.float64), 1.0 + 0.9 * signed)),
    }
    return tf.stack([ranges.get(name, tf.zeros_like(strength)) for name in RAND], axis=-1)
