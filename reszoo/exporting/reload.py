"""A program of its own: loads an exported net where neither Keras nor reszoo can be imported, and runs it on images.

    python reload.py EXPORT FOLDER

FOLDER holds `float-<i>.npy` (float32 [n, h, w, c]) and `image-<i>` (files); the outputs go to FOLDER/outputs.npz under
`float-<i>/<output>` and `bytes/<output>` (all files in one call, in order), strings left out.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main(export: str, folder: str) -> None:
    """Run both signatures of the SavedModel `export` on what lies in `folder`."""
    for name in ("keras", "tf_keras", "reszoo"):
        sys.modules[name] = None  # type: ignore[assignment]  # an import of it now fails
    import numpy as np
    import tensorflow as tf

    signatures = (loaded := tf.saved_model.load(export)).signatures
    outputs = {}
    for path in sorted(Path(folder).glob("float-*.npy")):
        images = tf.constant(np.load(path, allow_pickle=False))
        for name, value in signatures["serving_default"](images=images).items():
            outputs[f"{path.stem}/{name}"] = value.numpy()
    files = [path.read_bytes() for path in sorted(Path(folder).glob("image-*"))]
    for name, value in signatures["image_bytes"](image_bytes=tf.constant(files)).items():
        if value.dtype != tf.string:
            outputs[f"bytes/{name}"] = value.numpy()
    del loaded  # held until here: the signatures do not keep its variables alive
    np.savez(Path(folder) / "outputs.npz", **outputs)


if __name__ == "__main__":
    main(*sys.argv[1:])
