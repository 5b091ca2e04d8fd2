"""Training throughput of resnet20 against PyTorch eager, in one interleaved run.

    python tests/bench/throughput.py --peer /path/to/venv/with/torch/bin/python [--batch 128] [--rounds 10] [--json FILE]

Two processes, each with its net, take turns of a few steps on the same random batch; the ratio is taken turn by turn, so
that it holds where the machine's speed drifts. Not a test: nothing here is asserted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

STEPS = 6


def ours(batch: int) -> Callable[[], None]:
    """Return a function that takes one step with reszoo's engine."""
    import keras
    import numpy as np
    import tensorflow as tf

    import reszoo
    from reszoo.training.config import OptimizerConfig, TrainConfig
    from reszoo.training.optimizers import make_optimizer
    from reszoo.training.step import Stepper

    keras.utils.set_random_seed(0)
    config = OptimizerConfig(name="sgd", weight_decay=1e-4)
    settings = TrainConfig(batch_size=batch, steps=1)
    stepper = Stepper(reszoo.build("resnet20"), make_optimizer(config), settings, config, tf.distribute.get_strategy())
    random = np.random.default_rng(0)
    images = tf.constant(random.normal(size=(batch, 32, 32, 3)), tf.float32)
    labels = tf.constant(random.integers(0, 10, batch), tf.int32)
    return lambda: stepper(images, labels, 0.01)


def peer(batch: int) -> Callable[[], None]:
    """Return a function that takes one step of the same net in PyTorch eager mode: option A, SGD with momentum and decay."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        def __init__(self, before: int, after: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(after)
            self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(after)
            self.stride, self.pad = stride, (after - before) // 2

        def forward(self, x):  # type: ignore[no-untyped-def]
            y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
            if self.stride > 1:
                x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
            return functional.relu(x + y)

    torch.manual_seed(0)
    blocks = [
        Block(*shape)
        for shape in [(16, 16, 1)] * 3 + [(16, 32, 2)] + [(32, 32, 1)] * 2 + [(32, 64, 2)] + [(64, 64, 1)] * 2
    ]
    stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    net = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)).train()
    optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9, weight_decay=1e-4)
    images, labels = torch.randn(batch, 3, 32, 32), torch.randint(0, 10, (batch,))

    def step() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(net(images), labels).backward()
        optimizer.step()

    return step


def work(side: str, batch: int) -> None:
    """Serve turns: a line in, STEPS steps, their seconds out."""
    step = {"ours": ours, "peer": peer}[side](batch)
    begun = time.perf_counter()
    step()
    print(time.perf_counter() - begun, flush=True)
    for _ in range(3):
        step()
    for _ in sys.stdin:
        begun = time.perf_counter()
        for _ in range(STEPS):
            step()
        print(time.perf_counter() - begun, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer", required=True, help="a Python with PyTorch")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--work", choices=("ours", "peer"))
    args = parser.parse_args()
    if args.work:
        return work(args.work, args.batch)
    pipes = {}
    for side, python in (("ours", sys.executable), ("peer", args.peer)):
        command = [python, __file__, "--peer", args.peer, "--batch", str(args.batch), "--work", side]
        pipes[side] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        first = float(pipes[side].stdout.readline())  # type: ignore[union-attr]
        print(f"{side}: first step {first:.1f} s", flush=True)
    speeds: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(args.rounds):
        for side, process in pipes.items():
            process.stdin.write("\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
            speeds[side].append(args.batch * STEPS / float(process.stdout.readline()))  # type: ignore[union-attr]
    for process in pipes.values():
        process.stdin.close()  # type: ignore[union-attr]
        process.wait()
    ratios = [a / b for a, b in zip(speeds["ours"], speeds["peer"], strict=True)]
    result = {
        "batch": args.batch,
        "rounds": args.rounds,
        "steps_per_round": STEPS,
        "ours_images_per_second": round(statistics.median(speeds["ours"]), 1),
        "pytorch_eager_images_per_second": round(statistics.median(speeds["peer"]), 1),
        "ratio_median": round(statistics.median(ratios), 3),
        "ratio_min": round(min(ratios), 3),
        "ratio_max": round(max(ratios), 3),
    }
    print(json.dumps(result, indent=2))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
