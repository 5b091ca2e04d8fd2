"""Memory between the runs of one process."""

from __future__ import annotations

import gc

import keras


def release_memory() -> None:
    """Free what earlier models hold, so that many runs need no more memory than the largest."""
    policy = keras.config.dtype_policy()
    keras.backend.clear_session()  # resets the dtype policy too
    keras.config.set_dtype_policy(policy)
    gc.collect()
