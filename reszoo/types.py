"""Names for what the libraries' own types do not express."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import keras
    import numpy as np
    import tensorflow as tf

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"
"""A NumPy array."""

Tensor: TypeAlias = "tf.Tensor"
"""A tensor of TensorFlow, or in a traced function its symbol."""

Variable: TypeAlias = "keras.Variable | tf.Variable"
"""A variable of Keras or TensorFlow."""

Shape: TypeAlias = tuple[int | None, ...]
"""Sides of a tensor; None for any size."""

JsonObject: TypeAlias = dict[str, Any]
"""An object of a JSON file, such as a record or run.json."""

JsonMapping: TypeAlias = Mapping[str, Any]
"""A JSON object or a table of TOML that is only read."""
