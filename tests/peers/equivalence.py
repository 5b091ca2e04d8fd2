"""Recipes trained by reszoo and by the original libraries' code, from equal weights and batches.

As a program, the record in docs/results:

    python -m tests.peers.equivalence --peer PYTHON --out docs/results/equivalence.json

PYTHON is the interpreter of an environment with torch, torchvision and timm. Each recipe is loaded
from its file and shrunk: a model of a few channels, small images, `STEPS` updates. The schedule is
compressed into them, with all its drops.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from reszoo.config.load import load_recipe
from reszoo.config.recipe import Recipe
from reszoo.data.mixing import draw_mix
from reszoo.data.pipeline import Pipeline, open_dataset
from reszoo.data.random_keys import BATCH, fold_in, make_key
from reszoo.models.settings import fixed_settings
from reszoo.training.averaging import WeightAverages
from reszoo.training.setup import make_model, make_stepper
from reszoo.training.workers import Workers
from reszoo.weights.convert import variables
from reszoo.weights.layouts import get_layout

BATCH_SIZE, STEPS_PER_EPOCH, EPOCHS = 16, 5, 20
STEPS = STEPS_PER_EPOCH * EPOCHS
TOLERANCE = 1e-5  # of the norm of each tensor, in float64


@dataclass(frozen=True)
class Proof:
    """A recipe and its original.

    Attributes:
        recipe: The name of the recipe.
        original: What `original_training.py` calls the other side.
        library: What of the other side is a library's own code.
        batch: Learning rates are scaled on both sides by `BATCH_SIZE` / `batch`. Higher ones let
            rounding grow: small batches are chaotic.
        changes: Overrides that compress the schedule.
    """

    recipe: str
    original: str
    library: str
    batch: int
    changes: dict[str, Any] = field(default_factory=dict)


PROOFS = (
    Proof(
        "cifar10_resnet20_akamaster",
        "akamaster",
        "PyTorch: SGD, MultiStepLR, CrossEntropyLoss",
        128,
        {"schedule.boundaries": [10, 15]},
    ),
    Proof(
        "imagenet_resnet50_torchvision",
        "torchvision_v1",
        "PyTorch: SGD, StepLR, CrossEntropyLoss",
        256,
        {"schedule.boundaries": [7, 14], "data.resize": 0},
    ),
    Proof(
        "imagenet_resnet50_bag_of_tricks",
        "bag_of_tricks",
        "PyTorch: SGD with Nesterov momentum",
        4096,
        {"data.resize": 0},
    ),
    Proof(
        "imagenet_resnet50_v2",
        "torchvision_v2",
        "PyTorch: SGD, LinearLR, CosineAnnealingLR, SequentialLR, CrossEntropyLoss, AveragedModel; "
        "torchvision: MixUp, CutMix, split_normalization_params",
        4096,
        {"data.resize": 0, "data.train_sizes": [], "train.ema_every": 2},
    ),
    *(
        Proof(
            f"imagenet_resnet50_{name}",
            f"timm_{name}",
            "timm: Lamb, CosineLRScheduler, BinaryCrossEntropy, Mixup, param_groups_weight_decay",
            1024,
            {"data.resize": 0, "data.interpolation": "bilinear"}
            | ({"data.train_sizes": []} if name == "a3" else {}),
        )
        for name in ("a1", "a2", "a3")
    ),
    Proof(
        "finetune_bit",
        "bit",
        "PyTorch: SGD, CrossEntropyLoss",
        64,
        {
            "model.weights": "",
            "model.name": "resnet50_v1_5",
            "data.normalize": "channel",
            "augment.scale": [48, 48],
            "schedule.warmup": 5,
            "schedule.boundaries": [31, 61, 91],
        },
    ),
)


@dataclass(frozen=True)
class Departure:
    """What another reading of a recipe would change.

    Attributes:
        name: What is done otherwise.
        recipe: The name of the recipe.
        changes: Overrides that do it.
    """

    name: str
    recipe: str
    changes: dict[str, Any]


DEPARTURES = (
    Departure(
        "momentum adds up updates, not gradients",
        "cifar10_resnet20_akamaster",
        {"optimizer.velocity": "updates"},
    ),
    Departure(
        "biases and batch norm decay",
        "imagenet_resnet50_bag_of_tricks",
        {"optimizer.decay_norms": True},
    ),
    Departure(
        "the learning rate drops on time",
        "finetune_bit",
        {"schedule.boundaries": [30, 60, 90]},
    ),
    Departure(
        "the learning rate changes at each step",
        "imagenet_resnet50_a1",
        {"schedule.every": "step"},
    ),
    Departure(
        "LAMB without decay in its update",
        "imagenet_resnet50_a1",
        {"optimizer.decay": "decoupled"},
    ),
)


def shrink(proof: Proof, **more: Any) -> Recipe:
    """Return the recipe on a small model and small images."""
    cifar = proof.original == "akamaster"
    changes: dict[str, Any] = {
        "data.name": "synthetic",
        "data.validation": 0,
        "data.examples": BATCH_SIZE * STEPS_PER_EPOCH,
        "data.image_size": [16, 16] if cifar else [48, 48],
        "train.batch_size": BATCH_SIZE,
        "augment.repeats": 1,
        "train.steps": STEPS,
        "schedule.rate_batch": proof.batch,
        "model.widths": [16, 32, 64] if cifar else [8, 16, 32, 64],
        "model.depths": [1, 1, 1] if cifar else [1, 1, 1, 1],
    }
    if not cifar:  # timm's stem has 64 channels, unless it is deep
        changes["model.stem_width"] = 8 if proof.original == "bag_of_tricks" else 64
    return load_recipe(proof.recipe, changes | proof.changes | more)


def batches(recipe: Recipe) -> tuple[Pipeline, Pipeline]:
    """Return the recipe's batches, and the same batches before they are mixed."""
    plain = recipe.augment.model_copy(update={"mixup": 0.0, "cutmix": 0.0})
    given = recipe.batches()
    return tuple(open_dataset(recipe.data, each, **given) for each in (recipe.augment, plain))


def export(model: keras.Model, recipe: Recipe) -> dict[str, np.ndarray]:
    """Return the weights by the names of PyTorch's models, in the model's dtype."""
    layout = get_layout("akamaster" if recipe.model.spec.stem == "cifar" else "timm")
    return {
        layout.find_name(name, recipe.model.spec): np.ascontiguousarray(
            layout.to_theirs(variable.numpy())
        )
        for name, variable in variables(model)
    }


def draw_mixes(recipe: Recipe, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Return how reszoo mixes each batch, and the random numbers behind it, for timm's Mixup."""
    found: dict[str, list[Any]] = {
        name: [] for name in ("shares", "boxes", "mix_shares", "mix_draws")
    }
    augment = recipe.augment
    for step in range(STEPS):
        key = make_key(recipe.train.seed, BATCH, step, 5)
        mix = draw_mix(augment, size, key)
        used = tf.random.stateless_uniform([4], fold_in(key, 0), dtype=tf.float64).numpy()
        cut = augment.cutmix and (not augment.mixup or used[1] < augment.cutmix_probability)
        alpha = tf.constant(augment.cutmix if cut else augment.mixup, tf.float64)
        gammas = tf.random.stateless_gamma([2], fold_in(key, 1), alpha, dtype=tf.float64)
        found["shares"].append(float(mix.share))
        found["boxes"].append(mix.box.numpy())
        found["mix_shares"].append(float(gammas[0] / tf.reduce_sum(gammas)))
        found["mix_draws"].append(used)
    return {name: np.array(values) for name, values in found.items()}


def draw_masks(model: keras.Model, drop_path: float) -> np.ndarray | None:
    """Return the factors of each branch in the steps to come: [steps, blocks, examples]."""
    if not drop_path:
        return None
    layers = [layer for layer in model.layers if layer.name.endswith("_drop_path")]
    starts = [layer.seed_generator.state.numpy() for layer in layers]
    ones = tf.ones([BATCH_SIZE, 1, 1, 1], tf.float64)
    drawn = [[layer(ones, training=True) for layer in layers] for _ in range(STEPS)]
    for layer, start in zip(layers, starts, strict=True):
        layer.seed_generator.state.assign(start)
    return np.array(drawn).reshape(STEPS, len(layers), BATCH_SIZE)


def train(proof: Proof, recipe: Recipe, dtype: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train as reszoo does.

    Returns:
        The job for the other side, and what came out: weights, averages, losses and rates.
    """
    spec = recipe.model.spec
    with fixed_settings(dtype):
        pipeline, plain = batches(recipe)
        strategy = tf.distribute.get_strategy()
        with strategy.scope():
            keras.utils.set_random_seed(recipe.train.seed)
            model = make_model(recipe, pipeline)
            stepper = make_stepper(model, recipe, pipeline.info, strategy, Workers(strategy))
        masks = draw_masks(model, spec.drop_path)
        job: dict[str, Any] = {f"weights/{k}": v for k, v in export(model, recipe).items()}
        losses, rates = [], []
        given = zip(pipeline.train(), plain.train(), range(STEPS), strict=False)
        images, labels = [], []
        for (mixed, targets), (image, label), step in given:
            rate = recipe.schedule.rate_at(
                step,
                total_steps=recipe.total_steps(pipeline.steps_per_epoch),
                steps_per_epoch=pipeline.steps_per_epoch,
                batch_size=recipe.train.batch_size,
            )
            before = stepper.totals.numpy()[0]
            stepper.share = recipe.train.ema_share(step, pipeline.steps_per_epoch)
            stepper(mixed, targets, rate, len(targets))
            losses.append((stepper.totals.numpy()[0] - before) / len(targets))
            rates.append(rate)
            images.append(image.numpy())
            labels.append(label.numpy())
    job |= {"images": np.stack(images), "labels": np.stack(labels)}
    if recipe.augment.mixes:
        job |= draw_mixes(recipe, (pipeline.info.input_shape[0], pipeline.info.input_shape[1]))
    if masks is not None:
        job["masks"] = masks
    settings = {
        "original": proof.original,
        "dtype": dtype,
        "scale": BATCH_SIZE / proof.batch,
        "epochs": EPOCHS,
        "steps_per_epoch": STEPS_PER_EPOCH,
        "classes": pipeline.info.classes,
        "widths": spec.widths,
        "depths": spec.depths,
        "deep": spec.stem == "deep",
        "averages_every": recipe.train.ema_every,
    }
    result = {f"weights/{name}": value for name, value in export(model, recipe).items()}
    if stepper.averages:
        WeightAverages(stepper.averaged, stepper.averages).show()
        result |= {f"averages/{name}": value for name, value in export(model, recipe).items()}
    return job | {"settings": json.dumps(settings)}, result | {"losses": losses, "rates": rates}


def ask(python: str, job: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return what the original's code makes of a job."""
    program = Path(__file__).with_name("original_training.py")
    with tempfile.TemporaryDirectory() as scratch:
        paths = [str(Path(scratch) / name) for name in ("job.npz", "result.npz")]
        np.savez(paths[0], **job)
        subprocess.run([python, str(program), *paths], check=True, timeout=600)
        return dict(np.load(paths[1]))


def apart(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the norm of the difference over the norm."""
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def compare(ours: dict[str, Any], theirs: dict[str, Any], job: dict[str, Any]) -> dict[str, float]:
    """Return how far apart two results are, and how far training went.

    Running variances are left out: PyTorch's are of the variance over n - 1.
    """
    found: dict[str, float] = {}
    for kind in ("weights", "averages"):
        names = [n for n in theirs if n.startswith(f"{kind}/") and not n.endswith("running_var")]
        if names:
            found[kind] = max(apart(ours[name], theirs[name]) for name in names)
    found["rates"] = float(np.abs(np.array(ours["rates"]) - theirs["rates"]).max())
    found["rates"] /= float(theirs["rates"].max())
    found["losses"] = float(np.abs(np.array(ours["losses"]) / theirs["losses"] - 1).max())
    kernels = [name for name in job if name.startswith("weights/") and job[name].ndim > 1]
    found["moved"] = float(np.median([apart(job[name], theirs[name]) for name in kernels]))
    return found


def prove(proof: Proof, python: str, dtype: str) -> tuple[dict[str, float], dict[str, float]]:
    """Train on both sides, and reszoo also with each departure.

    Returns:
        How far apart the results are, and the distance of the weights by the name of a departure;
        none in float32.
    """
    job, ours = train(proof, shrink(proof), dtype)
    theirs = ask(python, job)
    others = {}
    for departure in DEPARTURES if dtype == "float64" else ():
        if departure.recipe == proof.recipe:
            _, other = train(proof, shrink(proof, **departure.changes), dtype)
            others[departure.name] = compare(other, theirs, job)["weights"]
    return compare(ours, theirs, job), others


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", required=True, help="the other environment's Python")
    parser.add_argument("--out", type=Path, required=True, help="where to write the record")
    parser.add_argument("--only", default="", help="recipes whose name contains this")
    args = parser.parse_args()
    known = json.loads(args.out.read_text()) if args.out.exists() else {"rows": []}
    rows = {row["recipe"]: row for row in known["rows"]}
    for proof in PROOFS:
        if args.only not in proof.recipe:
            continue
        row: dict[str, Any] = {"recipe": proof.recipe, "library": proof.library}
        for dtype in ("float64", "float32"):
            row[dtype], others = prove(proof, args.peer, dtype)
            row.setdefault("departures", others)
            print(proof.recipe, dtype, row[dtype], others, flush=True)
        rows[proof.recipe] = row
        ordered = [rows[each.recipe] for each in PROOFS if each.recipe in rows]
        how = "python -m tests.peers.equivalence --peer PYTHON --out FILE"
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({"how": how, "rows": ordered}, indent=1) + "\n")


if __name__ == "__main__":
    main()
