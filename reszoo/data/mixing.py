"""Mixup and CutMix: each image of a batch is mixed with the one at the mirrored place.

Reference: arXiv 1710.09412 (mixup), 1905.04899 (CutMix); timm 1.0.31, data/mixup.py.
"""

from __future__ import annotations

from typing import NamedTuple

from reszoo.config.augmentation import RandomChanges
from reszoo.data.erasing import find_inside
from reszoo.data.random_keys import fold_in
from reszoo.lazy import tf
from reszoo.types import Tensor


class Mix(NamedTuple):
    """How a batch is mixed.

    Attributes:
        share: What an image and its label keep, float64 []. 1: the batch is not mixed.
        box: The rectangle that comes from the partner, int32 [(y, x, height, width)]. Without one,
            of no size, whole images are mixed.
    """

    share: Tensor
    box: Tensor


def draw_mix(augment: RandomChanges, size: tuple[int, int], key: Tensor) -> Mix:
    """Draw how one batch is mixed.

    Args:
        augment: The parameters of mixup and CutMix, and how often each is used.
        size: Height and width of the images.
        key: Of the random numbers, int64 [2].
    """
    draws = tf.random.stateless_uniform([4], fold_in(key, 0), dtype=tf.float64)
    used = draws[0] < augment.mix_probability
    chance = augment.cutmix_probability if augment.mixup else 1.0
    cut = draws[1] < (chance if augment.cutmix else 0.0)
    alpha = tf.where(cut, augment.cutmix or 1.0, augment.mixup or 1.0)
    alpha = tf.cast(alpha, tf.float64)
    gammas = tf.random.stateless_gamma([2], fold_in(key, 1), alpha, dtype=tf.float64)
    share = gammas[0] / tf.reduce_sum(gammas)  # distributed as Beta(alpha, alpha)
    box = make_box(share, draws[2:], size)
    box = tf.where(used & cut, box, 0)
    kept = 1 - tf.cast(box[2] * box[3], tf.float64) / (size[0] * size[1])
    return Mix(tf.where(used, tf.where(cut, kept, share), 1.0), box)


def make_box(share: Tensor, place: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the rectangle around a random center that covers 1 - `share`, cut at the border.

    Args:
        share: Of the area to keep, float64 [].
        place: Where the center lies, float64 [2] in [0, 1).
        size: Height and width.

    Returns:
        int32 [(y, x, height, width)].
    """
    limits = tf.constant(size)
    sides = tf.cast(tf.cast(limits, tf.float64) * tf.sqrt(1 - share), tf.int32)
    center = tf.cast(tf.cast(limits, tf.float64) * place, tf.int32)
    first = tf.clip_by_value(center - sides // 2, 0, limits)
    last = tf.clip_by_value(center + (sides + 1) // 2, 0, limits)
    return tf.concat([first, last - first], axis=0)


def mix_images(images: Tensor, mix: Mix) -> Tensor:
    """Mix normalized images, float32 [n, h, w, c]."""
    inside = find_inside(mix.box, images.shape[1:3])[..., tf.newaxis]
    whole = mix.box[2] * mix.box[3] == 0
    partners = tf.reverse(images, axis=[0])
    share, rest = tf.cast(mix.share, tf.float32), tf.cast(1 - mix.share, tf.float32)
    mixed = images * share + partners * rest
    return tf.where(whole, mixed, tf.where(inside, partners, images))


def mix_labels(labels: Tensor, mix: Mix, classes: int) -> Tensor:
    """Return the soft targets of a mixed batch, float32 [n, classes].

    Args:
        labels: int32 [n], or float32 [n, classes] of images that have several classes.
        mix: How the batch is mixed.
        classes: The number of classes.
    """
    targets = labels if labels.dtype.is_floating else tf.one_hot(labels, classes)
    share, rest = tf.cast(mix.share, tf.float32), tf.cast(1 - mix.share, tf.float32)
    return targets * share + tf.reverse(targets, axis=[0]) * rest
