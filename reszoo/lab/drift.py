"""How far do residual blocks on a trained backbone drift from the identity when they are fine-tuned, and what do they buy?"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from reszoo.config.overrides import Overrides
from reszoo.config.recipe import Recipe
from reszoo.config.resolve import resolve_recipe
from reszoo.data.pipeline import Pipeline, open_pipeline
from reszoo.errors import ReszooError
from reszoo.evaluation.scores import Evaluator
from reszoo.files import atomic_path, write_json
from reszoo.lab.backbone import VGG16, input_fits, load_backbone, recipe_for, trained
from reszoo.lab.drift_page import present as present
from reszoo.lab.probe import DriftCallback as DriftCallback
from reszoo.lab.probe import Probe
from reszoo.lab.probe import measure as measure
from reszoo.lab.record import claim, write_record
from reszoo.lab.report import report
from reszoo.lab.weigh import sample as evenly
from reszoo.models.batchnorm import synchronize_batch_norm
from reszoo.models.freeze import freeze
from reszoo.models.stack import stack
from reszoo.reporting.reporter import Reporter
from reszoo.training.devices import describe, open_strategy, precision
from reszoo.training.optimizers import make_optimizer
from reszoo.training.step import Stepper
from reszoo.training.weight_update import learning_rate_factors

SHARE = 0.1  # of the recipe's rate, in fine-tuning


def drift(
    out: str | os.PathLike[str],
    *,
    backbone: str | os.PathLike[str] = "vgg16",
    recipe: str | None = None,
    overrides: Overrides = (),
    blocks: int = 2,
    at: str | None = None,
    block: str = "basic",
    order: str = "auto",
    train_steps: int = 0,
    steps: int = 200,
    every: int = 20,
    rate: float = 0.0,
    images: int = 256,
    devices: str = "auto",
    quiet: bool = False,
) -> dict[str, Any]:
    """Stack blocks on a backbone, fine-tune it with and without them on the same batches, and return the record of `out`.

    backbone: the folder of a finished run, a `.keras` file of a classifier, "vgg16" (that of `keras.applications`, with a
        pooled linear head and fresh weights of He et al.'s variance) or the name of a reszoo net. The latter two are trained
        first, for `train_steps` updates by the recipe's schedule (0: as long as the recipe says).
    recipe, overrides: data, augmentation, optimizer, batch size, seed and [finetune]; by default a run's own, else
        "quickstart". A backbone named after a zoo model is the recipe's model, with its `model.weights` and other fields.
        [finetune] freezes layers and scales learning rates in all trainings; its probe_epochs must be 0.
    blocks, at, block, order: as in `reszoo.stack`. steps: of fine-tuning, at the constant learning rate `rate` (0: a
        tenth of the recipe's), by a fresh optimizer, the same for both nets.
    every: steps between measurements, each of them on all validation images (test images where none are held out) for
        accuracy and on `images` of them, evenly spaced, for the blocks: see `Probe`.

    `out` gets backbone.keras, stacked.json, control.json, stacked.keras (fine-tuned) and record.json. An interrupted
    experiment goes on where its last finished part ended, when it is called with the same settings.
    Raises ReszooError for input that cannot work, or when a loss is no longer a number.
    """
    for name, value, low in (
        ("steps", steps, 1),
        ("every", every, 1),
        ("images", images, 1),
        ("train_steps", train_steps, 0),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise ReszooError(f"{name}: {value!r} is invalid; expected an integer >= {low}")
    if not 0 <= rate < math.inf:
        raise ReszooError(
            f"rate is {rate}, but must be a learning rate above 0, or 0 for a tenth of the recipe's"
        )
    backbone = str(Path(backbone).resolve()) if trained(str(backbone)) else str(backbone)
    plan = resolve_recipe(recipe_for(backbone, recipe, overrides))
    _refuse_unused(plan)
    if backbone == VGG16 and plan.model.weights:
        raise ReszooError(
            f"model.weights: {plan.model.weights!r} is for {plan.model.name}, but the backbone is vgg16. Fix: name "
            f"{plan.model.name} as the backbone, or give --set model.weights=''"
        )
    strategy = open_strategy(devices)
    if plan.train.deterministic:
        tf.config.experimental.enable_op_determinism()
    pipeline = open_pipeline(plan)
    if trained(backbone):
        train_steps = 0
    else:
        train_steps = train_steps or plan.total_steps(pipeline.steps_per_epoch)
    batch, stated = plan.train.batch_size, plan.schedule.rate_batch
    rate = rate or SHARE * plan.schedule.rate * (batch / stated if stated else 1.0)
    asked: dict[str, Any] = {"blocks": blocks, "at": at, "block": block, "order": order}
    settings: dict[str, Any] = {
        "backbone": backbone,
        **asked,
        "train_steps": train_steps,
        "steps": steps,
        "every": every,
        "rate": rate,
    }
    settings |= {"images": images, "recipe": plan.to_dict()}
    with strategy.scope(), precision(plan.train.precision):
        keras.utils.set_random_seed(plan.train.seed)
        net = load_backbone(backbone, plan, pipeline)
        input_fits(net, pipeline.info, backbone)
        _freeze(
            stack(net, **asked), plan
        )  # rejects what cannot work before anything is written or trained
        learning_rate_factors(net, plan.finetune.stage_decay)
        folder = claim(out, "drift", settings)
        progress = Reporter(log=folder / "drift.log", quiet=quiet)
        lab = _Lab(folder, plan, pipeline, strategy, progress, every)
        try:
            results = _experiment(lab, net, asked, train_steps, steps, rate, images)
        except tf.errors.OpError as error:
            if known := pipeline.explain(error):
                raise known from error
            raise
    settings |= {"data": pipeline.info.name, "split": lab.split, "devices": describe(strategy)}
    record = write_record(folder, "drift", settings=settings, results=results)
    report(folder)
    return record


@dataclass
class _Lab:
    """What all parts of one experiment share."""

    folder: Path
    recipe: Recipe
    pipeline: Pipeline
    strategy: tf.distribute.Strategy
    progress: Reporter
    every: int

    @property
    def split(self) -> str:
        return "validation" if self.pipeline.info.examples["validation"] else "test"

    def part(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return what `make` gives, from its file where it was made before."""
        path = self.folder / f"{name}.json"
        if path.is_file():
            self.progress.line(f"{name}: done before")
            try:
                piece: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
                return piece
            except ValueError:
                raise ReszooError(
                    f"{path} is not JSON; it was changed or damaged: delete it to make it again"
                ) from None
        write_json(path, made := make())
        return made

    def save(self, net: keras.Model, name: str) -> None:
        with atomic_path(self.folder / f"{name}.keras") as part:
            net.save(part)

    def test(self, net: keras.Model) -> dict[str, Any]:
        """Return what a net scores on the test images, and its size."""
        scores = Evaluator(net, classes=self.pipeline.info.classes, strategy=self.strategy)(
            self.pipeline.evaluation("test")
        )
        return {
            "test_accuracy": scores.top1,
            "test_examples": scores.examples,
            "parameters": net.count_params(),
        }

    def train(
        self,
        net: keras.Model,
        name: str,
        rates: Callable[[int], float],
        *,
        first: int,
        steps: int,
        looks: Callable[[], list[dict[str, Any]]] | None = None,
    ) -> list[dict[str, Any]]:
        """Train `net` on the pipeline's batches from `first` on; return a row for step 0, each `every` steps and the end.

        Rows hold the scores on the split and what `looks` gives; "seconds" is the time spent in training alone.
        """
        plan = self.recipe
        _freeze(net, plan)
        if plan.train.batch_norm == "sync":
            synchronize_batch_norm(net)
        optimizer, decay = make_optimizer(plan.optimizer), plan.finetune.stage_decay
        stepper = Stepper(net, optimizer, plan.train, plan.optimizer, self.strategy, decay)
        stepper.spread_seeds()
        score = Evaluator(net, classes=self.pipeline.info.classes, strategy=self.strategy)
        spent, rows = 0.0, []

        def row(step: int) -> dict[str, Any]:
            loss, right, count, _ = stepper.totals.numpy()
            stepper.totals.assign(np.zeros(4))
            if step and not math.isfinite(loss):
                raise ReszooError(
                    f"{name}: the loss is not a number after {step} steps; give a lower rate"
                )
            scores = score(self.pipeline.evaluation(self.split))
            made = {
                "step": step,
                "loss": loss / count if step else None,
                "accuracy": right / count if step else None,
            }
            made |= {
                "val_loss": scores.loss,
                "val_accuracy": scores.top1,
                "examples": scores.examples,
                "seconds": spent,
            }
            self.progress.line(
                f"{name}: step {step}/{steps}  {self.split} accuracy {100 * scores.top1:.2f} %  {spent:.0f} s"
            )
            return made | ({"blocks": looks()} if looks else {})

        rows.append(row(0))
        begun = time.monotonic()
        for step, (images, labels) in enumerate(self.pipeline.train(first).take(steps), 1):
            stepper(images, labels, rates(step - 1))
            if step % self.every == 0 or step == steps:
                stepper.totals.numpy()  # waits for the device
                spent += time.monotonic() - begun
                rows.append(row(step))
                begun = time.monotonic()
        return rows


def _experiment(
    lab: _Lab,
    net: keras.Model,
    asked: dict[str, Any],
    train_steps: int,
    steps: int,
    rate: float,
    images: int,
) -> dict[str, Any]:
    """Run what is not done yet, part by part."""
    seed, kept = lab.recipe.train.seed, lab.folder / "backbone.keras"

    def first() -> dict[str, Any]:
        rows = []
        if train_steps:
            keras.utils.set_random_seed(seed)
            plan, spe = lab.recipe, lab.pipeline.steps_per_epoch
            rows = lab.train(
                net,
                "backbone",
                lambda step: plan.schedule.rate_at(
                    step,
                    total_steps=train_steps,
                    steps_per_epoch=spe,
                    batch_size=plan.train.batch_size,
                ),
                first=0,
                steps=train_steps,
            )
        lab.save(net, "backbone")
        return {"rows": rows, **lab.test(net)}

    def arm(name: str) -> dict[str, Any]:
        keras.utils.set_random_seed(seed)
        start = load_backbone(str(kept), lab.recipe, lab.pipeline)
        if name == "control":
            rows = lab.train(start, name, lambda step: rate, first=train_steps, steps=steps)
            return {"rows": rows, **lab.test(start)}
        tuned = stack(start, **asked)
        difference = float(np.abs(_outputs(start, sample) - _outputs(tuned, sample)).max())
        found = {
            "added": list(tuned.growth.added),
            "random_difference": tuned.growth.difference,
            "difference": difference,
        }
        lab.progress.line(
            f"stacked {', '.join(tuned.growth.added)}: outputs differ by at most {difference:.3g}"
        )
        probe = Probe(tuned)
        rows = lab.train(
            tuned,
            name,
            lambda step: rate,
            first=train_steps,
            steps=steps,
            looks=lambda: probe(sample),
        )
        lab.save(tuned, "stacked")
        return {"rows": rows, **found, **lab.test(tuned)}

    before = lab.part("backbone", first)
    sample = evenly(lab.pipeline, lab.split, images)
    arms = {name: lab.part(name, partial(arm, name)) for name in ("stacked", "control")}
    return {"backbone": before, **arms}


def _outputs(net: keras.Model, images: Any, batch: int = 64) -> np.ndarray[Any, Any]:
    parts = [net(images[at : at + batch], training=False) for at in range(0, len(images), batch)]
    return np.concatenate(
        [np.asarray(keras.ops.convert_to_numpy(part), np.float64) for part in parts]
    )


def _freeze(net: keras.Model, recipe: Recipe) -> None:
    """Freeze what the recipe freezes; a model whose recipe freezes nothing keeps the flags that it was saved with."""
    if recipe.finetune.freeze != "none":
        freeze(net, recipe.finetune.freeze, recipe.finetune.batch_norm)


def _refuse_unused(recipe: Recipe) -> None:
    """Raise ReszooError for keys that this experiment's loop does not support."""
    remedies: dict[str, bool] = {
        "train.ema=0": recipe.train.ema > 0,
        'train.select="last"': recipe.train.select == "best",
        'train.grow_from=""': bool(recipe.train.grow_from),
        'schedule.kind="cosine"': recipe.schedule.kind == "plateau",
        "finetune.probe_epochs=0": recipe.finetune.probe_epochs > 0,
        "train.jit=false": recipe.train.jit,
        "data.on_device=false": recipe.data.on_device,
    }
    for remedy, unsupported in remedies.items():
        if unsupported:
            raise ReszooError(
                f"{remedy.split('=')[0]}: lab drift does not support the value in {recipe.name}. Fix: --set {remedy}"
            )
