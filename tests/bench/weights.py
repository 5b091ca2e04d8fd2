"""Put the weights of a run into the package: `python tests/bench weights reszoo/weights/trained/TAG.json RUN`.

Large tensors are rounded to float16. The accuracy after rounding is measured on the run's test split.
"""

from __future__ import annotations

import argparse
import hashlib
import os

LARGEST = 1_000_000  # bytes of a file in the package
SOURCE = "docs/weights.md"
# What the class folders or labels of a dataset stand for, and the terms of its images.
CLASSES = {
    "fashion_mnist": "T-shirt/top, Trouser, Pullover, Dress, Coat, Sandal, Shirt, Sneaker, Bag, Ankle boot",
}
TERMS = {
    "cifar10": "CIFAR-10 states no license; its authors ask to cite Krizhevsky 2009",
    "fashion_mnist": "Fashion-MNIST: MIT",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("run")
    parser.add_argument("--data", required=True, choices=TERMS, help="the dataset of the run")


def measure(args: argparse.Namespace) -> None:
    """Write TAG.safetensors and TAG.json."""
    import json

    from _shared import tidy, trained_on
    from safetensors.numpy import save_file

    import reszoo
    from reszoo.evaluation.evaluator import evaluate_model
    from reszoo.exporting.float16 import to_float16
    from reszoo.files import atomic_path, write_json
    from reszoo.weights.convert import export_arrays

    run = reszoo.Run.open(args.run)
    spec, model, meta = run.recipe.model.spec, run.load_model(), run.meta
    file = args.out.with_suffix(".safetensors")
    arrays = {name: to_float16(a) for name, a in export_arrays(model, spec, "reszoo").items()}
    with atomic_path(file) as part:
        save_file(arrays, part)
    if (size := os.path.getsize(file)) > LARGEST:
        raise SystemExit(f"{file} has {size:,} bytes; expected at most {LARGEST:,}")
    classes, shape = len(run.class_names), run.preprocessing.input_shape
    loaded = reszoo.build(spec, classes=classes, input_shape=shape, weights=file)
    scores = evaluate_model(loaded, run.open_pipeline().evaluation("test"), classes=classes)
    exact = json.loads((run.path / "test.json").read_text(encoding="utf-8"))
    names = CLASSES.get(args.data, ", ".join(run.class_names)).split(", ")
    card = {
        "recipe": run.recipe.to_dict(),
        "seed": meta["seed"],
        "steps": meta["steps"],
        "seconds": meta["seconds"],
        "examples": meta["data"]["examples"],
        "fingerprint": meta["data"]["fingerprint"],
        "selection": "the last epoch; validation and test images chose nothing",
        "test_error": round(scores.error, 2),
        "test_error_before_rounding": round(100 * (1 - exact["top1"]), 2),
        "versions": meta["versions"],
        "devices": trained_on(meta),
        "terms": TERMS[args.data],
    }
    row = {
        "model": spec.name,
        "data": args.data,
        "top1": round(100 * scores.top1, 2),
        "top5": None if scores.top5 is None else round(100 * scores.top5, 2),
        "license": "Apache-2.0",
        "source": SOURCE,
        "digest": "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest(),
        "names": names,
        "ids": list(run.class_names),
        "transforms": run.preprocessing.to_dict(),
        "card": tidy(card),
    }
    write_json(args.out, row)
