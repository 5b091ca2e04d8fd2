"""Where the time of a photograph goes in the input pipeline.

Each stage is a longer pipeline than the one before, over the files of `reszoo bench input photographs`. The record holds
core-milliseconds per image: the least of some turns in which all pipelines take part.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from reszoo.bench.photographs import write_photographs
from reszoo.config.data import InceptionCrop
from reszoo.data.augmentation import draw_windows, mirror, place_windows, take_window
from reszoo.images.decoding import decode_window, find_layout
from reszoo.images.preprocessing import Preprocessing
from reszoo.lazy import tf

BATCH, IMAGES, TURNS = 32, 960, 5
AUTO = tf.data.AUTOTUNE


def pipelines(folder: Path) -> dict[str, Any]:
    """Return the pipelines by the stage that each ends with; elements of BATCH images."""
    preprocessing = Preprocessing((224, 224), 3, 256, np.full(3, 0.5, "f4"), np.full(3, 0.25, "f4"))
    augment = InceptionCrop(flip=True)

    def load(path: Any) -> tuple[Any, Any]:
        payload = tf.io.read_file(path)
        return payload, find_layout(payload)

    def draw(number: Any, loaded: tuple[Any, Any]) -> tuple[Any, Any, Any]:
        payloads, layouts = loaded
        draws = draw_windows(tf.size(payloads), augment, tf.stack([number, 7]))
        size = preprocessing.image_size
        return payloads, layouts, place_windows(layouts[:, :2], draws, augment, size)

    def decoded(payload: Any, layout: Any, window: Any) -> Any:
        return decode_window(payload, window, 3, layout)[0, 0]

    def sized(payload: Any, layout: Any, window: Any) -> Any:
        return take_window(payload, window, preprocessing, layout)

    def mirrored(payload: Any, layout: Any, window: Any) -> Any:
        return mirror(sized(payload, layout, window), window[0] % 2 == 0)

    files = tf.data.Dataset.from_tensor_slices(
        [str(path) for path in sorted(folder.rglob("*.jpg"))]
    ).repeat()
    windows = files.map(load, num_parallel_calls=AUTO).batch(BATCH).enumerate().map(draw)
    each = windows.unbatch()
    stages = {"read, header, window": windows}
    for name, function in (("decode", decoded), ("resize", sized), ("mirror", mirrored)):
        stages[name] = each.map(function, num_parallel_calls=AUTO).batch(BATCH)
    stages["normalize"] = stages["mirror"].map(preprocessing.apply, num_parallel_calls=AUTO)
    return stages


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Return core-milliseconds per image up to each stage."""
    cores = os.cpu_count() or 1
    best: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(Path(folder))
        for turn in range(TURNS):
            for name, stage in pipelines(Path(folder)).items():
                batches = iter(stage)  # no prefetching: nothing is ready before its turn
                for _ in range(4):
                    next(batches)
                start = time.perf_counter()
                for _ in range(IMAGES // BATCH):
                    next(batches)
                spent = 1000 * cores * (time.perf_counter() - start) / IMAGES
                best[name] = min(spent, best.get(name, spent))
            print(turn + 1, {name: round(value, 2) for name, value in best.items()})
    return {
        "core_milliseconds_an_image_up_to": {name: round(value, 2) for name, value in best.items()}
    }
