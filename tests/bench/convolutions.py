"""How near convolutions come to the matrix product, alone: `python tests/bench/convolutions.py OUT.json`.

Each of the three of a 3x3 convolution of the CIFAR nets at 128 images (forward, by its input, by its filter), and by its input as
a forward convolution with turned weights, in turns with a 3000 x 3000 product; the median of the shares in each turn.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reszoo.lazy import tf

MATRIX, BATCH, TURNS = 3000, 128, 9
SIDES = {16: 32, 32: 16, 64: 8}  # channels and the side of their maps


def rate(run: Callable[[], Any], operations: float, calls: int) -> float:
    """Return billion operations a second over some calls."""
    start = time.perf_counter()
    for _ in range(calls - 1):
        run()
    run().numpy()
    return operations * calls / (time.perf_counter() - start) / 1e9


def pieces(channels: int) -> dict[str, Callable[[], Any]]:
    """Return what to run of a convolution, each giving one number, so that nothing is copied out."""
    side = SIDES[channels]
    maps = [BATCH, side, side, channels]
    x, dy = tf.random.normal(maps), tf.random.normal(maps)
    w = tf.random.normal([3, 3, channels, channels])
    shared = {"strides": [1, 1, 1, 1], "padding": "SAME"}

    @tf.function
    def forward() -> Any:
        return tf.nn.conv2d(x, w, 1, "SAME")[0, 0, 0, 0]

    @tf.function
    def by_input() -> Any:
        return tf.raw_ops.Conv2DBackpropInput(input_sizes=maps, filter=w, out_backprop=dy, **shared)[0, 0, 0, 0]

    @tf.function
    def by_filter() -> Any:
        return tf.raw_ops.Conv2DBackpropFilter(input=x, filter_sizes=w.shape, out_backprop=dy, **shared)[0, 0, 0, 0]

    @tf.function
    def turned() -> Any:
        return tf.nn.conv2d(dy, tf.transpose(tf.reverse(w, [0, 1]), [0, 1, 3, 2]), 1, "SAME")[0, 0, 0, 0]

    return {"forward": forward, "by input": by_input, "by filter": by_filter, "by input, turned": turned}


def main(out: str) -> None:
    """Measure, and write the record."""
    factor = tf.random.normal([MATRIX, MATRIX])
    product = tf.function(lambda: tf.linalg.matmul(factor, factor)[0, 0])
    record: dict[str, Any] = {"command": "python tests/bench/convolutions.py OUT.json", "tensorflow": tf.__version__}
    peaks, rows = [], {}
    for channels, side in SIDES.items():
        operations = 2 * BATCH * side**2 * 9 * channels**2
        runs = pieces(channels)
        for run in (*runs.values(), product):
            run()
        shares: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(TURNS):
            peaks.append(rate(product, 2 * MATRIX**3, 2))
            for name, run in runs.items():
                shares[name].append(rate(run, operations, 30) / peaks[-1])
        rows[str(channels)] = {name: round(statistics.median(values), 3) for name, values in shares.items()}
        print(channels, rows[str(channels)])
    record |= {"matrix_product_gflops": round(statistics.median(peaks), 1), "share_of_matrix_product": rows}
    Path(out).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
