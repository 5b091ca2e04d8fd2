"""Milliseconds per training step for each kind of kernel, by TensorFlow's profiler.

Kernels overlap, so the sum exceeds the step.
"""

from __future__ import annotations

import argparse
import collections
import tempfile
import time
from pathlib import Path
from typing import Any

BATCH, WARM_UP, STEPS, THREADS = 128, 3, 5, 2
GROUPS = {
    "gradient by filter": ("_MklNativeConv2DBackpropFilter", "Conv2DBackpropFilter"),
    "gradient by input": ("_MklNativeConv2DBackpropInput", "Conv2DBackpropInput"),
    "forward": ("_MklNativeConv2D", "Conv2D"),
    "batch norm": ("_MklNativeFusedBatchNormV3", "FusedBatchNormV3"),
    "gradient of batch norm": ("_MklNativeFusedBatchNormGradV3", "FusedBatchNormGradV3"),
    "ReLU": ("Relu",),
    "gradient of ReLU": ("ReluGrad",),
    "additions": ("AddV2", "AddN"),
    "casts": ("Cast",),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", nargs="?", default="resnet56")
    parser.add_argument("precision", nargs="?", default="mixed_bfloat16")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Return the milliseconds of a step and of its kernels."""
    import tensorflow as tf

    from reszoo.bench.sides import Job
    from reszoo.bench.tensorflow_sides import Reszoo

    job = Job("reszoo", "train", args.model, BATCH, 32, 10, "cpu", args.precision, THREADS)
    run, _ = Reszoo(job).prepare()
    run(WARM_UP)
    start = time.perf_counter()
    run(STEPS)
    step = (time.perf_counter() - start) / STEPS * 1e3
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        run(STEPS)
        tf.profiler.experimental.stop()
        found = kernels(folder)
    groups = {
        group: round(sum(found[name] for name in names) / STEPS, 1)
        for group, names in GROUPS.items()
    }
    return {
        "batch": BATCH,
        "threads": THREADS,
        "milliseconds_per_step": round(step, 1),
        "kernel_milliseconds": groups,
    }


def kernels(folder: str) -> collections.Counter[str]:
    """Return the milliseconds of each kernel in the one profile below `folder`."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    (file,) = Path(folder).rglob("*.xplane.pb")
    found: collections.Counter[str] = collections.Counter()
    for plane in xplane_pb2.XSpace.FromString(file.read_bytes()).planes:
        for line in plane.lines:
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name.rpartition(":")[2]
                found[name] += event.duration_ps / 1e9
    return found
