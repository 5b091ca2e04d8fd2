"""Standard deviations of layer responses, against NumPy."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

import reszoo
from reszoo.errors import ReszooError
from reszoo.lab import responses as lab
from reszoo.lab.report import finding
from reszoo.lab.responses import (
    LayerResponses,
    compare_responses,
    layer_responses,
    responses,
)
from reszoo.lab.trained import open_trained
from reszoo.training.run import Run
from tests.models.helpers import BASIC, BOTTLENECK, images, randomize


def test_responses_are_those_of_figure_7() -> None:
    """After the normalization, before ReLU and addition; by NumPy from the maps."""
    batch = images((130, 9, 9, 3))
    block = "stage1_block2"
    cases = (
        (BASIC, {"stem_conv1": "stem_bn1", "stage2_block1_conv2": "stage2_block1_bn2"}),
        (BOTTLENECK, {f"{block}_conv2": f"{block}_bn2"}),
        (
            BASIC.replace(order="pre"),
            {f"{block}_conv1": f"{block}_bn2", f"{block}_conv2": f"{block}_conv2"},
        ),
    )
    for spec, names in cases:
        model = reszoo.build(spec, input_shape=(9, 9, 3))
        randomize(model, 0)
        found = {row["layer"]: row["std"] for row in layer_responses(model, batch)}
        sizes = {layer.name: getattr(layer, "kernel_size", None) for layer in model.layers}
        assert list(found) == [name for name, size in sizes.items() if size == (3, 3)]
        for conv, tap in names.items():
            maps = keras.Model(model.input, model.get_layer(tap).output)(batch, training=False)
            assert found[conv] == pytest.approx(np.asarray(maps, np.float64).std(), rel=1e-4)


def test_responses_of_runs_leave_a_report(done: Path, tmp_path: Path) -> None:
    runs = [done / "runs" / f"{name}-seed0" for name in ("plain14", "resnet14")]
    record = responses(tmp_path / "out", runs=runs, images=30)
    found = record["results"]["runs"]
    assert [(len(run["responses"]), run["images"], run["plain"]) for run in found] == [
        (13, 30, True),
        (13, 30, False),
    ]
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert made >= {"record.json", "responses.png", "report.html"}
    means = [np.mean([row["std"] for row in run["responses"]]) for run in found]
    assert f"plain14 {means[0]:.3f}, resnet14 {means[1]:.3f}" in finding(record)
    assert record["results"]["measures"]["residual_to_plain"] == {
        "shallow": pytest.approx(means[1] / means[0]),
        "deep": pytest.approx(means[1] / means[0]),
    }
    with pytest.raises(ReszooError, match="begun with images"):
        responses(tmp_path / "out", runs=runs, images=20)


def test_models_are_trained_or_published(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs of another experiment stand for models that are trained first and published ones."""
    folders = {name: done / "runs" / f"{name}-seed0" for name in ("resnet8", "resnet14")}

    def pretend(names: list[str], folder: Path, **options: object) -> dict[str, Run]:
        assert folder == tmp_path / "out/runs" and options["budget"] == 7
        return {name: Run(folders[name]) for name in names}

    monkeypatch.setattr(lab, "train_named", pretend)
    monkeypatch.setattr(
        lab, "open_trained", lambda names, data: open_trained([str(folders["resnet14"])])
    )
    names = ["resnet14", "resnet8", "resnet14@somewhere"]
    record = responses(tmp_path / "out", runs=names, images=10, budget=7, quiet=True)
    trained, shallow, published = record["results"]["runs"]
    assert trained["responses"] == published["responses"] != shallow["responses"]
    assert (published["depth"], published["plain"], published["images"]) == (14, False, 10)
    assert list(record["results"]["measures"]["deep_to_shallow"]) == ["residual"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("runs/nothing", "runs/nothing"), ("resnet21", "resnet21"), ("resnet20@akamaster", "data: ")],
)
def test_unknown_models_are_rejected_before_anything_is_written(
    name: str, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(ReszooError, match=reason):
        responses(tmp_path / "out", runs=[name], quiet=True)
    assert not (tmp_path / "out").exists()


def test_responses_are_compared_by_their_means() -> None:
    runs = [
        {"plain": plain, "depth": depth, "responses": [{"std": std}, {"std": std + 1}]}
        for plain, depth, std in (
            (True, 20, 1.5), (False, 20, 0.5), (False, 56, 0), (False, 56, 1), (False, 110, 0.25), (True, 110, 2.5),
        )
    ]  # fmt: skip
    assert compare_responses(runs) == {
        "residual_to_plain": {"shallow": 0.5, "deep": 0.25},
        "deep_to_shallow": {"plain": 1.5, "residual": 0.75},
    }


def test_the_callback_measures_while_a_model_trains() -> None:
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(10, 3, name="conv")(inputs))
    model = keras.Model(inputs, x)
    batch, labels = images((16, 8, 8, 1)), np.arange(16) % 10
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    callback = LayerResponses(batch, every=2)
    model.fit(batch, labels, epochs=4, verbose=0, callbacks=[callback])
    first, *_, last = callback.records
    assert [row["epoch"] for row in callback.records] == [0, 2, 4]
    assert last["responses"] == layer_responses(model, batch) != first["responses"]
