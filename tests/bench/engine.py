"""What the trainer costs beside the computation: the wall time of a run against the time inside its steps.

A run on synthetic images of 32 x 32, batch 128, with its input pipeline, schedule, progress and callbacks. Each step is timed to
its end. The rest of the wall time between the first step and the last is the trainer's.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

WARM = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--net", default="resnet20")
    parser.add_argument("--steps", type=int, default=64)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Return milliseconds in and between steps, and the trainer's share of the wall time."""
    import reszoo
    from reszoo.training.step import Stepper

    spans: list[tuple[float, float]] = []
    step = Stepper.__call__

    def timed(self: Any, *given: Any) -> None:
        start = time.perf_counter()
        step(self, *given)
        self.totals.numpy()
        spans.append((start, time.perf_counter()))

    Stepper.__call__ = timed  # type: ignore[method-assign]
    settings = [
        f"model.name={args.net}",
        "data.name=synthetic",
        "data.validation=0",
        "train.batch_size=128",
    ]
    settings += [
        f"train.epochs={-(-args.steps // 8)}",
        "train.evaluate_every=1000",
        "train.checkpoint_every=1000000",
    ]
    settings += ["augment.pad=4", "augment.flip=true", "train.export=false", "schedule.warmup=0"]
    with tempfile.TemporaryDirectory() as folder:
        reszoo.train(
            "quickstart",
            overrides=settings,
            run_dir=Path(folder) / "run",
            devices="cpu",
            quiet=True,
        )
    spans = spans[WARM:]
    wall, inside = spans[-1][1] - spans[0][0], [end - start for start, end in spans]
    between = statistics.median(
        later[0] - earlier[1] for earlier, later in zip(spans, spans[1:], strict=False)
    )
    return {
        "steps": len(spans),
        "step_ms": round(1e3 * statistics.median(inside), 2),
        "between_steps_ms": round(1e3 * between, 2),
        "engine_share_of_wall": round(1 - sum(inside) / wall, 4),
        "engine_share_by_medians": round(between / statistics.median(inside), 4),
    }
