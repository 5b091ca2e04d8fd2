"""A SavedModel whose signatures are called by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import tensorflow as tf
from google.protobuf.json_format import MessageToDict
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from reszoo.errors import ReszooError
from reszoo.files import plain_folder
from reszoo.serving.versions import FILE
from reszoo.types import Array, JsonObject


class Servable:
    """A loaded SavedModel.

    Args:
        path: The folder of the SavedModel.

    Attributes:
        signatures: The input specs of each signature that can be called, by signature and input
            name.
        definitions: All signatures in the JSON form of TensorFlow Serving.

    Raises:
        ReszooError: TensorFlow cannot load the folder, or nothing in it can be called.
    """

    def __init__(self, path: Path) -> None:
        try:
            with plain_folder(path) as folder:
                # Kept: the signatures do not keep its variables alive.
                self._model = tf.saved_model.load(str(folder))
            defined = SavedModel.FromString((path / FILE).read_bytes()).meta_graphs[0].signature_def
        except Exception as error:  # the type depends on the damage
            reason = _first_line(error)
            raise ReszooError(
                f"TensorFlow {tf.__version__} cannot load {path}: {reason}"
            ) from error
        options = {
            "preserving_proto_field_name": True,
            "always_print_fields_with_no_presence": True,
        }
        self.definitions: JsonObject = {
            name: MessageToDict(defined[name], **options) for name in sorted(defined)
        }
        self.signatures: dict[str, dict[str, tf.TensorSpec]] = {
            name: {
                key: tf.TensorSpec(tf.TensorShape(info.tensor_shape), tf.as_dtype(info.dtype), key)
                for key, info in sorted(defined[name].inputs.items())
            }
            for name in sorted(self._model.signatures)
        }
        if not self.signatures:
            raise ReszooError(f"{path} has no signature that can be called")

    def call(self, signature: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs of a signature, sorted by name; half precision as float32.

        Raises:
            ReszooError: The graph rejects the inputs.
        """
        specs = self.signatures[signature]
        tensors = {name: tf.constant(value, specs[name].dtype) for name, value in inputs.items()}
        try:
            outputs = self._model.signatures[signature](**tensors)
        except tf.errors.OpError as error:
            reason = _first_line(error.message)
            raise ReszooError(f"the model rejects these inputs: {reason}") from error
        low = (tf.float16, tf.bfloat16)
        return {
            name: (tf.cast(value, tf.float32) if value.dtype in low else value).numpy()
            for name, value in sorted(outputs.items())
        }


def _first_line(error: object) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
