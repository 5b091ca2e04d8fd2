"""A program that runs an exported model where neither Keras nor reszoo can be imported.

    python runtimes.py savedmodel|litert|onnx EXPORT FOLDER

For a SavedModel FOLDER holds `float-<i>.npy` (float32 [n, h, w, c]) and `image-<i>` (files). The
other formats run where TensorFlow cannot be imported either, on `pixels.npy` (uint8 [n, height,
width, c]). The outputs go to FOLDER/outputs.npz as `float-<i>/<output>`, `bytes/<output>` (all
files in order, without strings) and `pixels/<output>`; `speed/<rows>` are images per second in
batches of `rows`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reszoo.types import JsonMapping, JsonObject

ROWS = 32  # images per batch, at most
SECONDS = 0.25  # of a measurement of speed, at least


def main(kind: str, export: str, folder: str) -> None:
    """Run the export on what lies in `folder`."""
    for name in ("keras", "tf_keras", "reszoo", *(() if kind == "savedmodel" else ("tensorflow",))):
        sys.modules[name] = None  # type: ignore[assignment]  # an import of it now fails
    import numpy as np

    np.savez(Path(folder) / "outputs.npz", **PROGRAMS[kind](export, Path(folder)))


def run_savedmodel(export: str, folder: Path) -> JsonObject:
    """Run every signature of a SavedModel."""
    import numpy as np
    import tensorflow as tf

    loaded = tf.saved_model.load(export)  # kept: the signatures do not keep its variables alive
    outputs: JsonObject = {}
    for path in sorted(folder.glob("float-*.npy")):
        images = tf.constant(np.load(path, allow_pickle=False))
        for name in {"serving_default", "features"} & set(loaded.signatures):
            found = loaded.signatures[name](images=images)
            outputs |= {f"{path.stem}/{key}": value.numpy() for key, value in found.items()}
    files = [path.read_bytes() for path in sorted(folder.glob("image-*"))]

    def run_files(some: list[bytes]) -> JsonObject:
        found = loaded.signatures["image_bytes"](image_bytes=tf.constant(some))
        return {key: value.numpy() for key, value in found.items() if value.dtype != tf.string}

    def run_rows(rows: int) -> Any:
        return loaded.signatures["serving_default"](images=tf.repeat(image, rows, axis=0))

    image = tf.constant(np.load(folder / "float-0000.npy", allow_pickle=False)[:1])
    return outputs | run_batches("bytes", files, run_files) | measure_speed(run_rows)


def run_litert(export: str, folder: Path) -> JsonObject:
    """Run a LiteRT file."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(export, num_threads=os.cpu_count())
    runner = interpreter.get_signature_runner("serving_default")
    dtype = runner.get_input_details()["images"]["dtype"]
    return run_pixels(folder, lambda pixels: runner(images=pixels.astype(dtype)))


def run_onnx(export: str, folder: Path) -> JsonObject:
    """Run an ONNX file in onnxruntime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(export, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(pixels: Any) -> JsonObject:
        values = session.run(names, {"images": pixels.astype("float32")})
        return dict(zip(names, values, strict=True))

    return run_pixels(folder, run)


PROGRAMS: dict[str, Callable[[str, Path], JsonObject]] = {
    "savedmodel": run_savedmodel,
    "litert": run_litert,
    "onnx": run_onnx,
}


def run_pixels(folder: Path, run: Callable[[Any], JsonMapping]) -> JsonObject:
    """Run a model on the pixels of `folder`, and measure its speed."""
    import numpy as np

    pixels = np.load(folder / "pixels.npy", allow_pickle=False)
    speed = measure_speed(lambda rows: run(np.repeat(pixels[:1], rows, axis=0)))
    return run_batches("pixels", pixels, run) | speed


def run_batches(name: str, rows: Any, run: Callable[[Any], JsonMapping]) -> JsonObject:
    """Return the outputs of all rows, computed in batches."""
    import numpy as np

    found = [run(some) for some in chunks(rows)]
    return {f"{name}/{key}": np.concatenate([one[key] for one in found]) for key in found[0]}


def chunks(images: Any) -> list[Any]:
    """Cut a sequence into parts of ROWS; the last may be shorter."""
    return [images[start : start + ROWS] for start in range(0, len(images), ROWS)]


def measure_speed(run: Callable[[int], Any]) -> dict[str, float]:
    """Return the median images per second of at least three calls with 1 and with ROWS rows."""
    found = {}
    for rows in (1, ROWS):
        run(rows)
        seconds: list[float] = []
        while len(seconds) < 3 or sum(seconds) < SECONDS:
            start = time.perf_counter()
            run(rows)
            seconds.append(time.perf_counter() - start)
        found[f"speed/{rows}"] = rows / sorted(seconds)[len(seconds) // 2]
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
