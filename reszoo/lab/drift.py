"""Stack residual blocks on a trained backbone and fine-tune it with and without them."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from reszoo.config.overrides import Overrides
from reszoo.config.resolve import ResolvedRecipe, resolve_recipe
from reszoo.config.schedule import ConstantSchedule
from reszoo.data.pipeline import Pipeline, open_pipeline
from reszoo.errors import ReszooError
from reszoo.evaluation.evaluator import Evaluator
from reszoo.files import write_json
from reszoo.lab.backbone import VGG16, is_trained, load_backbone, recipe_for
from reszoo.lab.probe import Probe
from reszoo.lab.record import check_count, claim_folder, read_json, write_record
from reszoo.lab.report import write_report
from reszoo.lab.runs import fit, is_finished, open_trainer
from reszoo.lab.sampling import sample_images
from reszoo.models.settings import fixed_settings
from reszoo.models.stack import stack
from reszoo.reporting.reporter import Reporter
from reszoo.trainer import Trainer
from reszoo.training.devices import describe, open_strategy, precision
from reszoo.training.run import Run
from reszoo.training.setup import make_model
from reszoo.training.weight_update import learning_rate_factors
from reszoo.types import Array, JsonObject

RATE_SHARE = 0.1  # of the recipe's learning rate, in fine-tuning
BATCH = 64


@fixed_settings()
def drift(
    out: str | os.PathLike[str],
    *,
    backbone: str | os.PathLike[str] = VGG16,
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
) -> JsonObject:
    """Fine-tune a backbone with and without stacked blocks on the same batches; return the record.

    `out`/runs holds an ordinary run folder for each training: backbone (unless it is trained
    already), stacked and control. The same call resumes a stopped experiment.

    Args:
        out: The folder of the experiment.
        backbone: The folder of a finished run, a `.keras` file of a classifier, "vgg16" (that of
            `keras.applications`, with a pooled linear head and fresh weights of He et al.'s
            variance) or the name of a reszoo model. The latter two are trained first.
        recipe: Gives data, augmentation, optimizer, batch size, seed and [finetune]; by default a
            run's own, else "quickstart". A backbone named after a reszoo model is its model.
        overrides: Recipe keys to change.
        blocks: Number of stacked blocks; `at`, `block` and `order` are those of `reszoo.stack`.
        at: The layer on which they are stacked.
        block: "basic" or "bottleneck".
        order: "auto", "post" or "pre".
        train_steps: Steps of training the backbone first; 0: the recipe's length.
        steps: Steps of fine-tuning, at a constant learning rate, with a new optimizer.
        every: Steps between measurements.
        rate: The learning rate of fine-tuning; 0: a tenth of the recipe's.
        images: Number of images, evenly spaced, on which blocks are measured.
        devices: As `reszoo train --devices`.
        quiet: Print nothing; drift.log gets every line all the same.

    Raises:
        ReszooError: For input that cannot work, before anything is written; and when the loss is
            no longer a number.
    """
    for name, value, least in (
        ("steps", steps, 1),
        ("every", every, 1),
        ("images", images, 1),
        ("train_steps", train_steps, 0),
    ):
        check_count(name, value, least)
    if not 0 <= rate < math.inf:
        raise ReszooError(f"rate: {rate} is invalid; expected a learning rate > 0, or 0")
    backbone = str(Path(backbone).resolve()) if is_trained(str(backbone)) else str(backbone)
    base = resolve_recipe(recipe_for(backbone, recipe, overrides))
    for key, given in (
        ("model.weights", base.model.weights),
        ("train.grow_from", base.train.grow_from),
    ):
        if backbone == VGG16 and given:
            raise ReszooError(
                f"{key}: {given!r} is invalid for the backbone vgg16; expected ''. "
                f"Example: --set {key}=''"
            )
    if train_steps:
        base = base.replace(train=base.train.replace(steps=train_steps, epochs=0.0))
    strategy = open_strategy(devices)
    pipeline = open_pipeline(base)
    placement: JsonObject = {"blocks": blocks, "at": at, "block": block, "order": order}
    with precision(base.train.precision):  # rejects what cannot work before anything is written
        keras.utils.set_random_seed(base.train.seed)
        model = make_model(
            base,
            pipeline,
            given=lambda data: stack(load_backbone(backbone, base, data), **placement),
        )
        learning_rate_factors(model, base.finetune)
    batch, stated = base.train.batch_size, base.schedule.rate_batch
    rate = rate or RATE_SHARE * base.schedule.rate * (batch / stated if stated else 1.0)
    total = 0
    if not is_trained(backbone):
        total = base.total_steps(pipeline.steps_per_epoch)
        base.probe_steps(pipeline.steps_per_epoch)
    settings: JsonObject = {"backbone": backbone, **placement, "train_steps": total, "steps": steps}
    settings |= {"every": every, "rate": rate, "images": images, "recipe": base.to_dict()}
    folder = claim_folder(out, "drift", settings)
    reporter = Reporter(log=folder / "drift.log", quiet=quiet)
    split = "validation" if pipeline.info.examples["validation"] else "test"
    trained = (
        backbone
        if is_trained(backbone)
        else _train_backbone(folder / "runs" / "backbone", backbone, base, devices, reporter)
    )
    fine = base.replace(
        schedule=ConstantSchedule(kind="constant", rate=rate),
        finetune=base.finetune.replace(probe_epochs=0.0),
        train=base.train.replace(
            steps=steps, epochs=0.0, evaluate_every=steps, select="last", grow_from="", export=False
        ),
        published=None,
    )
    arms = _Arms(
        trained,
        fine,
        placement,
        sample_images(pipeline, split, images),
        split,
        every,
        devices,
        reporter,
    )
    results = {name: arms.run(folder / "runs" / name, name) for name in ("stacked", "control")}
    scores = Evaluator(
        load_backbone(trained, base, pipeline), classes=pipeline.info.classes, strategy=strategy
    )(pipeline.evaluation("test"))
    results["backbone"] = {
        "test_accuracy": scores.top1,
        "test_examples": scores.examples,
        "parameters": results["control"]["parameters"],
    }
    results["measures"] = compare_arms(results["stacked"], results["control"])
    settings |= {"data": pipeline.info.name, "split": split, "devices": describe(strategy)}
    record = write_record(folder, "drift", settings=settings, results=results)
    write_report(folder)
    return record


def compare_arms(stacked: JsonObject, control: JsonObject) -> JsonObject:
    """Return the numbers that claims are about.

    largest_ratio, smallest_cosine: of the new blocks, after fine-tuning. output_change: the largest
    change of an output by the new blocks. gain: points of test accuracy with the blocks minus those
    without.
    """
    new = [row for row in stacked["rows"][-1]["blocks"] if row["block"] in stacked["added"]]
    ratios, cosines = ([row[key] for row in new] for key in ("ratio", "cosine"))
    return {
        "largest_ratio": None if None in ratios else max(ratios),
        "smallest_cosine": None if None in cosines else min(cosines),
        "output_change": stacked["difference"],
        "gain": 100 * (stacked["test_accuracy"] - control["test_accuracy"]),
    }


def _train_backbone(
    path: Path, backbone: str, recipe: ResolvedRecipe, devices: str, reporter: Reporter
) -> str:
    """Train a backbone in the run folder `path`, unless it is finished there; return the folder."""
    if not is_finished(Run(path)):
        reporter.line(f"training the backbone: {path}")
        recipe = recipe.replace(published=None, train=recipe.train.replace(export=False))
        own = backbone == VGG16  # other names are the recipe's model
        make = (lambda pipeline: load_backbone(backbone, recipe, pipeline)) if own else None
        trainer = open_trainer(path, recipe, devices, make)
        fit(trainer, reporter)
        trainer.finish()
    return str(path)


@dataclass(frozen=True)
class _Arms:
    """What the two trainings from the backbone share."""

    backbone: str
    recipe: ResolvedRecipe
    placement: JsonObject
    sample: Array
    split: str
    every: int
    devices: str
    reporter: Reporter

    def run(self, path: Path, name: str) -> JsonObject:
        """Train an arm in the run folder `path`, unless it is finished; return what was measured.

        measurements.json holds what was measured at the start, and one row per measurement.
        """
        file = path / "measurements.json"
        if not is_finished(Run(path)):
            trainer = open_trainer(path, self.recipe, self.devices, getattr(self, f"_make_{name}"))
            self._fit(trainer, name, file)
            trainer.finish()
        measured, test = read_json(file), read_json(path / "test.json")
        return {
            **measured["start"],
            "rows": measured["rows"],
            "test_accuracy": test["top1"],
            "test_examples": test["examples"],
            "parameters": Run(path).meta["parameters"],
        }

    def _make_control(self, pipeline: Pipeline) -> keras.Model:
        return load_backbone(self.backbone, self.recipe, pipeline)

    def _make_stacked(self, pipeline: Pipeline) -> keras.Model:
        return stack(self._make_control(pipeline), **self.placement)

    def _fit(self, trainer: Trainer, name: str, file: Path) -> None:
        """Train to the end, with a measurement at the start, every so many steps and at the end."""
        loop, total = trainer.loop, trainer.loop.total
        measured = read_json(file) or {"start": {}, "rows": []}
        rows = {row["step"]: row for row in measured["rows"] if row["step"] <= loop.step}
        probe = Probe(trainer.model) if name == "stacked" else None
        for step in [*range(0, total, self.every), total]:
            if step in rows:
                continue
            if step < loop.step:
                raise ReszooError(
                    f"{file} lacks step {step}; delete the folder {file.parent} to train it again"
                )
            if step:
                fit(trainer, self.reporter, step)
            rows[step] = self._measure(trainer, probe)
            if probe and not step:
                measured["start"] = self._compare_start(trainer)
            write_json(file, {"start": measured["start"], "rows": list(rows.values())})
            accuracy = 100 * rows[step]["val_accuracy"]
            self.reporter.line(f"{name}: step {step}/{total}  {self.split} {accuracy:.2f} %")
        fit(trainer, self.reporter)

    def _measure(self, trainer: Trainer, probe: Probe | None) -> JsonObject:
        last = trainer.loop.history[-1] if trainer.loop.step else {}
        if "val_accuracy" not in last:
            scores = trainer.evaluator(trainer.pipeline.evaluation(self.split))
            last = {**last, "val_loss": scores.loss, "val_accuracy": scores.top1}
        return {
            "step": trainer.loop.step,
            **{key: last.get(key) for key in ("loss", "accuracy", "val_loss", "val_accuracy")},
            "examples": trainer.pipeline.info.examples[self.split],
            **({"blocks": probe(self.sample)} if probe else {}),
        }

    def _compare_start(self, trainer: Trainer) -> JsonObject:
        """Return the new blocks, and how far they change the outputs before fine-tuning."""
        before = self._make_control(trainer.pipeline)
        difference = 0.0
        for start in range(0, len(self.sample), BATCH):
            batch = self.sample[start : start + BATCH]
            one, other = (
                np.asarray(keras.ops.convert_to_numpy(model(batch, training=False)), np.float64)
                for model in (before, trainer.model)
            )
            difference = max(difference, float(np.abs(one - other).max()))
        growth = trainer.model.growth
        return {
            "added": list(growth.added),
            "random_difference": growth.difference,
            "difference": difference,
        }
