"""Keras' global settings: which of them a model follows, and a block in which none of them changes a result."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import keras

DATA_FORMAT = "channels_last"
FLOATX = "float32"
EPSILON = 1e-7

_lock = threading.Lock()
_depth = 0  # blocks of all threads that are open now
_before: dict[str, Any] = {}


@contextlib.contextmanager
def fixed_settings(policy: Any = FLOATX) -> Iterator[None]:
    """Compute inside the block under Keras' defaults and the dtype policy `policy`; restore the user's settings after it.

    Fixed are `image_data_format`, `floatx`, `epsilon` and `max_epochs`, wherever they come from (keras.json, the environment or
    `keras.config`). Blocks nest. The first three hold for all threads until the last block ends; the dtype policy is the
    thread's own, as in Keras. Also a decorator: `@fixed_settings()`.
    """
    outer = keras.config.dtype_policy()
    _enter()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(outer)
        _leave()


def building_policy() -> Any:
    """Return the dtype policy that new models follow: the global one, but float32 where it only repeats `floatx`.

    Keras derives its policy from `floatx` where no policy was set, so the two cannot be told apart when they are equal.
    """
    policy = keras.config.dtype_policy()
    return keras.DTypePolicy(FLOATX) if policy.name == keras.config.floatx() else policy


def _enter() -> None:
    global _depth
    with _lock:
        if _depth == 0:
            _before.update(
                image_data_format=keras.config.image_data_format(),
                floatx=keras.config.floatx(),
                epsilon=keras.config.epsilon(),
                max_epochs=keras.config.max_epochs(),
            )
            _set(image_data_format=DATA_FORMAT, floatx=FLOATX, epsilon=EPSILON, max_epochs=None)
        _depth += 1


def _leave() -> None:
    global _depth
    with _lock:
        _depth -= 1
        if _depth == 0:
            _set(**_before)


def _set(**settings: Any) -> None:
    for name, value in settings.items():
        getattr(keras.config, f"set_{name}")(value)
