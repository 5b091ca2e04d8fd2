"""How near single convolutions come to the rate of the matrix product.

The convolutions of a 3 x 3 layer of the CIFAR models at 128 images: forward, gradient by the input, gradient by the filter, and the
gradient by the input as a forward convolution with rotated weights. Each takes turns with a 3000 x 3000 matrix product; the record
holds the median of the shares in each turn.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

from reszoo.lazy import tf

MATRIX, BATCH, TURNS = 3000, 128, 9
SIDES = {16: 32, 32: 16, 64: 8}  # channels and the side of their maps


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Return the shares by number of channels."""
    factor = tf.random.normal([MATRIX, MATRIX])
    product = tf.function(lambda: tf.linalg.matmul(factor, factor)[0, 0])
    peaks, rows = [], {}
    for channels, side in SIDES.items():
        operations = 2 * BATCH * side**2 * 9 * channels**2
        runs = convolutions(channels)
        for run in (*runs.values(), product):
            run()
        shares: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(TURNS):
            peaks.append(rate(product, 2 * MATRIX**3, 2))
            for name, run in runs.items():
                shares[name].append(rate(run, operations, 30) / peaks[-1])
        rows[str(channels)] = {
            name: round(statistics.median(values), 3) for name, values in shares.items()
        }
        print(channels, rows[str(channels)])
    return {
        "matrix_product_gflops": round(statistics.median(peaks), 1),
        "share_of_matrix_product": rows,
    }


def rate(run: Callable[[], Any], operations: float, calls: int) -> float:
    """Return 10^9 operations per second over some calls."""
    start = time.perf_counter()
    for _ in range(calls - 1):
        run()
    run().numpy()
    return operations * calls / (time.perf_counter() - start) / 1e9


def convolutions(channels: int) -> dict[str, Callable[[], Any]]:
    """Return the four convolutions; each returns one number, so that nothing else is copied."""
    maps = [BATCH, SIDES[channels], SIDES[channels], channels]
    x, dy, w = (
        tf.random.normal(maps),
        tf.random.normal(maps),
        tf.random.normal([3, 3, channels, channels]),
    )
    shared = {"strides": [1, 1, 1, 1], "padding": "SAME"}
    runs = {
        "forward": lambda: tf.nn.conv2d(x, w, 1, "SAME"),
        "by input": lambda: tf.raw_ops.Conv2DBackpropInput(
            input_sizes=maps, filter=w, out_backprop=dy, **shared
        ),
        "by filter": lambda: tf.raw_ops.Conv2DBackpropFilter(
            input=x, filter_sizes=w.shape, out_backprop=dy, **shared
        ),
        "by input, turned": lambda: tf.nn.conv2d(
            dy, tf.transpose(tf.reverse(w, [0, 1]), [0, 1, 3, 2]), 1, "SAME"
        ),
    }
    return {name: tf.function(lambda run=run: run()[0, 0, 0, 0]) for name, run in runs.items()}
