"""Layer responses, as figure 7 of arXiv 1512.03385 shows them: how much does each layer change the signal?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure

from reszoo.errors import ReszooError
from reszoo.lab.record import claim, write_record
from reszoo.lab.report import report
from reszoo.lab.weigh import sample
from reszoo.models.graph import readers
from reszoo.models.settings import fixed_settings
from reszoo.reporting.page import Page, Section, Table
from reszoo.reporting.plots import Plot, Theme, band
from reszoo.training.run import Run

BATCH = 128


def layer_responses(model: keras.Model, images: Any) -> list[dict[str, Any]]:
    """Return the standard deviation of every 3x3 convolution's response over images, pixels and channels, in order of depth.

    images: float32 [n, height, width, channels], as the net takes them; it runs in inference. A response is taken behind the
    batch normalisation that follows the convolution where one does, and before any ReLU or addition: figure 7 of arXiv
    1512.03385. Gives {"layer": the convolution's name, "std": ...} for each. Raises ReszooError for a net without 3x3 convolutions.
    """
    taps = response_taps(model)
    moments = keras.Model(model.input, [_moments(tensor) for tensor in taps.values()])
    sums = np.zeros((len(taps), 2))
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        values = [
            keras.ops.convert_to_numpy(value)
            for value in keras.tree.flatten(moments(batch, training=False))
        ]
        sums += np.array(values, np.float64).reshape(len(taps), 2) * len(batch) / len(images)
    deviations = np.sqrt(np.maximum(sums[:, 1] - sums[:, 0] ** 2, 0))
    return [
        {"layer": name, "std": float(value)} for name, value in zip(taps, deviations, strict=True)
    ]


def response_taps(model: keras.Model) -> dict[str, Any]:
    """Return the tensor in which each 3x3 convolution's response is seen, by the convolution's name."""
    taps = {}
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D) and tuple(layer.kernel_size) == (3, 3):
            after = read[0] if len(read := readers(layer)) == 1 else None
            taps[layer.name] = (
                after.output if isinstance(after, keras.layers.BatchNormalization) else layer.output
            )
    if not taps:
        raise ReszooError(f"{model.name} has no 3x3 convolution whose response could be measured")
    return taps


class LayerResponses(keras.callbacks.Callback):  # type: ignore[misc]
    """Measures `layer_responses` on the same images before training and after every `every`-th epoch.

    `records` is then [{"epoch": 0, "responses": [...]}, ...], epoch 0 being the net as it starts.
    """

    def __init__(self, images: Any, every: int = 1) -> None:
        super().__init__()
        self.images, self.every = images, every
        self.records: list[dict[str, Any]] = []

    def on_train_begin(self, logs: Any = None) -> None:
        """Measure the responses before training."""
        self._measure(0)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Measure the responses, every so many epochs."""
        if (epoch + 1) % self.every == 0:
            self._measure(epoch + 1)

    def _measure(self, epoch: int) -> None:
        self.records.append({"epoch": epoch, "responses": layer_responses(self.model, self.images)})


@fixed_settings()
def responses(
    runs: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str], *, images: int = 1000
) -> dict[str, Any]:
    """Measure the layer responses of finished runs on their own validation images; write record, figures and page to `out`.

    images: how many of them at most; where a run held none out, its training images are taken. Runs of one net are
    drawn as one line with a band. Returns the record. Raises ReszooError for a folder that is no finished run.
    """
    if images < 1:
        raise ReszooError(f"images is {images}, but must be at least 1")
    if not runs:
        raise ReszooError("give the folders of some finished runs")
    folders = [Run.open(path) for path in runs]
    settings = {"runs": [str(run.path.resolve()) for run in folders], "images": images}
    measured = []
    folder = None
    for run in folders:
        model, pixels = run.load_model(), some_images(run, images)
        folder = folder or claim(out, "responses", settings)
        meta = run.meta
        measured.append(
            {
                "run": run.path.name,
                "net": model.name,
                "plain": meta["spec"]["shortcut"] == "none",
                "depth": meta["depth"],
                "data": meta["data"]["name"],
                "images": len(pixels),
                "responses": layer_responses(model, pixels),
            }
        )
    assert folder is not None
    record = write_record(folder, "responses", settings=settings, results={"runs": measured})
    report(folder)
    return record


def some_images(run: Run, count: int) -> np.ndarray:
    """Return up to `count` of a run's validation images, or training images where none are held out, as its net takes them."""
    pipeline = run.open_pipeline()
    pipeline.preprocessing = run.preprocessing
    return sample(
        pipeline, "validation" if pipeline.info.examples["validation"] else "train", count
    )


def _moments(tensor: Any) -> Any:
    """Return the mean and the mean square of a map, as a symbolic tensor [1, 2] that a functional model can give."""
    flat = keras.ops.cast(keras.ops.reshape(tensor, (-1,)), "float32")
    both = keras.ops.stack([keras.ops.mean(flat), keras.ops.mean(keras.ops.square(flat))])
    return keras.ops.expand_dims(both, 0)


def present(record: dict[str, Any]) -> Page:
    """Return the page of a record that `responses` wrote."""
    runs = record["results"]["runs"]
    models: dict[str, dict[str, Any]] = {}
    for run in runs:
        model = models.setdefault(run["net"], {**run, "all": []})
        model["all"].append([row["std"] for row in run["responses"]])
    means = {name: float(np.mean(model["all"])) for name, model in models.items()}
    finding = f"Mean standard deviation of the layers' responses: {', '.join(f'{n} {m:.3f}' for n, m in means.items())}."
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
        f"Response: the output of a 3x3 convolution after batch normalization, before ReLU and addition, in inference; over at "
        f"most {max(run['images'] for run in runs):,} images, pixels and channels. Reference: arXiv 1512.03385, figure 7."
    )
    plots = [
        Plot(
            "responses",
            "Standard deviation of each response, from the input. Bands: sample deviation over runs.",
            lambda f, t: _draw(f, t, models, False),
        ),
        Plot(
            "responses_sorted", "The same, sorted by size.", lambda f, t: _draw(f, t, models, True)
        ),
    ]
    table = Table(["model", "runs", "3x3 layers", "mean std", "mean std, deeper half"], rows, note)
    return Page(
        "Layer responses",
        finding,
        [Section("Standard deviation of each layer's response", [*plots, table])],
    )


def _draw(figure: Figure, theme: Theme, models: dict[str, dict[str, Any]], ordered: bool) -> None:
    axes = figure.subplots()
    depths = sorted({model["depth"] for model in models.values()})
    for name, model in models.items():
        values = np.array(model["all"])
        values = -np.sort(-values, axis=1) if ordered else values
        color = theme.plain if model["plain"] else theme.residual
        style = ["-", (0, (4, 2)), (0, (1, 1.5))][depths.index(model["depth"]) % 3]
        band(axes, np.arange(1, values.shape[1] + 1), values, color, name, linestyle=style)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("layer, sorted by size" if ordered else "layer, from the input")
    axes.set_ylabel("standard deviation of the response")
    axes.legend()
