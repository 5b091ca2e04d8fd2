"""Keras' global settings: the ones that models follow, and a block in which all are fixed."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import keras

from reszoo.types import JsonObject

DATA_FORMAT = "channels_last"
FLOATX = "float32"
EPSILON = 1e-7

_lock = threading.Lock()
_depth = 0  # blocks of all threads that are open now
_before: JsonObject = {}


@contextlib.contextmanager
def fixed_settings(policy: Any = FLOATX) -> Iterator[None]:
    """Use Keras' defaults and a dtype policy inside the block, and the user's settings after it.

    Fixed are `image_data_format`, `floatx`, `epsilon` and `max_epochs`, for all threads until the
    last block ends. The dtype policy belongs to the thread, as in Keras. Blocks nest. It is also a
    decorator: `@fixed_settings()`.

    Args:
        policy: A dtype policy of Keras, or its name.
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
    """Return the dtype policy of new models: the global one, float32 if it repeats `floatx`.

    Keras derives its policy from `floatx` if no policy was set, so equal ones may mean that.
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
