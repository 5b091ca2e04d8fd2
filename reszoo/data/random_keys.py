"""Randomness without state: keys from a seed and integers, and permutations named by a key."""

from __future__ import annotations

from reszoo.lazy import tf
from reszoo.types import Tensor

# What a key is for: the order of an epoch, the crop of an example, the changes to a batch, which
# images start mirrored, the order of the images of a class.
ORDER, EXAMPLE, BATCH, MIRROR, SAMPLER = range(5)


def make_key(seed: int, *numbers: int | Tensor) -> Tensor:
    """Derive a key, int64 [2], from a seed and integers. Other integers give another key."""
    key = tf.constant([seed, 0], tf.int64)
    for number in numbers:
        key = fold_in(key, number)
    return key


def fold_in(key: Tensor, number: int | Tensor) -> Tensor:
    """Derive a key, int64 [2], from a key and an integer."""
    # Without the cast, TensorFlow would cut the key to 32 bits for an int32 number.
    return tf.random.experimental.stateless_fold_in(key, tf.cast(number, tf.int64))


def shuffle_indices(
    positions: Tensor, count: int | Tensor, key: Tensor, number: Tensor | None = None
) -> Tensor:
    """Map positions (int64, 0 ... count - 1) to indices by the permutation that `key` names.

    With `number`, int64 [n], position i is mapped by the permutation of count[i] that `key` and
    number[i] name.
    """
    # 8 rounds of the block cipher behind it. With the 4 of tf.random.experimental.index_shuffle,
    # batches of a class-sorted dataset of 1,437 had 1.44 times a fair shuffle's class variance, and
    # successive epochs correlated. With 8 rounds, neither happens.
    if number is None:
        seed = tf.concat([tf.constant([0], tf.int64), key], axis=0)
    else:
        seed = tf.stack(
            [number, *(tf.fill(tf.shape(number), each) for each in (key[0], key[1]))], 1
        )
    last = tf.cast(count - 1, tf.int64)
    return tf.raw_ops.RandomIndexShuffle(index=positions, seed=seed, max_index=last, rounds=8)
