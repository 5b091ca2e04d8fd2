"""A SavedModel whose signatures are called by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.json_format import MessageToDict
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from reszoo.errors import ReszooError
from reszoo.files import plain_folder
from reszoo.serving.versions import FILE


class Servable:
    """A loaded SavedModel.

    Attributes:
        signatures: the input specs of each signature that can be called, by signature and input name.
        definitions: all signatures in the JSON form of TensorFlow Serving.
    """

    def __init__(self, path: Path) -> None:
        """Load the SavedModel in `path`.

        Raises:
            ReszooError: TensorFlow cannot load the folder, or nothing in it can be called.
        """
        try:
            with plain_folder(path) as folder:
                self._model = tf.saved_model.load(
                    str(folder)
                )  # kept: the signatures do not keep its variables alive
            defined = SavedModel.FromString((path / FILE).read_bytes()).meta_graphs[0].signature_def
        except Exception as error:  # the type depends on the damage
            raise ReszooError(
                f"TensorFlow {tf.__version__} cannot load {path}: {_first_line(error)}"
            ) from error
        self.definitions = {
            name: MessageToDict(
                defined[name],
                preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True,
            )
            for name in sorted(defined)
        }
        self.signatures = {
            name: {key: _spec(key, info) for key, info in sorted(defined[name].inputs.items())}
            for name in sorted(self._model.signatures)
        }
        if not self.signatures:
            raise ReszooError(f"{path} has no signature that can be called")

    def call(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs of a signature, sorted by name; half precision as float32.

        Raises:
            ReszooError: the graph rejects the inputs.
        """
        specs = self.signatures[signature]
        tensors = {name: tf.constant(value, specs[name].dtype) for name, value in inputs.items()}
        try:
            outputs = self._model.signatures[signature](**tensors)
        except tf.errors.OpError as error:
            raise ReszooError(
                f"the model rejects these inputs: {_first_line(error.message)}"
            ) from error
        halves = (tf.float16, tf.bfloat16)
        return {
            name: (tf.cast(value, tf.float32) if value.dtype in halves else value).numpy()
            for name, value in sorted(outputs.items())
        }


def _spec(name: str, info: Any) -> tf.TensorSpec:
    return tf.TensorSpec(tf.TensorShape(info.tensor_shape), tf.as_dtype(info.dtype), name)


def _first_line(error: object) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
