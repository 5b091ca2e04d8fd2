"""What growing does to trained models.

For each finished run and a deeper model: the largest difference of outputs on 1,000 of its test images, evenly spaced; the accuracy
on all test images before and after; and the share of the new blocks' parameters with a nonzero gradient in either of the first two
steps of plain gradient descent on training images.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import reszoo
from reszoo.evaluation.evaluator import evaluate_model

IMAGES, BATCH, RATE = 1000, 128, 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("pairs", nargs="+", metavar="RUN=MODEL", help="such as runs/a=resnet56")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Return one row for each run."""
    rows = []
    for pair in args.pairs:
        path, _, name = pair.rpartition("=")
        rows.append(measured(reszoo.Run.open(path), name))
        print(json.dumps(rows[-1]))
    return {"rows": rows}


def measured(run: reszoo.Run, name: str) -> dict[str, Any]:
    old, pipeline = run.load_model(), run.open_pipeline(BATCH)
    batches = list(pipeline.train().take(10).as_numpy_iterator())
    begun = time.monotonic()
    new = reszoo.grow(old, name, images=np.concatenate([images for images, _ in batches])[:1024])
    seconds = time.monotonic() - begun
    test = np.concatenate([images for images, _ in pipeline.evaluation("test").as_numpy_iterator()])
    some = test[np.linspace(0, len(test) - 1, min(IMAGES, len(test))).astype(int)]
    one, other = (
        np.concatenate(
            [net(some[at : at + 100], training=False) for at in range(0, len(some), 100)]
        )
        for net in (old, new)
    )
    before, after = (
        evaluate_model(net, pipeline.evaluation("test"), classes=len(run.class_names))
        for net in (old, new)
    )
    reached, numbers, frozen = gradients(new, batches[:2])
    return {
        "model": old.name,
        "grown": new.name,
        "data": pipeline.info.name.split("/")[-1],
        "images": len(some),
        "largest_difference": float(np.abs(one - other).max()),
        "largest_output": float(np.abs(one).max()),
        "bit_equal": bool((one == other).all()),
        "test_images": before.examples,
        "accuracy_before": before.top1,
        "accuracy_after": after.top1,
        "new_numbers": numbers,
        "share_with_a_gradient": reached / numbers,
        "new_weights_without_any": frozen,
        "seconds_to_grow": round(seconds, 2),
    }


def gradients(net: keras.Model, batches: list[tuple[Any, Any]]) -> tuple[int, int, list[str]]:
    """Return how many of the new blocks' numbers had a gradient within the batches, how many there are, and weights with none."""
    weights = [
        w for w in net.trainable_variables if "_".join(w.path.split("_")[:2]) in net.growth.added
    ]
    reached = [np.zeros(weight.shape, bool) for weight in weights]
    for images, labels in batches:
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
                labels, net(images, training=True)
            )
            loss = tf.reduce_mean(losses)
        found = tape.gradient(loss, [weight.value for weight in net.trainable_variables])
        by_path = {
            w.path: np.asarray(g) for w, g in zip(net.trainable_variables, found, strict=True)
        }
        reached = [was | (by_path[w.path] != 0) for was, w in zip(reached, weights, strict=True)]
        for weight in net.trainable_variables:
            weight.assign_sub(RATE * by_path[weight.path])
    frozen = [
        weight.path for weight, there in zip(weights, reached, strict=True) if not there.any()
    ]
    return sum(int(there.sum()) for there in reached), sum(there.size for there in reached), frozen
