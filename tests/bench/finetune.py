"""What published weights are worth for fine-tuning.

resnet20 with akamaster's CIFAR-10 weights, fine-tuned by the packaged recipe, against the same model from fresh weights for the same
steps on the same images, at the recipe's learning rate and at 0.1; three seeds each. Runs are kept beside OUT and used again.
Reading akamaster's file needs PyTorch.
"""

from __future__ import annotations

import argparse
import json
import statistics
from typing import Any

SEEDS = (0, 1, 2)
COMMON = (
    "model.name=resnet20",
    "data.validation=0",
    "augment.crop=pad",
    "augment.flip=true",
    "train.export=false",
)
FRESH = (
    "model.weights=''", "data.image_size=[32, 32]", "data.channels=3", "data.normalize=channel", "finetune.freeze=none",
    "finetune.probe_epochs=0", "finetune.stage_decay=1",
)  # fmt: skip
ARMS = {
    "published weights, rate 0.02": ("model.weights=cifar10",),
    "fresh weights, rate 0.02": FRESH,
    "fresh weights, rate 0.1": (*FRESH, "schedule.rate=0.1"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("data", help="a dataset")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Return the test errors of each arm."""
    import reszoo

    rows = []
    for arm, own in ARMS.items():
        errors, seconds, steps = [], [], 0
        for seed in SEEDS:
            folder = (
                args.out.with_suffix("")
                / f"{arm.split(',')[0].replace(' ', '-')}-{arm.split()[-1]}-{seed}"
            )
            if not (folder / "test.json").is_file():
                changes = [
                    *COMMON,
                    f"data.name={args.data}",
                    *own,
                    *args.overrides,
                    f"train.seed={seed}",
                ]
                reszoo.train("finetune", overrides=changes, run_dir=folder, quiet=True)
            run = reszoo.Run.open(folder)
            test = json.loads((folder / "test.json").read_text())
            errors.append(round(100 * (1 - test["top1"]), 3))
            seconds.append(run.meta["seconds"])
            steps = run.history[-1]["step"]
        spread = round(statistics.stdev(errors), 3)
        rows.append(
            {
                "arm": arm,
                "error": round(statistics.mean(errors), 3),
                "deviation": spread,
                "errors": errors,
            }
        )
        rows[-1] |= {"steps": steps, "images": test["examples"], "seconds": seconds}
        print(json.dumps(rows[-1]), flush=True)
    return {"model": "resnet20", "rows": rows}
