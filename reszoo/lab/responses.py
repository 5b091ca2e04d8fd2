"""Standard deviation of layer responses. Reference: arXiv 1512.03385, figure 7."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from matplotlib.figure import Figure

from reszoo.data.pipeline import Pipeline
from reszoo.errors import ReszooError
from reszoo.lab.digit_models import train_named
from reszoo.lab.record import check_count, claim_folder, write_record
from reszoo.lab.report import write_report
from reszoo.lab.sampling import sample_images
from reszoo.lab.trained import TrainedModel, open_trained
from reszoo.models.graph import readers
from reszoo.models.settings import fixed_settings
from reszoo.reporting.page import Page, Section, Table
from reszoo.reporting.plots import Plot, Theme, band
from reszoo.reporting.reporter import Reporter
from reszoo.training.run import Run
from reszoo.types import Array, JsonObject, Tensor
from reszoo.zoo.catalog import spec

BATCH = 128
MODELS = ("plain20", "resnet20", "plain56", "resnet56")


def layer_responses(model: keras.Model, images: Tensor | Array) -> list[JsonObject]:
    """Return {"layer", "std"} per 3x3 convolution, in order of depth, in inference.

    std is the standard deviation of the response over images, pixels and channels. The response is
    taken after the batch normalization that follows the convolution, if any, and before any ReLU or
    addition.

    Args:
        model: A functional model.
        images: float32 [n, h, w, c], as the model takes them.

    Raises:
        ReszooError: For a model without 3x3 convolutions.

    Reference: arXiv 1512.03385, figure 7.
    """
    outputs = _response_outputs(model)
    moments = keras.Model(model.input, [_moments(tensor) for tensor in outputs.values()])
    sums = np.zeros((len(outputs), 2))
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        found = keras.tree.flatten(moments(batch, training=False))
        values = np.array([keras.ops.convert_to_numpy(value) for value in found], np.float64)
        sums += values.reshape(len(outputs), 2) * len(batch) / len(images)
    deviations = np.sqrt(np.maximum(sums[:, 1] - sums[:, 0] ** 2, 0))
    return [
        {"layer": name, "std": float(value)}
        for name, value in zip(outputs, deviations, strict=True)
    ]


def _response_outputs(model: keras.Model) -> JsonObject:
    """Return the tensor of each 3x3 convolution's response, by the convolution's name."""
    outputs = {}
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D) and tuple(layer.kernel_size) == (3, 3):
            after = readers(layer)
            normalized = len(after) == 1 and isinstance(after[0], keras.layers.BatchNormalization)
            outputs[layer.name] = (after[0] if normalized else layer).output
    if not outputs:
        raise ReszooError(f"{model.name} has no 3x3 convolution whose response can be measured")
    return outputs


def _moments(tensor: Tensor) -> Tensor:
    """Return the mean and the mean square of a map, as a symbolic tensor [1, 2]."""
    flat = keras.ops.cast(keras.ops.reshape(tensor, (-1,)), "float32")
    both = keras.ops.stack([keras.ops.mean(flat), keras.ops.mean(keras.ops.square(flat))])
    return keras.ops.expand_dims(both, 0)


class LayerResponses(keras.callbacks.Callback):  # type: ignore[misc]
    """Measures `layer_responses` before training and after every `every`-th epoch.

    `records` is [{"epoch": 0, "responses": [...]}, ...]; epoch 0 is the model before training.
    """

    def __init__(self, images: Tensor | Array, every: int = 1) -> None:
        super().__init__()
        check_count("every", every, 1)
        self.images, self.every = images, every
        self.records: list[JsonObject] = []

    def on_train_begin(self, logs: JsonObject | None = None) -> None:
        """Measure the responses before training."""
        self._measure(0)

    def on_epoch_end(self, epoch: int, logs: JsonObject | None = None) -> None:
        """Measure the responses after every `every`-th epoch."""
        if (epoch + 1) % self.every == 0:
            self._measure(epoch + 1)

    def _measure(self, epoch: int) -> None:
        self.records.append({"epoch": epoch, "responses": layer_responses(self.model, self.images)})


@fixed_settings()
def responses(
    out: str | os.PathLike[str],
    *,
    runs: Sequence[str | os.PathLike[str]] = (),
    data: str = "",
    images: int = 1000,
    budget: int = 0,
    devices: str = "auto",
    quiet: bool = False,
) -> JsonObject:
    """Measure the layer responses of trained models on their own images; return the record.

    Args:
        out: The folder of the experiment.
        runs: Folders of finished runs, NAME@WEIGHTS of published weights, or names of models that
            are trained on digits first; by default `MODELS`. Runs of one model are drawn as one
            line with a band.
        data: The dataset of published weights.
        images: Number of validation images at most; of training images if none are held out.
        budget: Steps of training on digits; 0: the recipe's.
        devices: Of the training, as `reszoo train --devices`.
        quiet: Print nothing.

    Raises:
        ReszooError: For a folder that is not a finished run, or an unknown model.
    """
    check_count("images", images, 1)
    names = [str(name) for name in runs] or list(MODELS)
    folders = {name: Path(name) for name in names if Path(name).is_dir() or os.sep in name}
    found = {name: Run.open(path) for name, path in folders.items()}
    for run in found.values():
        run.reject_unfinished()
    published = {name: open_trained([name], data)[0] for name in names if "@" in name}
    own = [name for name in names if name not in found | published]
    for name in own:
        spec(name)
    settings: JsonObject = {
        "runs": [str(folders[name].resolve()) if name in folders else name for name in names]
    }
    settings |= {"data": data, "images": images, "budget": budget}
    folder = claim_folder(out, "responses", settings)
    reporter = Reporter(log=folder / "responses.log", quiet=quiet)
    found |= train_named(own, folder / "runs", budget=budget, devices=devices, reporter=reporter)
    measured = [
        _measure_run(found[name], images)
        if name in found
        else _measure_published(published[name], images)
        for name in names
    ]
    results = {"runs": measured, "measures": compare_responses(measured)}
    record = write_record(folder, "responses", settings=settings, results=results)
    write_report(folder)
    return record


def _measure_run(run: Run, images: int) -> JsonObject:
    pipeline = run.open_pipeline()
    pipeline.preprocessing = run.preprocessing
    model, sample = run.load_model(), sample_images(pipeline, _split(pipeline), images)
    return {
        "run": run.path.name,
        "model": model.name,
        "plain": run.meta.get("spec", {}).get("shortcut") == "none",
        "depth": run.meta.get("depth", 0),
        "data": run.meta["data"]["name"],
        "images": len(sample),
        "responses": layer_responses(model, sample),
    }


def _measure_published(found: TrainedModel, images: int) -> JsonObject:
    sample = found.sample(_split(found.pipeline), images)[0]
    return {
        "run": found.name,
        "model": found.name,
        "plain": found.kind == "plain",
        "depth": found.depth,
        "data": found.pipeline.info.name,
        "images": len(sample),
        "responses": layer_responses(found.model, sample),
    }


def _split(pipeline: Pipeline) -> str:
    return "validation" if pipeline.info.examples["validation"] else "train"


def compare_responses(runs: Sequence[JsonObject]) -> JsonObject:
    """Return ratios of mean standard deviations.

    residual_to_plain: at the smallest ("shallow") and the largest ("deep") depth of which both were
    measured. deep_to_shallow: of the deepest model to the shallowest, for "plain" and "residual"
    models, if there are two.
    """
    means: dict[str, dict[int, list[float]]] = {"plain": {}, "residual": {}}
    for run in runs:
        own = means["plain" if run["plain"] else "residual"].setdefault(run["depth"], [])
        own.append(float(np.mean([row["std"] for row in run["responses"]])))
    plain, residual = (
        {depth: float(np.mean(values)) for depth, values in sorted(kind.items())}
        for kind in means.values()
    )
    ratios = [residual[depth] / plain[depth] for depth in plain if depth in residual]
    return {
        "residual_to_plain": {"shallow": ratios[0], "deep": ratios[-1]} if ratios else {},
        "deep_to_shallow": {
            kind: own[max(own)] / own[min(own)]
            for kind, own in (("plain", plain), ("residual", residual))
            if len(own) > 1
        },
    }


def make_page(record: JsonObject) -> Page:
    """Return the report of a record that `responses` wrote."""
    runs = record["results"]["runs"]
    models: dict[str, JsonObject] = {}
    for run in runs:
        model = models.setdefault(run["model"], {**run, "all": []})
        model["all"].append([row["std"] for row in run["responses"]])
    means = {name: float(np.mean(model["all"])) for name, model in models.items()}
    shown = ", ".join(f"{name} {mean:.3f}" for name, mean in means.items())
    rows = [
        [
            name,
            str(len(model["all"])),
            str(len(model["responses"])),
            f"{means[name]:.3f}",
            f"{np.mean([stds[len(stds) // 2 :] for stds in model['all']]):.3f}",
        ]
        for name, model in models.items()
    ]
    note = (
        "Response: the output of a 3x3 convolution after batch normalization, before ReLU and "
        f"addition, in inference; over at most {max(run['images'] for run in runs):,} images, "
        "pixels and channels. Reference: arXiv 1512.03385, figure 7."
    )
    plots = [
        Plot(
            "responses",
            "Standard deviation of each response. Bands: sample deviation over runs.",
            lambda figure, theme: _draw(figure, theme, models, ordered=False),
        ),
        Plot(
            "responses_sorted",
            "The same, sorted by size.",
            lambda figure, theme: _draw(figure, theme, models, ordered=True),
        ),
    ]
    table = Table(["model", "runs", "3x3 layers", "mean std", "mean std, deeper half"], rows, note)
    finding = f"Mean standard deviation of the layers' responses: {shown}."
    title = "Standard deviation of each layer's response"
    return Page("Layer responses", finding, [Section(title, [*plots, table])])


def _draw(figure: Figure, theme: Theme, models: dict[str, JsonObject], ordered: bool) -> None:
    axes = figure.subplots()
    depths = sorted({model["depth"] for model in models.values()})
    for name, model in models.items():
        values = np.array(model["all"])
        values = -np.sort(-values, axis=1) if ordered else values
        color = theme.plain if model["plain"] else theme.residual
        style = ["-", (0, (4, 2)), (0, (1, 1.5))][depths.index(model["depth"]) % 3]
        band(axes, np.arange(1, values.shape[1] + 1), values, color, name, linestyle=style)
    axes.set_xlabel("layer, sorted by size" if ordered else "layer, from the input")
    axes.set(ylabel="standard deviation of the response", ylim=(0, None))
    axes.legend()
