"""`reszoo.data.keys` in NumPy, number for number: the same seed gives the same order and crops where there is no TensorFlow.

The generator is Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"); the permutations are those
of a Simon cipher (eprint 2013/404) over the least even number of bits that hold the indices, walked until an index is in range.
How seeds become keys is TensorFlow's: core/kernels/stateless_random_ops.cc and random_index_shuffle.cc.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

Key = tuple[int, int]  # two signed 64-bit numbers, as TensorFlow's stateless seeds

PHILOX_ROUNDS = 10
PHILOX_MULTIPLY = (0xD2511F53, 0xCD9E8D57)
PHILOX_WEYL = (0x9E3779B9, 0xBB67AE85)
SCRAMBLE = (0x3EC8F720, 0x02461E29)  # the key under which TensorFlow scrambles a seed

SIMON_ROUNDS = 8
SIMON_CONSTANT = 0xFFFFFFFC
SIMON_SEQUENCE = 0x7369F885192C0EF5
SIMON_LEAST_BITS = 16

LOW = 0xFFFFFFFF  # the lower of two words


def make_key(seed: int, *numbers: int) -> Key:
    """Derive a key from a seed and whole numbers; other numbers, another key."""
    key = (seed, 0)
    for number in numbers:
        key = fold(key, number)
    return key


def fold(key: Key, number: int) -> Key:
    """Derive a key from a key and a whole number."""
    seed, other, *start = _mixed(key)
    low, high, *_ = _philox((0, 0, *start), (seed, other))
    drawn = low | high << 32
    return drawn - (1 << 64 if drawn >> 63 else 0), number  # as a signed number


def uniform(shape: tuple[int, ...], key: Key) -> np.ndarray:
    """Draw float32 numbers of `shape`, uniform in [0, 1)."""
    count = math.prod(shape)
    words = _words(key, -(-count // 4)).ravel()[:count]
    mantissas = (words & np.uint32(0x7FFFFF)) | np.uint32(0x3F800000)  # 1.0 ... 2.0
    return (mantissas.view(np.float32) - np.float32(1)).reshape(shape)


def permutation(count: int, key: Key) -> np.ndarray:
    """Return the order of 0 ... count - 1 that `key` names: int64 [count].

    TensorFlow counts the bits of count - 1 one short where that is a power of 4 above 2**15: the last position then repeats the first.
    """
    last = np.uint64(count - 1)
    if count == 1:
        return np.zeros(1, np.int64)
    bits = math.ceil(math.log2(count - 1)) if count > 2 else 0
    word = max(bits + bits % 2, SIMON_LEAST_BITS) // 2
    keys = _round_keys((0, key[0] & LOW, key[1] & LOW), word)
    order = np.arange(count, dtype=np.uint64)
    out = np.ones(count, bool)
    while out.any():
        order[out] = _encrypt(order[out], keys, word)
        out = order > last
    return order.astype(np.int64)


def _words(key: Key, blocks: int) -> np.ndarray:
    """Return what a generator seeded by `key` gives first: uint32 [blocks, 4]."""
    seed, other, *start = _mixed(key)
    number = np.arange(blocks, dtype=np.uint64)
    zero = np.zeros_like(number)
    words = _philox((number, zero, zero + np.uint64(start[0]), zero + np.uint64(start[1])), (seed, other))
    return np.stack(words, axis=1).astype(np.uint32)


def _mixed(key: Key) -> tuple[int, int, int, int]:
    """Return the generator's own key of two words, and the last two of its four counters."""
    low, high = key[0] & LOW, key[0] >> 32 & LOW
    a, b, c, d = _philox((low, high, key[1] & LOW, key[1] >> 32 & LOW), SCRAMBLE)
    return a, b, c, d


def _philox(counter: Any, key: tuple[int, int]) -> Any:
    """Scramble a counter of four 32-bit words, or arrays (uint64) of such words, under a key of two."""
    (a, b, c, d), (k, m) = counter, key
    for _ in range(PHILOX_ROUNDS):
        left, right = a * PHILOX_MULTIPLY[0], c * PHILOX_MULTIPLY[1]
        a, b, c, d = right >> 32 ^ b ^ k, right & LOW, left >> 32 ^ d ^ m, left & LOW
        k, m = k + PHILOX_WEYL[0] & LOW, m + PHILOX_WEYL[1] & LOW
    return a, b, c, d


@functools.lru_cache(maxsize=8)
def _round_keys(key: tuple[int, int, int], word: int) -> tuple[int, ...]:
    mask = (1 << word) - 1
    keys = [part & mask for part in key]
    for index in range(3, SIMON_ROUNDS):
        bit = SIMON_SEQUENCE >> (index - 3) & 1
        before = keys[-1]
        turned = _rotate(before, word - 3, word) ^ _rotate(before, word - 4, word)
        keys.append((SIMON_CONSTANT & mask) ^ bit ^ keys[index - 3] ^ turned)
    return tuple(keys)


def _rotate(value: int, by: int, word: int) -> int:
    return (value << by | value >> (word - by)) & ((1 << word) - 1)


def _encrypt(values: np.ndarray, keys: tuple[int, ...], word: int) -> np.ndarray:
    """Encrypt blocks of two words: uint64 [n] in and out."""
    mask = np.uint64((1 << word) - 1)
    left, right = values >> np.uint64(word) & mask, values & mask

    def turned(x: np.ndarray, by: int) -> np.ndarray:
        by %= word
        return (x << np.uint64(by) | x >> np.uint64(word - by)) & mask

    for index in range(0, SIMON_ROUNDS, 2):
        left ^= (turned(right, 1) & turned(right, 8)) ^ turned(right, 2) ^ np.uint64(keys[index])
        right ^= (turned(left, 1) & turned(left, 8)) ^ turned(left, 2) ^ np.uint64(keys[index + 1])
    return left << np.uint64(word) | right
