"""Unknown keyword arguments of public functions: one line that names the right one."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from reszoo.errors import ReszooError, did_you_mean, shorten

P = ParamSpec("P")
T = TypeVar("T")

# Keywords of other libraries' training functions, by the recipe key that replaces them.
_BY_RECIPE_KEY = {
    "train.epochs": "epochs num_epochs max_epochs",
    "train.steps": "steps max_steps",
    "train.batch_size": "batch_size",
    "train.seed": "seed",
    "train.precision": "precision",
    "train.accumulate": "accumulate gradient_accumulation_steps accumulate_grad_batches",
    "train.clip_norm": "clip_norm clipnorm",
    "train.ema": "ema",
    "train.label_smoothing": "label_smoothing",
    "optimizer.name": "optimizer",
    "optimizer.momentum": "momentum",
    "optimizer.weight_decay": "weight_decay",
    "schedule.rate": "learning_rate lr",
    "schedule.kind": "schedule scheduler",
    "schedule.warmup": "warmup",
    "data.name": "data dataset train_data x",
    "data.image_size": "image_size",
    "model.name": "model",
    "model.weights": "weights pretrained",
    "finetune.freeze": "freeze",
}
RECIPE_KEYS = {name: key for key, names in _BY_RECIPE_KEY.items() for name in names.split()}
EXAMPLES = {
    "optimizer.name": "sgd",
    "schedule.kind": "cosine",
    "data.name": "folder:photos",
    "data.image_size": "[224, 224]",
    "model.name": "resnet20",
    "model.weights": "imagenet",
    "finetune.freeze": "stage3",
}
# Keywords of other libraries, by the parameter here.
PARAMETERS = {
    "out": "run_dir out out_dir output output_dir save_dir log_dir project path dest file",
    "run_dir": "out out_dir output output_dir save_dir log_dir project run workdir resume_from",
    "devices": "device gpus gpu accelerator num_gpus strategy",
    "quiet": "verbose silent",
    "top": "top_k topk k",
    "class_name": "class label target category class_index",
    "layer": "target_layer layer_name stage",
    "images": "paths path image files x source inputs img",
    "model": "net run run_dir checkpoint",
    "data": "dataset x test_data val_data folder",
    "image_size": "imgsz input_shape size img_size",
    "quantize": "int8 half optimizations dtype",
    "format": "type kind",
    "weights": "pretrained tag",
    "overrides": "config set cfg params kwargs",
}


def explain_keywords(function: Callable[P, T]) -> Callable[P, T]:
    """Return a function that raises ReszooError for unknown keywords. Its signature stays."""
    known = tuple(inspect.signature(function).parameters)

    @functools.wraps(function)
    def checked(*args: P.args, **keywords: P.kwargs) -> T:
        for key, value in keywords.items():
            if key not in known:
                raise ReszooError(_explain(function.__name__, key, value, known))
        return function(*args, **keywords)

    return checked


def _explain(function: str, key: str, value: object, known: tuple[str, ...]) -> str:
    start = f"{function}: {key}={shorten(value)} is invalid"
    if "recipe" in known and (recipe_key := RECIPE_KEYS.get(key)):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        is_text = isinstance(value, str) and recipe_key != "data.name"
        shown = value if is_number or is_text else EXAMPLES.get(recipe_key, 1)
        example = f'{function}(recipe, overrides=["{recipe_key}={shown}"])'
        return f"{start}; it is a key of the recipe. Example: {example}"
    for parameter, others in PARAMETERS.items():
        if parameter in known and key in others.split():
            return f"{start}; expected {parameter}. Example: {function}(..., {parameter}=...)"
    return f"{start}; expected one of {', '.join(known)}{did_you_mean(key, known)}"
