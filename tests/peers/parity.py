"""Nets of other frameworks with random weights, converted both ways and compared. As a program, the table of docs/results:

    python -m tests.peers.parity --peer PYTHON --out docs/results/weights/parity.json

PYTHON is the interpreter of an environment with torch, torchvision, timm and safetensors.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reszoo import build, list_weights, spec
from reszoo.models.layers import GAMMA
from reszoo.weights.checkpoint import read_arrays
from reszoo.weights.convert import assign, export_arrays, variables

TOLERANCE = 1e-4  # of the largest number compared
TIMM_GAMMA = np.float64(1.7139588594436646)  # of ReLU in timm's nfnet.py


@dataclass(frozen=True)
class Row:
    """An architecture as one publisher has it: our name, the publisher's family and name, and the sizes compared at."""

    model: str
    family: str
    name: str
    sizes: tuple[int, int]

    @property
    def label(self) -> str:
        """How tests and tables call it."""
        return f"{self.family}-{self.model}"


def rows() -> list[Row]:
    """Return every model and layout that published weights have, by its publisher's name.

    The layout kerasio has no peer: its files hold their own model, with which
    tests/weights/test_keras_graph.py compares. Nor have the weights that the package trained.
    """
    found = {}
    for weights in list_weights():
        if weights.layout in ("kerasio", "reszoo"):
            continue
        name = weights.source.rsplit("/", 1)[-1].split(".")[0]
        if weights.layout == "torchvision":
            name = weights.model.removesuffix("_v1_5")
        elif weights.layout == "akamaster":
            name = weights.model.removeprefix("resnet")
        elif weights.layout == "keras":
            depth = weights.model.split("_")[0].removeprefix("resnet")
            name = f"ResNet{depth}V2" if "_v2_" in weights.model else f"ResNet{depth}"
        cifar = weights.data == "cifar10"
        row = Row(
            weights.model,
            weights.layout,
            name,
            (32, 27) if cifar else (weights.transforms.image_size[0], 97),
        )
        found.setdefault((row.model, row.family), row)
    return list(found.values())


class Peer:
    """The process of the other framework."""

    def __init__(self, python: str) -> None:
        script = Path(__file__).parent / "peer.py"
        self._process = subprocess.Popen(
            [python, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def ask(self, do: str, row: Row, folder: Path, **more: Any) -> dict[str, Any]:
        """Return the answer to one request, `more` being what it takes besides."""
        assert self._process.stdin and self._process.stdout
        asked = {
            "do": do,
            "family": row.family,
            "name": row.name,
            "folder": str(folder),
            "sizes": row.sizes,
        }
        asked["more"] = more
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "the peer's process ended"}
        if "error" in answer:
            raise AssertionError(f"{row.label}: {answer['error']}")
        return answer

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()


def relative(ours: Any, theirs: Any) -> float:
    """Return the largest difference over the largest number."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape and np.isfinite(ours).all() and np.isfinite(theirs).all()
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def in_float64(net: Any) -> Any:
    """Return a fresh net that computes in float64 throughout."""
    import keras

    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    try:
        return build(net, input_shape=(None, None, 3))
    finally:
        keras.config.set_dtype_policy(policy)


def gradient(answer: Any, images: Any, weights: Any) -> Any:
    """Return the gradient of a weighed sum of logits by the images, in float64."""
    import tensorflow as tf

    images = tf.constant(images, tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(images)
        weighed = tf.reduce_sum(tf.cast(answer(images), tf.float64) * tf.cast(weights, tf.float64))
    return tape.gradient(weighed, images)


def compare(row: Row, peer: Peer, *, gradients: bool = True) -> dict[str, Any]:
    """Convert a PyTorch net with random weights in, and one of ours out; return what differs.

    logits: of the converted net at the native and at an odd size, float32. gradient: of it by the images at the odd size, and
    back: the logits of our net in the other framework, both in float64, where rounding pushes nothing over a ReLU's kink.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        parameters = peer.ask("make", row, folder)["parameters"]
        net = spec(row.model)
        model = build(net, input_shape=(None, None, 3))
        fresh = [value.numpy() for _, value in variables(model)]
        begun = time.perf_counter()
        found = assign(model, net, read_arrays(folder / "net.safetensors"), layout=row.family)
        seconds = time.perf_counter() - begun
        assert found.complete, f"{row.label}: {found.reason}"
        result: dict[str, Any] = {
            "model": row.model,
            "layout": row.family,
            "peer": row.name,
            "parameters": parameters,
        }
        result |= {
            "sizes": list(row.sizes),
            "tensors": len(found.matched),
            "seconds": round(seconds, 3),
        }
        result["logits"] = 0.0
        exact, arrays = in_float64(net), read_arrays(folder / "net.safetensors")
        assert assign(exact, net, arrays).complete
        for name, variable in variables(exact):
            if name.endswith("/gain"):  # `assign` rounds this product to float32
                variable.assign(arrays[found.matched[name]].reshape(-1) * TIMM_GAMMA / GAMMA)
        for size in row.sizes:
            theirs = np.load(folder / f"{size}.npz")
            logits = model(theirs["images"], training=False)
            result["logits"] = max(result["logits"], relative(logits, theirs["logits"]))
        result["gradient"] = 0.0
        if gradients:
            mine = gradient(lambda x: exact(x, training=False), theirs["images"], theirs["weights"])
            result["gradient"] = relative(mine, theirs["gradient"])
        # The way back with other weights than those that came: our own start, the statistics and scales made random too.
        rng = np.random.default_rng(0)
        for (name, variable), start in zip(variables(model), fresh, strict=True):
            if "_bn" in name or "_gn" in name or name.endswith("/gain"):
                start = variable.numpy() * rng.uniform(0.8, 1.2, start.shape)
            variable.assign(start)
        exact.set_weights(model.get_weights())
        from safetensors.numpy import save_file

        save_file(export_arrays(model, net, row.family), folder / "ours.safetensors")
        logits = peer.ask("load", row, folder)["logits"]
        result["back"] = relative(logits, exact(theirs["images"], training=False))
        return result


def compare_keras(row: Row) -> dict[str, Any]:
    """Convert one of keras.applications' nets with random weights in, by the file that Keras saves; return what differs."""
    import keras

    rng = np.random.default_rng(0)
    theirs = getattr(keras.applications, row.name)(
        weights=None, include_top=True, classifier_activation=None
    )
    for layer in theirs.layers:
        for variable in layer.weights:
            shape = tuple(variable.shape)
            end = 0.3 if layer.name.endswith("_3_bn") else 1.0
            value = {
                "bias": lambda shape=shape: rng.normal(0, 0.1, shape),
                "beta": lambda shape=shape: rng.normal(0, 0.1, shape),
                "gamma": lambda shape=shape, end=end: rng.uniform(0.5, 1.5, shape) * end,
                "moving_mean": lambda shape=shape: rng.normal(0, 0.2, shape),
                "moving_variance": lambda shape=shape: rng.uniform(0.7, 1.4, shape),
            }.get(variable.name)
            if value:
                variable.assign(value())
    net = spec(row.model)
    model = build(net, input_shape=(None, None, 3))
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "theirs.weights.h5"
        theirs.save_weights(path)
        begun = time.perf_counter()
        found = assign(model, net, read_arrays(path), layout="keras")
        seconds = time.perf_counter() - begun
    assert found.complete, f"{row.label}: {found.reason}"
    # Keras' own net takes but one size with its classifier; it is cut, and the classifier applied by hand.
    kernel, bias = theirs.get_layer("predictions").get_weights()
    cut = getattr(keras.applications, row.name)(weights=None, include_top=False, pooling="avg")
    keras.config.set_dtype_policy("float64")
    cut64 = getattr(keras.applications, row.name)(weights=None, include_top=False, pooling="avg")
    keras.config.set_dtype_policy("float32")
    for net_of_keras in (cut, cut64):
        net_of_keras.set_weights(theirs.get_weights()[:-2])
    exact = in_float64(net)
    exact.set_weights(model.get_weights())
    result: dict[str, Any] = {"model": row.model, "layout": row.family, "peer": row.name}
    result |= {
        "parameters": sum(int(np.prod(v.shape)) for v in theirs.trainable_variables),
        "sizes": list(row.sizes),
    }
    result |= {
        "tensors": len(found.matched),
        "seconds": round(seconds, 3),
        "logits": 0.0,
        "gradient": 0.0,
    }
    back = export_arrays(model, net, "keras")
    ours = {f"{layer.name}/{v.name}": v.numpy() for layer in theirs.layers for v in layer.weights}
    assert back.keys() == ours.keys() and all((back[key] == ours[key]).all() for key in back)
    for size in row.sizes:
        images = rng.normal(size=(1, size, size, 3)).astype(np.float32)
        weights = rng.normal(size=(1, 1000))
        expected = cut(images, training=False) @ kernel + bias
        result["logits"] = max(result["logits"], relative(model(images, training=False), expected))
    mine = gradient(lambda x: exact(x, training=False), images, weights)
    theirs64 = gradient(
        lambda x: cut64(x, training=False) @ kernel.astype(float) + bias, images, weights
    )
    result["gradient"] = relative(mine, theirs64)
    return result | {"back": 0.0}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", required=True, help="the other environment's Python")
    parser.add_argument("--out", type=Path, required=True, help="where to write the record")
    parser.add_argument("--only", default="", help="rows whose label contains this")
    args = parser.parse_args()
    peer, results = Peer(args.peer), []
    for row in rows():
        if args.only not in row.label:
            continue
        results.append(compare_keras(row) if row.family == "keras" else compare(row, peer))
        shown = results[-1]
        told = "  ".join(f"{key} {shown[key]:.1e}" for key in ("logits", "gradient", "back"))
        print(f"{row.label:36} {told}  {shown['seconds']:.2f} s", flush=True)
    peer.close()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n    ".join(map(json.dumps, results))
    args.out.write_text(
        f'{{\n  "how": "python -m tests.peers.parity --peer PYTHON --out FILE",\n  "rows": [\n    {lines}\n  ]\n}}\n'
    )


if __name__ == "__main__":
    main()
