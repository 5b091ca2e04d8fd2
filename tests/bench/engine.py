"""What the engine costs beside the computation: a run's wall time against the time inside its steps.

    python tests/bench/engine.py OUT.json [--net resnet20] [--steps 64]

A real run on synthetic pictures of 32 x 32, batch 128, with its input pipeline, schedule, progress and callbacks; each step is
awaited and timed. What is left of the wall time between the first step and the last is the engine's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

WARM = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--net", default="resnet20")
    parser.add_argument("--steps", type=int, default=64)
    args = parser.parse_args()
    import reszoo
    from reszoo.training.step import Stepper

    spans: list[tuple[float, float]] = []
    plain = Stepper.__call__

    def timed(self: Any, *given: Any) -> None:
        start = time.perf_counter()
        plain(self, *given)
        self.totals.numpy()
        spans.append((start, time.perf_counter()))

    Stepper.__call__ = timed  # type: ignore[method-assign]
    settings = [f"model.name={args.net}", "data.name=synthetic", "data.validation=0", "train.batch_size=128"]
    settings += [f"train.epochs={-(-args.steps // 8)}", "train.evaluate_every=1000", "train.checkpoint_every=1000000"]
    settings += ["augment.pad=4", "augment.flip=true", "train.export=false", "schedule.warmup=0"]
    with tempfile.TemporaryDirectory() as folder:
        reszoo.train("quickstart", overrides=settings, run_dir=Path(folder) / "run", devices="cpu", quiet=True)
    spans = spans[WARM:]
    wall = spans[-1][1] - spans[0][0]
    inside = sum(end - start for start, end in spans)
    gaps = [later[0] - earlier[1] for earlier, later in zip(spans, spans[1:], strict=False)]
    record = {
        "command": f"python tests/bench/engine.py OUT.json --net {args.net} --steps {args.steps}",
        "steps": len(spans),
        "step_ms": round(1e3 * statistics.median(end - start for start, end in spans), 2),
        "between_steps_ms": round(1e3 * statistics.median(gaps), 2),
        "engine_share_of_wall": round(1 - inside / wall, 4),
        "engine_share_by_medians": round(
            statistics.median(gaps) / statistics.median(end - start for start, end in spans), 4
        ),
    }
    args.out.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
