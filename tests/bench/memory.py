"""Memory and time of a training step with and without `train.checkpoint_gradients`.

Each side is a fresh process that takes three steps. Its memory is the peak of the process minus what it held before the first step,
its time the shorter of the last two steps. The ratio of the times is that of two processes, one after the other.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("models", nargs="+", metavar="MODEL=BATCH", help="such as resnet110=128")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Return one row for each model."""
    rows = []
    for each in args.models:
        name, batch = each.split("=")
        sides = []
        for flag in ("keep", "checkpoint"):
            done = subprocess.run(
                [sys.executable, __file__, name, batch, flag], capture_output=True, text=True
            )
            done.check_returncode()
            sides.append(json.loads(done.stdout.splitlines()[-1]))
        keep, again = sides
        assert keep.pop("loss") == again.pop("loss")
        rows.append({"model": name, "batch": int(batch), "keep": keep, "checkpoint": again})
        print(json.dumps(rows[-1]), flush=True)
    return {"rows": rows}


def take_steps(name: str, batch: int, flag: str) -> dict[str, float]:
    """Return the memory and time of one side, and the loss, which both sides share."""
    import keras
    import numpy as np
    import tensorflow as tf

    import reszoo
    from reszoo.config.optimizer import SGD
    from reszoo.config.training import TrainConfig
    from reszoo.training.optimizers import make_optimizer
    from reszoo.training.step import Stepper

    keras.utils.set_random_seed(1)
    train = TrainConfig(batch_size=batch, steps=3, checkpoint_gradients=flag == "checkpoint")
    config = SGD(weight_decay=1e-4)
    model = reszoo.build(name)
    stepper = Stepper(model, make_optimizer(config), train, config, tf.distribute.get_strategy())
    images = tf.random.stateless_normal((batch, *model.input_shape[1:]), (1, 2))
    labels, seconds = tf.constant(np.arange(batch) % 10, tf.int32), []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3):
        begun = time.monotonic()
        stepper(images, labels, 0.01)
        loss = float(stepper.totals.numpy()[0])
        seconds.append(time.monotonic() - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "step_mib": round((peak - before) / 1024),
        "step_seconds": round(min(seconds[1:]), 2),
        "loss": loss,
    }


if __name__ == "__main__":
    print(json.dumps(take_steps(sys.argv[1], int(sys.argv[2]), sys.argv[3])))
