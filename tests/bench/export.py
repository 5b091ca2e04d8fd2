"""Speed and accuracy of exports, compared with each other and with the runtimes of other libraries.

speed: resnet50 at 224 x 224 (random weights), batches of 1 and 32. reszoo's exports include the normalization of images. --peer is
the Python of an environment with torch, torchvision, onnx, onnxscript, onnxruntime and, optionally, openvino. fold: SavedModels with
and without folded batch norms. parity: published CIFAR weights in every format and precision. Every runtime has its own process and
two threads, and takes turns with the others.
"""

from __future__ import annotations

import argparse
import runpy
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
THREADS = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--peer", default=sys.executable, help="speed: a Python with the other libraries"
    )
    parser.add_argument("--rounds", type=int, default=8, help="speed, fold")
    parser.add_argument("--data", default="cifar10", help="parity")
    parser.add_argument("--nets", nargs="+", default=["resnet20", "resnet56"], help="parity")


# This part runs in child processes, without reszoo: the environments of peers lack it.


def child(runtime: str, path: str, size: str, rows: str) -> None:
    """Load one runtime, and answer as a side of `reszoo bench` does."""
    import numpy as np

    answer = runpy.run_path(str(ROOT / "reszoo" / "bench" / "child.py"))["answer"]

    def prepare() -> tuple[Callable[[int], None], dict[str, str], int]:
        shape = (int(rows), int(size), int(size), 3)
        pixels = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)
        normal = np.ascontiguousarray((pixels.transpose(0, 3, 1, 2) / 255 - 0.45) / 0.225)
        call, version = RUNTIMES[runtime](path, pixels, normal)
        call()
        return lambda calls: [call() for _ in range(calls)] and None, {"runtime": version}, 0

    answer(prepare)


def _savedmodel(path: str, pixels: Any, normal: Any) -> tuple[Callable[[], Any], str]:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    net = tf.saved_model.load(path)
    images = tf.constant(pixels)
    return lambda: net.signatures["serving_default"](images=images)[
        "logits"
    ].numpy(), f"tensorflow {tf.__version__}"


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
        model, images = (
            model.to(memory_format=torch.channels_last),
            images.to(memory_format=torch.channels_last),
        )

    def call() -> None:
        with torch.inference_mode():
            model(images)

    return call, f"torch {torch.__version__}"


def _openvino(path: str, pixels: Any, normal: Any) -> tuple[Callable[[], Any], str]:
    import openvino

    core = openvino.Core()
    settings = {
        "INFERENCE_NUM_THREADS": THREADS,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
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


# This part runs in the main process.


def compare(
    runtimes: dict[str, list[str]], rows: int, rounds: int, base: list[str]
) -> dict[str, Any]:
    """Return the images per second of each runtime, and the ratio to the best of `base` within the rounds.

    Args:
        runtimes: the Python, name in RUNTIMES, path and image size of each.
        rows: images per batch.
        rounds: turns of each runtime.
        base: names of the runtimes to compare with.
    """
    from reszoo.bench.turns import take_turns
    from reszoo.reporting.reporter import Reporter

    commands = {
        name: [python, __file__, *map(str, more), str(rows)]
        for name, (python, *more) in runtimes.items()
    }
    reporter = Reporter(stderr=True)
    turns = take_turns(commands, rounds, device="cpu", threads=THREADS, reporter=reporter)
    speeds = {name: [rows / seconds for seconds in one.seconds] for name, one in turns.items()}
    best = max(base, key=lambda name: statistics.median(speeds[name]))
    found = {}
    for name, own in speeds.items():
        ratios = sorted(a / b for a, b in zip(own, speeds[best], strict=True))
        found[name] = {
            "runtime": turns[name].ready.versions["runtime"],
            "images_per_second": round(statistics.median(own), 1),
            "ratio": round(statistics.median(ratios), 3),
            "ratio_range": [round(ratios[0], 3), round(ratios[-1], 3)],
        }
    return {"compared_with": best, "rounds": rounds, "rows": found}


def speed(args: argparse.Namespace) -> dict[str, Any]:
    """Compare exports of resnet50 with the peers."""
    from _shared import export_random

    exports = {
        "SavedModel": ("savedmodel", {}),
        "LiteRT": ("litert", {"format": "litert"}),
        "LiteRT int8": ("litert", {"format": "litert", "quantize": "int8"}),
        "ONNX": ("onnx", {"format": "onnx"}),
        "ONNX int8": ("onnx", {"format": "onnx", "quantize": "int8"}),
    }
    with tempfile.TemporaryDirectory() as folder:
        runtimes = {
            name: [
                sys.executable,
                kind,
                export_random("resnet50", Path(folder) / name, **options),
                "224",
            ]
            for name, (kind, options) in exports.items()
        }
        path = f"{folder}/peer.onnx"
        subprocess.run([args.peer, "-c", EXPORT_PEER, path], check=True, capture_output=True)
        peers = {
            "onnxruntime on torchvision's export": [args.peer, "peer-onnx", path, "224"],
            "PyTorch eager": [args.peer, "peer-torch", "", "224"],
            "PyTorch eager, channels last": [args.peer, "peer-torch-last", "", "224"],
        }
        if (
            subprocess.run([args.peer, "-c", "import openvino"], capture_output=True).returncode
            == 0
        ):
            peers["OpenVINO on torchvision's export"] = [args.peer, "peer-openvino", path, "224"]
        results = {
            f"batch {n}": compare(runtimes | peers, n, args.rounds, list(peers)) for n in (1, 32)
        }
    return {"threads": THREADS, "results": results}


def fold(args: argparse.Namespace) -> dict[str, Any]:
    """Compare SavedModels with and without folded batch norms."""
    from _shared import export_random

    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, large in {
            "resnet20": 128,
            "resnet56": 128,
            "resnet50": 32,
            "resnet50_v2": 32,
        }.items():
            paths = {
                how: export_random(name, Path(folder) / f"{name}-{how}", fold_norms=how == "folded")
                for how in ("folded", "unfolded")
            }
            size = "224" if "50" in name else "32"
            runtimes = {
                how: [sys.executable, "savedmodel", path, size] for how, path in paths.items()
            }
            for rows in (1, large):
                results[f"{name}, batch {rows}"] = compare(
                    runtimes, rows, args.rounds, ["unfolded"]
                )
    return {"threads": THREADS, "results": results}


def parity(args: argparse.Namespace) -> dict[str, Any]:
    """Compare the exports of published weights with Keras on images."""
    import dataclasses

    import reszoo

    precisions = {
        "savedmodel": (None, "float16"),
        "litert": (None, "float16", "dynamic", "int8"),
        "onnx": (None, "float16", "int8"),
    }
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in args.nets:
            for form, precision in (
                (form, one) for form, several in precisions.items() for one in several
            ):
                out = Path(folder) / f"{name}-{form}-{precision}"
                report = dataclasses.asdict(
                    reszoo.export(name, out, format=form, quantize=precision, data=args.data)
                )
                row = {key: report[key] for key in ("bytes", "folded", "kept")} | report["check"]
                results[f"{name}, {form}, {precision or 'float32'}"] = row
                print(name, form, precision, row, file=sys.stderr)
    return {"results": results}


PROGRAMS = {"speed": speed, "fold": fold, "parity": parity}

if __name__ == "__main__":
    child(*sys.argv[1:])
