"""What class weights and the balanced sampler do for imbalanced classes.

Four classes of CIFAR-10 as image files, with 500, 250, 120 and 40 training images and all test images, trained by the recipe
`folder`, without a remedy and with each of the two; three seeds each. Scores are scikit-learn's, from the predictions.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

SEEDS = (0, 1, 2)
COUNTS = {"cat": 500, "dog": 250, "frog": 120, "ship": 40}
COMMON = {
    "model.name": "resnet8",
    "data.validation": 0,
    "train.steps": 600,
    "train.batch_size": 32,
    "train.evaluate_every": 1000,
    "train.export": False,
}
ARMS: dict[str, dict[str, Any]] = {
    "no remedy": {},
    "class weights": {"train.class_weights": "balanced"},
    "balanced sampler": {"data.sampler": "balanced"},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("data", type=Path, help="CIFAR-10 as train/CLASS and test/CLASS")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Return the scores of each arm."""
    import numpy as np
    from sklearn.metrics import accuracy_score, f1_score, recall_score

    import reszoo

    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        photos = Path(scratch) / "photos"
        for name, count in COUNTS.items():
            (photos / "train" / name).mkdir(parents=True)
            for path in sorted((args.data / "train" / name).iterdir())[:count]:
                shutil.copy(path, photos / "train" / name)
            shutil.copytree(args.data / "test" / name, photos / "test" / name)
        for arm, own in ARMS.items():
            scores: dict[str, list[float]] = {"accuracy": [], "macro_f1": [], "rarest_recall": []}
            for seed in SEEDS:
                folder = Path(scratch) / f"{arm}-{seed}"
                changes = COMMON | own | {"train.seed": seed}
                reszoo.train(
                    "folder", overrides=changes, data=str(photos), run_dir=folder, quiet=True
                )
                run = reszoo.Run.open(folder)
                model = run.load_model()
                truth, predicted = [], []
                for images, labels in run.open_pipeline(256).evaluation("test"):
                    truth += labels.numpy().tolist()
                    predicted += np.argmax(model.predict(images, verbose=0), axis=1).tolist()
                recalls = recall_score(truth, predicted, average=None)
                scores["accuracy"].append(accuracy_score(truth, predicted))
                scores["macro_f1"].append(f1_score(truth, predicted, average="macro"))
                scores["rarest_recall"].append(recalls[-1])
            rows.append({"arm": arm})
            for name, values in scores.items():
                rows[-1][name] = [round(float(value), 4) for value in values]
                rows[-1][f"{name}_mean"] = round(statistics.mean(values), 4)
                rows[-1][f"{name}_deviation"] = round(statistics.stdev(values), 4)
            print(json.dumps(rows[-1]), flush=True)
    return {"counts": COUNTS, "changes": COMMON, "rows": rows, "test_images": len(truth)}
