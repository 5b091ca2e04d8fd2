"""Exported nets against each other and against peers' runtimes: speed turn by turn, and how far each format and precision is from Keras.

    python tests/bench/export.py speed OUT.json --peer PYTHON [--rounds 8]
    python tests/bench/export.py fold OUT.json [--rounds 8]
    python tests/bench/export.py parity OUT.json --data folder:cifar10-jpeg

speed: resnet50 at 224 x 224 (random weights), batches of 1 and 32. Ours are what `reszoo export` writes, normalisation included;
PYTHON is an environment with torch, torchvision, onnx, onnxscript, onnxruntime and, if it is to take part, openvino. fold:
SavedModels with and without their normalisations folded. parity: published CIFAR weights in every format and precision. Every
runtime has a process and two threads of its own; in a round each takes one turn, so that a drift of the machine's speed meets all.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reszoo.versions import module_versions

THREADS = 2
TURN = 2.0  # seconds of a turn, about


# What runs in the children: no reszoo here, peers' environments lack it.


def child(kind: str, path: str, size: int, rows: int) -> None:
    """Prepare one runtime, then run so many calls a line of standard input asks and say the seconds."""
    import numpy as np

    pixels = np.random.default_rng(0).uniform(0, 255, (rows, size, size, 3)).astype(np.float32)
    normal = np.ascontiguousarray((pixels.transpose(0, 3, 1, 2) / 255 - 0.45) / 0.225)
    call, version = RUNTIMES[kind](path, pixels, normal)
    call()
    print(json.dumps({"version": version}), flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            call()
        print(time.perf_counter() - start, flush=True)


def _savedmodel(path: str, pixels: Any, normal: Any) -> tuple[Callable[[], Any], str]:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    net = tf.saved_model.load(path)
    images = tf.constant(pixels)
    return lambda: net.signatures["serving_default"](images=images)["logits"].numpy(), f"tensorflow {tf.__version__}"


def _litert(path: str, pixels: Any, normal: Any) -> tuple[Callable[[], Any], str]:
    import ai_edge_litert
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path, num_threads=THREADS)
    (given,) = interpreter.get_input_details()
    interpreter.resize_tensor_input(given["index"], pixels.shape)
    interpreter.allocate_tensors()
    images = pixels.astype(given["dtype"])

    def call() -> None:
        interpreter.set_tensor(given["index"], images)
        interpreter.invoke()

    return call, f"ai-edge-litert {ai_edge_litert.__version__}"


def _onnx(path: str, images: Any) -> tuple[Callable[[], Any], str]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: images}), f"onnxruntime {onnxruntime.__version__}"


def _torch(path: str, pixels: Any, normal: Any, *, last: bool) -> tuple[Callable[[], Any], str]:
    import torch
    import torchvision

    torch.set_num_threads(THREADS)
    model, images = torchvision.models.resnet50().eval(), torch.from_numpy(normal)
    if last:
        model, images = model.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)

    def call() -> None:
        with torch.inference_mode():
            model(images)

    return call, f"torch {torch.__version__}"


def _openvino(path: str, pixels: Any, normal: Any) -> tuple[Callable[[], Any], str]:
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": THREADS, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    model = core.compile_model(core.read_model(path), "CPU", settings)
    return lambda: model([normal]), f"openvino {openvino.__version__.partition('-')[0]}"


RUNTIMES: dict[str, Callable[[str, Any, Any], tuple[Callable[[], Any], str]]] = {
    "savedmodel": _savedmodel,
    "litert": _litert,
    "onnx": lambda path, pixels, normal: _onnx(path, pixels),
    "peer-onnx": lambda path, pixels, normal: _onnx(path, normal),
    "peer-torch": lambda path, pixels, normal: _torch(path, pixels, normal, last=False),
    "peer-torch-last": lambda path, pixels, normal: _torch(path, pixels, normal, last=True),
    "peer-openvino": _openvino,
}

EXPORT_PEER = """
import sys, torch, torchvision
n = torch.export.Dim("n")
net = torchvision.models.resnet50().eval()
torch.onnx.export(net, (torch.zeros(2, 3, 224, 224),), sys.argv[1], input_names=["images"], dynamic_shapes=({0: n},), external_data=False)
"""


# What runs here.


class Runtime:
    """A child of `child`."""

    def __init__(self, python: str, kind: str, path: str, size: int, rows: int) -> None:
        self.rows = rows
        environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [python, __file__, "child", kind, path, str(size), str(rows)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        assert self._process.stdout
        first = self._process.stdout.readline()
        if not first:
            raise RuntimeError(f"{kind} did not start: {' '.join(command)}")
        self.version = json.loads(first)["version"]
        self.calls = max(1, round(TURN / self.seconds(2) * 2))

    def seconds(self, calls: int) -> float:
        assert self._process.stdin and self._process.stdout
        print(calls, file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())

    def turn(self) -> float:
        """Images a second."""
        return self.rows * self.calls / self.seconds(self.calls)

    def end(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def by_turns(runtimes: dict[str, Runtime], rounds: int, base: list[str]) -> dict[str, Any]:
    """Images a second of each, and its ratio to the best of `base` in the same round."""
    found: dict[str, list[float]] = {name: [] for name in runtimes}
    for number in range(rounds):
        names = list(runtimes)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            found[name].append(runtimes[name].turn())
            time.sleep(0.05)
        print(f"\rround {number + 1} of {rounds}", end="", file=sys.stderr)
    print(file=sys.stderr)
    best = max(base, key=lambda name: statistics.median(found[name]))
    rows = {}
    for name, speeds in found.items():
        ratios = sorted(own / other for own, other in zip(speeds, found[best], strict=True))
        rows[name] = {
            "runtime": runtimes[name].version,
            "images_per_second": round(statistics.median(speeds), 1),
            "ratio": round(statistics.median(ratios), 3),
            "ratio_range": [round(ratios[0], 3), round(ratios[-1], 3)],
        }
    for one in runtimes.values():
        one.end()
    return {"compared_with": best, "rounds": rounds, "rows": rows}


def write(name: str, out: Path, **options: Any) -> str:
    """Export a net of random weights; return what is to be loaded."""
    import keras
    import numpy as np

    import reszoo
    from reszoo.data.preprocessing import Preprocessing
    from reszoo.exporting.export import export_model
    from reszoo.exporting.samples import photographs

    size = reszoo.spec(name).default_input_shape[0]
    mean, std = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
    prepared = Preprocessing(image_size=(size, size), channels=3, resize=size, mean=mean, std=std)
    keras.utils.set_random_seed(0)
    net = reszoo.build(name)
    names = tuple(map(str, range(net.output_shape[-1])))
    ranges = photographs() if options.get("quantize") == "int8" else None
    export_model(net, out, preprocessing=prepared, class_names=names, calibration=ranges, **options)
    (path,) = [*out.glob("1"), *out.glob("model.*")]
    return str(path)


def speed(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    own = {
        "SavedModel": ("savedmodel", write("resnet50", folder / "saved")),
        "LiteRT": ("litert", write("resnet50", folder / "lite", format="litert")),
        "LiteRT int8": ("litert", write("resnet50", folder / "lite8", format="litert", quantize="int8")),
        "ONNX": ("onnx", write("resnet50", folder / "onnx", format="onnx")),
        "ONNX int8": ("onnx", write("resnet50", folder / "onnx8", format="onnx", quantize="int8")),
    }
    path = str(folder / "peer.onnx")
    subprocess.run([args.peer, "-c", EXPORT_PEER, path], check=True, capture_output=True)
    peers = {
        "onnxruntime on torchvision's export": ("peer-onnx", path),
        "PyTorch eager": ("peer-torch", ""),
        "PyTorch eager, channels last": ("peer-torch-last", ""),
        "OpenVINO on torchvision's export": ("peer-openvino", path),
    }
    result = {}
    for rows in (1, 32):
        runtimes = {name: Runtime(sys.executable, kind, path, 224, rows) for name, (kind, path) in own.items()}
        for name, (kind, path) in peers.items():
            try:
                runtimes[name] = Runtime(args.peer, kind, path, 224, rows)
            except RuntimeError as error:
                print(error, file=sys.stderr)
        result[f"batch {rows}"] = by_turns(runtimes, args.rounds, [name for name in peers if name in runtimes])
    return result


def fold(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    result = {}
    for name, batches in {
        "resnet20": (1, 128),
        "resnet56": (1, 128),
        "resnet50": (1, 32),
        "resnet50_v2": (1, 32),
    }.items():
        paths = {
            how: write(name, folder / f"{name}-{how}", fold_norms=how == "folded") for how in ("folded", "unfolded")
        }
        size = 224 if "50" in name else 32
        for rows in batches:
            runtimes = {how: Runtime(sys.executable, "savedmodel", path, size, rows) for how, path in paths.items()}
            result[f"{name}, batch {rows}"] = by_turns(runtimes, args.rounds, ["unfolded"])
    return result


def parity(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    import dataclasses

    import reszoo

    combinations = [("savedmodel", None), ("savedmodel", "float16"), ("litert", None), ("litert", "float16")]
    combinations += [("litert", "dynamic"), ("litert", "int8"), ("onnx", None), ("onnx", "float16"), ("onnx", "int8")]
    result: dict[str, Any] = {}
    for name in args.nets:
        for kind, precision in combinations:
            out = folder / f"{name}-{kind}-{precision}"
            report = reszoo.export(name, out, format=kind, quantize=precision, data=args.data)
            said = dataclasses.asdict(report)
            row = {key: said[key] for key in ("bytes", "folded", "kept")} | said["check"]
            result[f"{name}, {kind}, {precision or 'float32'}"] = row
            print(name, kind, precision, row, file=sys.stderr)
    return result


def main() -> None:
    if sys.argv[1:2] == ["child"]:
        kind, path, size, rows = sys.argv[2:]
        child(kind, path, int(size), int(rows))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("speed", "fold", "parity"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--peer", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--data", default="folder:cifar10-jpeg")
    parser.add_argument("--nets", nargs="+", default=["resnet20", "resnet56"])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = {"speed": speed, "fold": fold, "parity": parity}[args.what](args, Path(folder))
    own = ("tensorflow", "keras", "numpy", "onnx", "tf2onnx", "onnxruntime", "ai_edge_litert")
    command = f"python tests/bench/export.py {args.what} OUT.json"
    command += {"speed": " --peer PYTHON", "fold": "", "parity": f" --data {args.data}"}[args.what]
    record = {
        "command": command if args.what == "parity" else f"{command} --rounds {args.rounds}",
        "threads": THREADS,
        "results": result,
        "versions": module_versions(*own),
    }
    args.out.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
