"""A program of its own: loads an exported net where neither Keras nor reszoo can be imported, and runs it on images.

    python reload.py savedmodel|litert|onnx EXPORT FOLDER

For a SavedModel FOLDER holds `float-<i>.npy` (float32 [n, h, w, c]) and `image-<i>` (files); for the others, which run where
TensorFlow cannot be imported either, `pixels.npy` (uint8 [n, height, width, c]). The outputs go to FOLDER/outputs.npz under
`float-<i>/<output>`, `bytes/<output>` (all files in order, strings left out) and `pixels/<output>`; `speed/<rows>` are images a
second in batches of so many rows. Everything is asked in batches of at most 32.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROWS = 32
SECONDS = 0.25  # for a speed, at least


def main(kind: str, export: str, folder: str) -> None:
    """Run the export on what lies in `folder`."""
    for name in ("keras", "tf_keras", "reszoo", *(() if kind == "savedmodel" else ("tensorflow",))):
        sys.modules[name] = None  # type: ignore[assignment]  # an import of it now fails
    import numpy as np

    np.savez(Path(folder) / "outputs.npz", **PROGRAMS[kind](export, Path(folder)))


def run_savedmodel(export: str, folder: Path) -> dict[str, Any]:
    """Ask every signature."""
    import numpy as np
    import tensorflow as tf

    signatures = (loaded := tf.saved_model.load(export)).signatures
    outputs: dict[str, Any] = {}
    for path in sorted(folder.glob("float-*.npy")):
        images = tf.constant(np.load(path, allow_pickle=False))
        for name in {"serving_default", "features"} & set(signatures):
            outputs |= {
                f"{path.stem}/{key}": value.numpy()
                for key, value in signatures[name](images=images).items()
            }
    files = [path.read_bytes() for path in sorted(folder.glob("image-*"))]
    asked = [signatures["image_bytes"](image_bytes=tf.constant(some)) for some in chunks(files)]
    for name, value in asked[0].items():
        if value.dtype != tf.string:
            outputs[f"bytes/{name}"] = np.concatenate([some[name].numpy() for some in asked])
    image = tf.constant(np.load(folder / "float-0000.npy", allow_pickle=False)[:1])
    outputs |= speeds(
        lambda rows: signatures["serving_default"](images=tf.repeat(image, rows, axis=0))
    )
    del loaded  # held until here: the signatures do not keep its variables alive
    return outputs


def run_litert(export: str, folder: Path) -> dict[str, Any]:
    """Ask the one signature, in the interpreter alone."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(export, num_threads=os.cpu_count())
    runner = interpreter.get_signature_runner("serving_default")
    dtype = runner.get_input_details()["images"]["dtype"]
    pixels = np.load(folder / "pixels.npy", allow_pickle=False)
    asked = [runner(images=some.astype(dtype)) for some in chunks(pixels)]
    outputs = {
        f"pixels/{name}": np.concatenate([some[name] for some in asked]) for name in asked[0]
    }
    return outputs | speeds(
        lambda rows: runner(images=np.repeat(pixels[:1], rows, axis=0).astype(dtype))
    )


def run_onnx(export: str, folder: Path) -> dict[str, Any]:
    """Ask the net, in onnxruntime on the processor."""
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(export, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    pixels = np.load(folder / "pixels.npy", allow_pickle=False)
    asked = [session.run(names, {"images": some.astype(np.float32)}) for some in chunks(pixels)]
    outputs = {
        f"pixels/{name}": np.concatenate([some[i] for some in asked])
        for i, name in enumerate(names)
    }
    return outputs | speeds(
        lambda rows: session.run(
            names, {"images": np.repeat(pixels[:1], rows, axis=0).astype(np.float32)}
        )
    )


PROGRAMS: dict[str, Callable[[str, Path], dict[str, Any]]] = {
    "savedmodel": run_savedmodel,
    "litert": run_litert,
    "onnx": run_onnx,
}


def chunks(images: Any) -> list[Any]:
    """Cut a sequence into pieces of ROWS; the last may be shorter."""
    return [images[start : start + ROWS] for start in range(0, len(images), ROWS)]


def speeds(run: Callable[[int], Any]) -> dict[str, float]:
    """Return images a second, one at a time and ROWS at a time: the middle of at least three calls after one to warm up."""
    found = {}
    for rows in (1, ROWS):
        run(rows)
        took: list[float] = []
        while len(took) < 3 or sum(took) < SECONDS:
            start = time.perf_counter()
            run(rows)
            took.append(time.perf_counter() - start)
        found[f"speed/{rows}"] = rows / sorted(took)[len(took) // 2]
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
