"""Steps of a small model, on one host or as one of several workers, and what they leave.

As a program: `python -m tests.training.step_cases ADDRESSES INDEX FOLDER CASE...` writes
FOLDER/CASE-INDEX.npz. `cpu:2` as ADDRESSES trains with two replicas in one process.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from reszoo.training.cluster import Hosts
from reszoo.training.devices import open_strategy
from tests.training.test_step import CASES, SHAPE, arrays, batches, make, weights

STEPS = 20
MORE: dict[str, dict[str, Any]] = {
    "local": {"sync": False},
    "float32": {"policy": "float32"},
    "float32 local": {"policy": "float32", "sync": False, "accumulate": 2, "rows": 13},
    "one row": {"rows": 1, "sync": False},
    "bfloat16": {"policy": "float32", "reduction": "bfloat16", "sync": False},
    "masks": {"policy": "float32", "fields": {"drop_path": 0.5}, "sync": False},
    "overflow 0": {"precision": "mixed_float16", "policy": "", "broken": 0},
    "overflow 1": {"precision": "mixed_float16", "policy": "", "broken": 15},
}
ALL = CASES | MORE


def run(case: str, strategy: tf.distribute.Strategy, hosts: Hosts | None = None) -> dict[str, Any]:
    """Return weights, averages, slots and totals after the steps of a case, by name."""
    settings = {"policy": "float64", **ALL[case]}
    rows, broken = settings.pop("rows", 16), settings.pop("broken", None)
    workers = {"worker": hosts.index, "workers": hosts.count} if hosts else {}
    stepper = make(strategy, workers=workers, **settings)
    stepper.spread_seeds()
    for number, (images, labels) in enumerate(batches(rows, STEPS)):
        if broken is not None and number == 1:
            images = tf.where(tf.range(rows)[:, None, None, None] == broken, 1e30, images)
        own = stepper.part.rows(rows)
        take_step = stepper.probe if number == 2 else stepper
        take_step(tf.gather(images, own), tf.gather(labels, own), 0.01, rows)
    graph = stepper.trace(True, *SHAPE).function.get_concrete_function().graph.as_graph_def()
    nodes = [*graph.node, *(node for each in graph.library.function for node in each.node_def)]
    collectives = sum(node.op == "CollectiveReduceV2" for node in nodes)
    if hosts:  # one for statistics and gradients, one for totals, two per synchronized batch norm
        sync = settings.get("sync", True)
        norms = len(find_norms(stepper.model)) if sync else 0
        expected = (
            2 + 2 * norms * settings.get("accumulate", 1) + (settings.get("reduction", "") != "")
        )
        assert collectives == expected, (collectives, expected)
    lists = {
        "weight": [each for each in weights(stepper) if each.dtype.kind == "f"],
        "average": arrays(stepper.averages),
        "slot": arrays(stepper.optimizer.variables),
        "totals": [stepper.totals.numpy(), stepper.loss_scale.scale.numpy()],
    }
    return {f"{name} {at}": each for name, found in lists.items() for at, each in enumerate(found)}


def find_norms(model: keras.Model) -> list[keras.layers.Layer]:
    return [each for each in model.layers if isinstance(each, keras.layers.BatchNormalization)]


def main(addresses: str, index: str, folder: str, *cases: str) -> None:
    alone = addresses.startswith("cpu:")
    hosts = None if alone else Hosts(tuple(addresses.split(",")), int(index))
    strategy = open_strategy(addresses if alone else "cpu", hosts)
    for case in cases:
        np.savez(Path(folder) / f"{case}-{index}.npz", **run(case, strategy, hosts))


if __name__ == "__main__":
    main(*sys.argv[1:])
