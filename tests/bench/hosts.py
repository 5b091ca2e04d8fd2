"""Seconds per step of one process and of two workers on this machine, with the same global batch.

One process has both cores, each worker has one. What the workers exchange is also reduced alone, to
see its share of a step. Workers are processes on the loopback device, the fastest of networks.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import sys
import time
from typing import Any

MODELS = {"resnet20": (64, 32), "resnet56": (64, 32), "resnet50": (8, 224)}  # batch, side


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--steps", type=int, default=10)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Return the rows by model."""
    import keras  # noqa: F401  (the record states the versions of what is loaded)
    import tensorflow as tf  # noqa: F401

    rows = {}
    for name in MODELS:
        (alone,) = run(name, args.steps, 1)
        workers = run(name, args.steps, 2)
        for reduction in ("float32", "bfloat16"):
            found = workers if reduction == "float32" else run(name, args.steps, 2, reduction)
            rows[f"{name} {reduction}"] = {
                "batch": MODELS[name][0],
                "one_process_ms": alone["step_ms"],
                "two_workers_ms": found[0]["step_ms"],
                "bytes": found[0]["bytes"],
                "reduction_ms": found[0]["reduction_ms"],
                "share": found[0]["reduction_ms"] / found[0]["step_ms"],
            }
            print(name, reduction, rows[f"{name} {reduction}"], flush=True)
    return {"rows": rows}


def run(name: str, steps: int, count: int, reduction: str = "float32") -> list[dict[str, Any]]:
    """Return what each worker measured."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = ",".join(f"127.0.0.1:{each.getsockname()[1]}" for each in sockets)
    for each in sockets:
        each.close()
    command = [sys.executable, __file__, addresses]
    processes = [
        subprocess.Popen(
            [*command, str(index), name, str(steps), reduction],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for index in range(count)
    ]
    try:
        return [json.loads(each.communicate(timeout=600)[0].splitlines()[-1]) for each in processes]
    finally:
        for each in processes:
            each.kill()


def work(addresses: str, index: str, name: str, steps: str, reduction: str) -> dict[str, Any]:
    """Measure as one worker."""
    import numpy as np
    import tensorflow as tf

    from reszoo.config.optimizer import SGD
    from reszoo.config.training import TrainConfig
    from reszoo.models.build import build
    from reszoo.training.cluster import Hosts
    from reszoo.training.devices import open_strategy
    from reszoo.training.optimizers import make_optimizer
    from reszoo.training.reduction import find_statistics, reduce_sums
    from reszoo.training.step import Stepper

    hosts = Hosts(tuple(addresses.split(",")), int(index))
    several = hosts.count > 1
    tf.config.threading.set_intra_op_parallelism_threads(1 if several else 2)
    strategy = open_strategy("cpu", hosts if several else None)
    batch, side = MODELS[name]
    settings = TrainConfig(batch_size=batch, steps=1, reduction=reduction)
    config = SGD(name="sgd", weight_decay=1e-4)
    with strategy.scope():
        model = build(name, input_shape=(side, side, 3))
        optimizer = make_optimizer(config)
        stepper = Stepper(
            model,
            optimizer,
            settings,
            config,
            strategy,
            worker=hosts.index,
            workers=hosts.count,
        )
    random = np.random.default_rng(0)
    images = tf.constant(random.normal(size=(batch, side, side, 3)).astype(np.float32))
    labels = tf.constant(random.integers(0, 10, batch).astype(np.int32))
    rows = stepper.part.rows(batch)
    own, labels = tf.gather(images, rows), tf.gather(labels, rows)

    def take_step() -> None:
        stepper(own, labels, 0.01, batch)
        stepper.totals.numpy()

    statistics_of = list(find_statistics(model))
    shapes = [tuple(each.shape) for each in model.trainable_variables]

    def reduce() -> Any:
        context = tf.distribute.get_replica_context()
        return reduce_sums(context, [tf.zeros(each) for each in shapes], statistics_of, reduction)

    take_reduction = tf.function(lambda: strategy.run(reduce), autograph=False)
    size = 4 * sum(int(np.prod(each)) for each in shapes) // (2 if reduction == "bfloat16" else 1)
    size += 4 * sum(int(np.prod(each.shape)) for each in statistics_of)
    return {
        "step_ms": median(take_step, int(steps)),
        "reduction_ms": median(take_reduction, int(steps)) if several else 0.0,
        "bytes": size if several else 0,
    }


def median(call: Any, steps: int) -> float:
    """Return the median of milliseconds, after two calls that trace and warm up."""
    times = []
    for _ in range(steps + 2):
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[2:])


if __name__ == "__main__":
    print(json.dumps(work(*sys.argv[1:])))
