"""Unknown keyword arguments of the public functions: one line that names the right one, in place of a TypeError."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from reszoo.errors import ReszooError, did_you_mean

P = ParamSpec("P")
T = TypeVar("T")

# From a keyword that other libraries' training functions take to the recipe's key.
RECIPE_KEYS = {
    "epochs": "train.epochs",
    "num_epochs": "train.epochs",
    "max_epochs": "train.epochs",
    "steps": "train.steps",
    "max_steps": "train.steps",
    "batch_size": "train.batch_size",
    "seed": "train.seed",
    "precision": "train.precision",
    "accumulate": "train.accumulate",
    "gradient_accumulation_steps": "train.accumulate",
    "accumulate_grad_batches": "train.accumulate",
    "clip_norm": "train.clip_norm",
    "clipnorm": "train.clip_norm",
    "ema": "train.ema",
    "label_smoothing": "train.label_smoothing",
    "optimizer": "optimizer.name",
    "momentum": "optimizer.momentum",
    "weight_decay": "optimizer.weight_decay",
    "learning_rate": "schedule.rate",
    "lr": "schedule.rate",
    "schedule": "schedule.kind",
    "scheduler": "schedule.kind",
    "warmup": "schedule.warmup",
    "data": "data.name",
    "dataset": "data.name",
    "train_data": "data.name",
    "x": "data.name",
    "image_size": "data.image_size",
    "model": "model.name",
    "weights": "model.weights",
    "pretrained": "model.weights",
    "freeze": "finetune.freeze",
}
SHAPES = {
    "optimizer.name": "sgd",
    "schedule.kind": "cosine",
    "data.name": "folder:photos",
    "model.name": "resnet20",
    "model.weights": "imagenet",
    "finetune.freeze": "stage3",
}
# From a keyword of other libraries to the parameter here.
PARAMETERS = {
    "out": (
        "run_dir",
        "out",
        "out_dir",
        "output",
        "output_dir",
        "save_dir",
        "log_dir",
        "project",
        "path",
        "dest",
        "file",
    ),
    "run_dir": (
        "out",
        "out_dir",
        "output",
        "output_dir",
        "save_dir",
        "log_dir",
        "project",
        "run",
        "workdir",
        "resume_from",
    ),
    "devices": ("device", "gpus", "gpu", "accelerator", "num_gpus", "strategy"),
    "quiet": ("verbose", "silent"),
    "top": ("top_k", "topk", "k"),
    "images": ("paths", "path", "image", "files", "x", "source", "inputs", "img"),
    "net": ("model", "run", "run_dir", "checkpoint"),
    "data": ("dataset", "x", "test_data", "val_data", "folder"),
    "image_size": ("imgsz", "input_shape", "size", "img_size"),
    "quantize": ("int8", "half", "optimizations", "dtype"),
    "format": ("type", "kind"),
    "weights": ("pretrained", "tag"),
    "overrides": ("config", "set", "cfg", "params", "kwargs"),
}


def explain_keywords(function: Callable[P, T]) -> Callable[P, T]:
    """Return `function` with a ReszooError for keywords that it does not take; its signature stays."""
    known = tuple(inspect.signature(function).parameters)

    @functools.wraps(function)
    def checked(*args: P.args, **keywords: P.kwargs) -> T:
        for key, value in keywords.items():
            if key not in known:
                raise ReszooError(_explain(function.__name__, key, value, known))
        return function(*args, **keywords)

    return checked


def _explain(function: str, key: str, value: Any, known: tuple[str, ...]) -> str:
    start = f"{function}: {key}={_short(value)} is invalid"
    if "recipe" in known and (recipe_key := RECIPE_KEYS.get(key)):
        shown = (
            value
            if isinstance(value, int | float) and not isinstance(value, bool)
            else SHAPES.get(recipe_key)
        )
        if isinstance(value, str) and recipe_key != "data.name":
            shown = value
        text = f"{recipe_key}={224 if shown is None else shown}"
        return (
            f'{start}; it is a key of the recipe. Example: {function}(recipe, overrides=["{text}"])'
        )
    for parameter, others in PARAMETERS.items():
        if parameter in known and key in others:
            return f"{start}; expected {parameter}. Example: {function}(..., {parameter}=...)"
    near = did_you_mean(key, known)
    return f"{start}; expected one of {', '.join(known)}{near}"


def _short(value: Any) -> str:
    text = repr(value).partition("\n")[0]
    return text if len(text) <= 40 else f"{text[:37]}..."
