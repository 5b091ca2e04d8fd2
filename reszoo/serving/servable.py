"""A SavedModel that is asked by signature; names, dtypes and shapes are those that it says itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import saved_model_pb2

from reszoo.errors import ReszooError
from reszoo.files import plain_folder
from reszoo.serving.versions import FILE


@dataclass(frozen=True)
class Tensor:
    """What goes in or comes out. shape: None for a side of any length; None altogether for any rank."""

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Signature:
    """What can be asked: inputs and outputs by name."""

    name: str
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]


class Servable:
    """A loaded SavedModel.

    `signatures` are those that can be called; `definitions` are all, in JSON as TensorFlow Serving spells them.
    Raises ReszooError for a folder that TensorFlow cannot load.
    """

    def __init__(self, path: Path) -> None:
        try:
            with plain_folder(path) as folder:
                self._model = tf.saved_model.load(str(folder))  # held: the signatures do not keep its variables alive
            saved = saved_model_pb2.SavedModel.FromString((path / FILE).read_bytes())
        except Exception as error:  # TensorFlow raises whatever the damage led to
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise ReszooError(f"TensorFlow {tf.__version__} cannot load {path}: {reason}") from error
        defined = saved.meta_graphs[0].signature_def
        self.definitions = {name: _definition(defined[name]) for name in sorted(defined)}
        self.signatures = {
            name: Signature(name, _tensors(defined[name].inputs), _tensors(defined[name].outputs))
            for name in sorted(self._model.signatures)
        }
        if not self.signatures:
            raise ReszooError(f"{path} has no signature that could be asked")

    def call(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs, sorted by name; half precision as float32.

        Raises ReszooError where the graph refuses the values.
        """
        given = {name: tf.constant(value, self._dtype(signature, name)) for name, value in inputs.items()}
        try:
            outputs = self._model.signatures[signature](**given)
        except tf.errors.OpError as error:
            reason = next(iter(str(error.message).strip().splitlines()), type(error).__name__)
            raise ReszooError(f"the net refuses this: {reason}") from error
        halves = (tf.float16, tf.bfloat16)
        return {
            name: (tf.cast(value, tf.float32) if value.dtype in halves else value).numpy()
            for name, value in sorted(outputs.items())
        }

    def _dtype(self, signature: str, name: str) -> Any:
        return tf.as_dtype(self.signatures[signature].inputs[name].dtype)


def _tensors(infos: Any) -> dict[str, Tensor]:
    return {
        name: Tensor(
            name,
            tf.as_dtype(infos[name].dtype).name,
            None
            if (shape := infos[name].tensor_shape).unknown_rank
            else tuple(None if dim.size < 0 else dim.size for dim in shape.dim),
        )
        for name in sorted(infos)
    }


def _definition(signature: Any) -> dict[str, Any]:
    def told(infos: Any) -> dict[str, Any]:
        return {
            name: {
                "dtype": types_pb2.DataType.Name(infos[name].dtype),
                "tensor_shape": {
                    "dim": [{"size": str(dim.size), "name": dim.name} for dim in infos[name].tensor_shape.dim],
                    "unknown_rank": infos[name].tensor_shape.unknown_rank,
                },
                "name": infos[name].name,
            }
            for name in sorted(infos)
        }

    return {
        "inputs": told(signature.inputs),
        "outputs": told(signature.outputs),
        "method_name": signature.method_name,
        "defaults": {},
    }
