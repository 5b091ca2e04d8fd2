"""TensorFlow, imported when it is first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from reszoo.errors import ReszooError

if TYPE_CHECKING:
    import tensorflow as tf
else:

    class _TensorFlow:
        def __getattr__(self, name: str) -> Any:
            try:
                return getattr(importlib.import_module("tensorflow"), name)
            except ModuleNotFoundError as error:
                if error.name != "tensorflow":
                    raise
                raise ReszooError(
                    "this needs TensorFlow, which is not installed: pip install tensorflow"
                ) from error

    tf = _TensorFlow()


def check_backend(backend: str) -> None:
    """Raise ReszooError unless Keras' backend is TensorFlow."""
    if backend != "tensorflow":
        raise ReszooError(
            f"KERAS_BACKEND: {backend} is invalid; expected tensorflow, because under {backend} "
            "reszoo only builds models, which Model.fit trains (docs/training.md). Example: "
            "KERAS_BACKEND=tensorflow"
        )


__all__ = ["check_backend", "tf"]
