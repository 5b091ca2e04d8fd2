"""Models as SavedModels, with preprocessing and class names, that need TensorFlow alone."""

from __future__ import annotations

import tempfile
from pathlib import Path

import keras
import tensorflow as tf

from reszoo.exporting.float16 import to_float16
from reszoo.exporting.formats import Artifact
from reszoo.exporting.signatures import Classifier, Network
from reszoo.files import write_json
from reszoo.loading import quiet_logger
from reszoo.models.graph import producer
from reszoo.types import Tensor, Variable


def write_savedmodel(path: Path, artifact: Artifact) -> None:
    """Write an artifact to the new folder `path`.

    - `serving_default`: `images` float32 [n, h, w, c], pixels 0..255 of any height and width,
      rounded to whole numbers; returns `probabilities` and `logits`, float32 [n, classes].
    - `image_bytes`: `image_bytes` string [n], JPEG or PNG files; returns `probabilities` [n,
      classes], `labels` (string) and `scores` [n, k] of the k = min(5, classes) best, and `status`
      int32 [n]: 0, or why a file has no answer; its other outputs are then zeros and empty strings.
    - `features`: `images` as above; returns `features` float32 [n, d], which the classifier reads.
      Only if the model ends in a classifier.

    Class names and preprocessing are in `assets/`.
    """
    features = find_features(artifact.model)
    network, parameters = _make_network(artifact, features)
    with tempfile.TemporaryDirectory(prefix="reszoo-assets-") as folder:
        assets = write_assets(Path(folder), artifact)
        classifier = Classifier(
            network, parameters, artifact, assets, with_features=features is not None
        )
        names = ["serving_default", "image_bytes", *(["features"] if features is not None else [])]
        signatures = {name: getattr(classifier, name) for name in names}
        with quiet_logger("tensorflow"):
            tf.saved_model.save(classifier, str(path), signatures=signatures)


def write_assets(folder: Path, artifact: Artifact) -> list[Path]:
    """Write `class_names.txt` and `preprocessing.json` into a folder, and return the files."""
    names, preprocessing = folder / "class_names.txt", folder / "preprocessing.json"
    names.write_text("".join(f"{name}\n" for name in artifact.class_names), encoding="utf-8")
    write_json(preprocessing, artifact.preprocessing.to_dict())
    return [names, preprocessing]


def find_features(model: keras.Model) -> Tensor | None:
    """Return the tensor [n, d] that the classifier at the end reads, or None without one."""
    last, sources = producer(model.outputs[0])
    is_classifier = isinstance(last, keras.layers.Dense) and len(sources[0].shape) == 2
    return sources[0] if is_classifier else None


def _make_network(artifact: Artifact, features: Tensor | None) -> tuple[Network, list[Variable]]:
    """Return the network and its variables; in "float16", copies of which large ones are halved."""
    logits = artifact.model.outputs[0]
    both = keras.Model(artifact.model.inputs, [logits, logits if features is None else features])
    if artifact.precision != "float16":

        def network(inputs: Tensor) -> tuple[Tensor, Tensor]:
            logits, vectors = both(inputs, training=False)
            return tf.cast(logits, tf.float32), vectors

        return network, [variable.value for variable in both.variables]

    trained, fixed = (
        [tf.Variable(to_float16(variable.numpy())) for variable in group]
        for group in (both.trainable_variables, both.non_trainable_variables)
    )

    def halved(inputs: Tensor) -> tuple[Tensor, Tensor]:
        values = ([tf.cast(one, tf.float32) for one in group] for group in (trained, fixed))
        (logits, vectors), _ = both.stateless_call(*values, inputs, training=False)
        return logits, vectors

    return halved, trained + fixed
