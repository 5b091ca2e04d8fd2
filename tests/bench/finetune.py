"""Measure what published weights are worth: `python tests/bench/finetune.py OUT.json SET [key=value ...]`, SET being a data set.

resnet20 with akamaster's CIFAR-10 weights, fine-tuned by the packaged recipe, against the same net from fresh weights for the same
steps on the same images, once at the recipe's rate and once at a fresh net's usual 0.1; three seeds of each. Runs lie beside OUT and
are used again where they are there. Reading akamaster's file takes PyTorch.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

import reszoo

SEEDS = (0, 1, 2)
COMMON = ("model.name=resnet20", "augment.crop=pad", "augment.flip=true", "train.export=false")
FRESH = (
    "model.weights=''", "data.image_size=[32, 32]", "data.channels=3", "data.normalize=channel", "finetune.freeze=none",
    "finetune.probe_epochs=0", "finetune.stage_decay=1",
)  # fmt: skip
ARMS = {
    "published weights, rate 0.02": ("model.weights=cifar10",),
    "fresh weights, rate 0.02": FRESH,
    "fresh weights, rate 0.1": (*FRESH, "schedule.rate=0.1"),
}


def main(out: str, name: str, *overrides: str) -> None:
    rows = []
    for arm, own in ARMS.items():
        errors, seconds, steps = [], [], 0
        for seed in SEEDS:
            folder = Path(out).with_suffix("") / f"{arm.split(',')[0].replace(' ', '-')}-{arm.split()[-1]}-{seed}"
            if not (folder / "test.json").is_file():
                changes = [*COMMON, f"data.name={name}", *own, *overrides, f"train.seed={seed}"]
                reszoo.train("finetune", overrides=changes, run_dir=folder, quiet=True)
            run = reszoo.Run.open(folder)
            test = json.loads((folder / "test.json").read_text())
            errors.append(round(100 * (1 - test["top1"]), 3))
            seconds.append(run.meta["seconds"])
            steps = run.history[-1]["step"]
        spread = round(statistics.stdev(errors), 3)
        rows.append({"arm": arm, "error": round(statistics.mean(errors), 3), "deviation": spread, "errors": errors})
        rows[-1] |= {"steps": steps, "images": test["examples"], "seconds": seconds}
        print(json.dumps(rows[-1]), flush=True)
    how = " ".join(["python tests/bench/finetune.py OUT", name.split("/")[-1], *overrides])
    Path(out).write_text(json.dumps({"how": how, "net": "resnet20", "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
