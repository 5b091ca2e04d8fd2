"""Drift: block by block against NumPy, as a callback, and the whole experiment at a tiny size, broken off and gone on with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

import reszoo
from reszoo import ReszooError
from reszoo.data.pipeline import open_dataset, open_pipeline
from reszoo.images.preprocessing import Preprocessing
from reszoo.lab import drift as lab
from reszoo.lab.backbone import logits, recipe_for
from reszoo.lab.drift import DriftCallback, drift, measure, present
from reszoo.lab.report import report
from reszoo.models.stack import stack
from reszoo.reporting.page import Table
from reszoo.weights import load, published
from reszoo.weights.convert import export_arrays
from reszoo.weights.formats import RemoteFile
from reszoo.weights.published import Weights

L = keras.layers
SMALL: dict[str, Any] = {
    "backbone": "resnet8",
    "train_steps": 3,
    "steps": 2,
    "every": 1,
    "images": 20,
    "quiet": True,
}
SMALL["overrides"] = ["train.batch_size=16", "data.examples=200"]


def images(shape: tuple[int, ...], seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def by_hand() -> keras.Model:
    """An identity block in post-activation, and one whose shortcut is a projection, by 1x1 convolutions."""
    inputs = keras.Input((2, 3, 4))
    x = inputs
    branch = L.Conv2D(4, 1, name="a_conv1")(x)
    x = L.ReLU(name="a_relu")(L.Add(name="a_add")([x, branch]))
    branch = L.Conv2D(5, 1, name="b_conv1")(x)
    # The branch first, as in Keras' EfficientNets; both tensors are the block's own, so the first is taken for the shortcut.
    x = L.Add(name="b_add")([L.Conv2D(5, 1, name="b_shortcut")(x), branch])
    x = L.Add(name="c_add")([L.Conv2D(5, 1, name="c_conv1")(x), x])
    return keras.Model(inputs, L.Add(name="three_add")([x, x, x]))


def numbers(model: keras.Model, x: np.ndarray[Any, Any]) -> list[tuple[float, float]]:
    """Return (ratio, cosine) of the blocks of `by_hand` in NumPy."""

    def conv(name: str, x: Any) -> Any:
        kernel, bias = (
            np.asarray(value, np.float64) for value in model.get_layer(name).get_weights()
        )
        return x @ kernel[0, 0] + bias

    def compare(x: Any, branch: Any, output: Any) -> tuple[float, float]:
        ratios = [np.sqrt((b**2).sum() / (a**2).sum()) for a, b in zip(x, branch, strict=True)]
        cosines = [
            (a * o).sum() / np.sqrt((a**2).sum() * (o**2).sum())
            for a, o in zip(x, output, strict=True)
        ]
        return float(np.mean(ratios)), float(np.mean(cosines))

    x = x.astype(np.float64)
    f = conv("a_conv1", x)
    out = np.maximum(x + f, 0)
    rows, x = [compare(x, f, out)], out
    s, f = conv("b_shortcut", x), conv("b_conv1", x)
    rows, x = [*rows, compare(s, f, s + f)], s + f
    f = conv("c_conv1", x)
    return [*rows, compare(x, f, x + f)]


def test_measure_is_what_numpy_says() -> None:
    keras.utils.set_random_seed(3)
    model = by_hand()
    x = images((7, 2, 3, 4))
    found = measure(model, x, batch_size=3)  # the last batch is short
    assert [(row["block"], row["identity"]) for row in found] == [
        ("a", True),
        ("b", False),
        ("c", True),
    ]
    np.testing.assert_allclose(
        [(row["ratio"], row["cosine"]) for row in found], numbers(model, x), rtol=1e-5
    )


def test_an_image_that_is_nowhere_positive_is_left_out() -> None:
    model = by_hand()
    x = images((4, 2, 3, 4))
    x[1] = 0
    found, without = measure(model, x)[0], measure(model, x[[0, 2, 3]])[0]
    assert found["ratio"] == pytest.approx(without["ratio"])
    assert np.isnan(measure(model, np.zeros((2, 2, 3, 4), np.float32))[0]["ratio"])


@pytest.mark.parametrize(("name", "blocks"), [("resnet8", 3), ("resnet8_v2", 3), ("wrn10_1", 3)])
def test_every_block_of_a_net_is_found(name: str, blocks: int) -> None:
    found = measure(reszoo.build(name, input_shape=(8, 8, 3)), images((2, 8, 8, 3)))
    assert len(found) == blocks and found[0]["block"] == "stage1_block1"
    assert [row["identity"] for row in found].count(False) == 2
    assert all(row["ratio"] > 0 and -1 <= row["cosine"] <= 1 for row in found)


def test_the_output_is_what_leaves_the_block() -> None:
    """With the normalisation after the addition, that is the ReLU behind it."""
    spec = reszoo.spec("resnet8", order="bn_after_add")
    blocks = lab.Probe(reszoo.build(spec, input_shape=(8, 8, 3))).blocks
    names = [block.output._keras_history.operation.name for block in blocks]
    assert names == [f"stage{stage}_block1_relu2" for stage in (1, 2, 3)]


def test_stacked_blocks_start_as_the_identity() -> None:
    found = measure(stack(reszoo.build("plain8", input_shape=(8, 8, 3))), images((4, 8, 8, 3)))
    assert [row["block"] for row in found] == ["stack_block1", "stack_block2"]
    assert all(
        row["ratio"] == 0 and row["cosine"] == pytest.approx(1, abs=1e-12) and row["identity"]
        for row in found
    )


@settings(max_examples=20, deadline=None)
@given(every=st.one_of(st.integers(max_value=0), st.floats(), st.booleans(), st.text()))
def test_bad_arguments_of_the_measures_are_refused(every: Any) -> None:
    with pytest.raises(ReszooError, match="every is"):
        DriftCallback(images((1, 8, 8, 3)), every=every)


def test_nets_without_blocks_are_refused() -> None:
    with pytest.raises(ReszooError, match="plain8 has no residual blocks"):
        measure(reszoo.build("plain8", input_shape=(8, 8, 3)), images((1, 8, 8, 3)))
    with pytest.raises(ReszooError, match="no graph"):
        measure(keras.Model(), images((1, 8, 8, 3)))
    with pytest.raises(ReszooError, match="no images"):
        measure(by_hand(), images((0, 2, 3, 4)))


def test_the_callback_measures_before_and_after_epochs_in_fit() -> None:
    model = stack(reszoo.build("plain8", input_shape=(8, 8, 1)), blocks=1)
    model.compile(
        keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    batch = images((16, 8, 8, 1))
    seen = DriftCallback(batch, every=2)
    model.fit(batch, np.arange(16) % 10, epochs=4, batch_size=8, verbose=0, callbacks=[seen])
    assert [row["epoch"] for row in seen.history] == [0, 2, 4]
    ratios = [row["blocks"][0]["ratio"] for row in seen.history]
    assert ratios[0] == 0 < ratios[1] < ratios[2]
    assert seen.history[-1]["blocks"] == measure(model, batch)


def test_the_callback_measures_in_reszoos_own_training(tmp_path: Path) -> None:
    seen = DriftCallback(images((4, 8, 8, 1)))
    overrides = ["model.name=resnet8", "train.epochs=2", "train.export=false", "data.examples=64"]
    reszoo.train(
        "quickstart", overrides=overrides, run_dir=tmp_path / "run", callbacks=[seen], quiet=True
    )
    assert [row["epoch"] for row in seen.history] == [0, 1, 2]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A whole tiny experiment: its folder and record."""
    out = tmp_path_factory.mktemp("drift") / "out"
    return out, drift(out, **SMALL)


def test_both_arms_start_alike_and_only_one_has_blocks(done: tuple[Path, dict[str, Any]]) -> None:
    out, record = done
    results = record["results"]
    stacked, control = results["stacked"], results["control"]
    assert [row["step"] for row in results["backbone"]["rows"]] == [0, 1, 2, 3]
    assert (
        [row["step"] for row in stacked["rows"]]
        == [row["step"] for row in control["rows"]]
        == [0, 1, 2]
    )
    for key in ("val_accuracy", "val_loss"):
        assert (
            stacked["rows"][0][key]
            == control["rows"][0][key]
            == results["backbone"]["rows"][-1][key]
        )
    assert stacked["difference"] == stacked["random_difference"] == 0
    assert stacked["added"] == ["stack_block1", "stack_block2"]
    blocks = [
        {block["block"]: block["ratio"] for block in row["blocks"]} for row in stacked["rows"]
    ]
    assert blocks[0]["stack_block1"] == 0 < blocks[1]["stack_block1"] < blocks[2]["stack_block1"]
    assert stacked["parameters"] > control["parameters"] == results["backbone"]["parameters"]
    assert (
        record["settings"]["rate"] == pytest.approx(0.01)
        and record["settings"]["split"] == "validation"
    )
    tuned = keras.models.load_model(out / "stacked.keras")
    assert tuned.get_layer("stack_block1_bn2").gamma.numpy().any()


def test_both_arms_read_the_batches_that_follow_the_backbones(
    done: tuple[Path, dict[str, Any]],
) -> None:
    """The loss of the first step is that of the saved backbone on the batch behind those it was trained on."""
    out, record = done
    recipe = recipe_for("resnet8", None, SMALL["overrides"])
    pipeline = open_dataset(recipe.data, recipe.augment, batch_size=16, seed=0)
    net = keras.models.load_model(out / "backbone.keras")
    batch, labels = next(iter(pipeline.train(3)))
    loss = (
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels, net(batch, training=True))
        .numpy()
        .mean()
    )
    for arm in ("control", "stacked"):
        assert record["results"][arm]["rows"][1]["loss"] == pytest.approx(loss, rel=1e-5)


@pytest.mark.slow
def test_a_broken_experiment_goes_on_and_ends_alike(
    done: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    plain_train, calls = lab._Lab.train, []

    def train(self: Any, net: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        if calls == ["backbone", "stacked"]:
            raise KeyboardInterrupt
        return plain_train(self, net, name, *args, **kwargs)

    monkeypatch.setattr(lab._Lab, "train", train)
    with pytest.raises(KeyboardInterrupt):
        drift(out, **SMALL)
    assert not (out / "record.json").exists() and (out / "backbone.json").is_file()
    record = drift(out, **SMALL)
    assert calls == ["backbone", "stacked", "stacked", "control"]

    def timeless(record: dict[str, Any]) -> Any:
        return json.loads(
            json.dumps(record["results"]),
            object_hook=lambda d: {k: v for k, v in d.items() if k != "seconds"},
        )

    assert timeless(record) == timeless(done[1])
    with pytest.raises(ReszooError, match="was begun with steps = 2, not 5"):
        drift(out, **{**SMALL, "steps": 5})


def test_the_page_says_what_was_measured(done: tuple[Path, dict[str, Any]]) -> None:
    out, record = done
    page = present(record)
    assert page.title == "Drift from the identity: resnet8 on digits"
    ends = [
        100 * record["results"][arm]["rows"][-1]["val_accuracy"] for arm in ("stacked", "control")
    ]
    assert (
        f"is {ends[0]:.1f} % with the blocks and {ends[1]:.1f} % without" in page.finding
        and "agree bit for bit" in page.sections[0].finding
    )
    arms = record["results"]
    rows = [arms["stacked"]["rows"][0], arms["control"]["rows"][-1], arms["stacked"]["rows"][-1]]
    expected = [
        [
            label,
            str(row["step"]),
            f"{row['val_accuracy']:.2%}".replace("%", " %"),
            f"{arms[arm]['test_accuracy']:.2%}".replace("%", " %"),
            f"{arms[arm]['parameters']:,}",
        ]
        for (label, arm), row in zip(
            {
                "backbone": "backbone",
                "without the blocks": "control",
                "with the blocks": "stacked",
            }.items(),
            rows,
            strict=True,
        )
    ]
    table = page.sections[2].items[1]
    assert isinstance(table, Table) and table.rows == expected
    text = report(out).read_text()
    assert "stack_block2" in text
    assert {path.stem for path in out.glob("*.png")} == {
        "drift_ratio",
        "drift_cosine",
        "drift_accuracy",
    }


def test_a_verdict_needs_more_than_chance(done: tuple[Path, dict[str, Any]]) -> None:
    record = json.loads(json.dumps(done[1]))
    arms = record["results"]
    for gain, told in (
        (0.02, "2.0 points more, within two standard errors for 150 images"),
        (0.3, "30.0 points more."),
    ):
        arms["control"]["rows"][-1]["val_accuracy"], arms["stacked"]["rows"][-1]["val_accuracy"] = (
            0.5,
            0.5 + gain,
        )
        assert present(record).finding.endswith(told if told.endswith(".") else f"{told}.")


def test_a_file_that_ends_in_a_softmax_is_a_backbone(tmp_path: Path) -> None:
    inputs = keras.Input((8, 8, 1))
    x = L.GlobalAveragePooling2D()(L.Conv2D(8, 3, activation="relu", name="conv")(inputs))
    keras.Model(inputs, L.Dense(10, activation="softmax")(x), name="own").save(
        tmp_path / "own.keras"
    )
    record = drift(
        tmp_path / "out", **{**SMALL, "backbone": tmp_path / "own.keras", "steps": 1, "blocks": 1}
    )
    assert record["results"]["backbone"]["rows"] == [] and record["settings"]["train_steps"] == 0
    assert (
        record["results"]["stacked"]["rows"][0]["val_loss"] > 2
    )  # of logits: a softmax twice would flatten it


@pytest.mark.parametrize("end", ["dense", "activation", "layer", "none"])
def test_logits_are_what_the_softmax_is_taken_of(end: str) -> None:
    inputs = keras.Input((4,))
    x = L.Dense(3, activation="softmax" if end == "dense" else None, name="dense")(inputs)
    x = (
        L.Activation("softmax")(x)
        if end == "activation"
        else L.Softmax()(x)
        if end == "layer"
        else x
    )
    net = keras.Model(inputs, x)
    batch = images((5, 4))
    kernel, bias = net.get_layer("dense").get_weights()
    np.testing.assert_allclose(np.asarray(logits(net)(batch)), batch @ kernel + bias, rtol=1e-5)


NO_PROBE = ["finetune.probe_epochs=0"]
REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "no net": ({"backbone": "resnet21"}, "resnet21"),
    "no run": ({"backbone": "some/where"}, "is no run folder"),
    "no file": ({"backbone": "net.keras"}, "no file .*net.keras"),
    "too small": (
        {"backbone": "vgg16", "recipe": "quickstart"},
        "at least 32x32 pixels.*image_size",
    ),
    "steps": ({"steps": 0}, "steps: 0 is invalid; expected an integer >= 1"),
    "every": ({"every": 0.5}, "every: 0.5 is invalid; expected an integer"),
    "images": ({"images": -1}, "images: -1 is invalid; expected an integer"),
    "rate": ({"rate": -0.1}, "rate is -0.1"),
    "averages": ({"overrides": ["train.ema=0.9"]}, "train.ema: .*Fix: --set train.ema=0"),
    "best": ({"overrides": ["train.select=best"]}, "Fix: --set train.select"),
    "compiled": ({"overrides": ["train.jit=true"]}, "train.jit: .*Fix: --set train.jit=false"),
    "on the device": ({"overrides": ["data.on_device=true"]}, "Fix: --set data.on_device=false"),
    "probe": ({"overrides": ["finetune.probe_epochs=1"]}, "Fix: --set finetune.probe_epochs=0"),
    "vgg16's weights": (
        {"backbone": "vgg16", "recipe": "finetune", "overrides": NO_PROBE},
        "'imagenet' is for resnet50",
    ),
    "freeze without stages": (
        {"backbone": "vgg16", "overrides": ["finetune.freeze=stage1"]},
        "has no layers named stage1_block1",
    ),
    "place": ({"at": "stage9_block1_add"}, "no layer 'stage9_block1_add'; did you mean"),
    "order": ({"at": "stage1_block1_conv1", "order": "post"}, "can be negative"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_work_is_refused_before_anything_is_written(case: str, tmp_path: Path) -> None:
    given_, reason = REFUSALS[case]
    with pytest.raises(ReszooError, match=reason) as caught:
        drift(tmp_path / "out", **{**SMALL, **given_})
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_a_file_of_other_data_is_refused(tmp_path: Path) -> None:
    reszoo.build("resnet8").save(tmp_path / "cifar.keras")
    with pytest.raises(
        ReszooError, match=r"maps \(32, 32, 3\) to \(10,\), but digits has images of \(8, 8, 1\)"
    ):
        drift(tmp_path / "out", **{**SMALL, "backbone": tmp_path / "cifar.keras"})
    (tmp_path / "broken.keras").write_bytes(b"nothing")
    with pytest.raises(ReszooError, match="cannot be read as a Keras model"):
        drift(tmp_path / "out", **{**SMALL, "backbone": tmp_path / "broken.keras"})


# Published weights, and what is frozen


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Weights:
    """Published weights of resnet8 whose file is at hand."""
    model = reszoo.build("resnet8")
    save_file(
        export_arrays(model, reszoo.spec("resnet8"), "akamaster"), tmp_path / "weights.safetensors"
    )
    row = Weights(
        model="resnet8",
        tag="someone/v1",
        layout="akamaster",
        data="cifar10",
        top1=90.0,
        top5=None,
        transforms=Preprocessing((32, 32), 3, 0, (0.5, 0.4, 0.3), (0.3, 0.2, 0.1)),
        licence="BSD-2-Clause",
        source="https://weights.example",
        files=(
            RemoteFile(
                url="https://weights.example/resnet8.safetensors", digest="sha256:" + 64 * "0"
            ),
        ),
    )
    known = published.published()
    monkeypatch.setattr(published, "published", lambda: (row, *known))
    monkeypatch.setattr(load, "fetch", lambda file: tmp_path / "weights.safetensors")
    return row


FINE: dict[str, Any] = {**SMALL, "recipe": "finetune", "train_steps": 1, "steps": 1, "blocks": 1}
FINE["overrides"] = [
    "data.name=digits",
    "data.validation=100",
    "data.examples=64",
    "train.batch_size=16",
    "model.weights=someone/v1",
    "finetune.probe_epochs=0",
    "finetune.freeze=stage2",
]


@pytest.mark.slow
def test_published_weights_are_fine_tuned_as_their_recipe_says(
    weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    monkeypatch.setattr(
        lab,
        "open_pipeline",
        lambda *args, **kw: opened.append(open_pipeline(*args, **kw)) or opened[-1],
    )
    drift(tmp_path / "out", **FINE)
    assert opened[0].preprocessing.std == pytest.approx((0.3, 0.2, 0.1)) and opened[
        0
    ].info.input_shape == (32, 32, 3)
    start = reszoo.build("resnet8", weights="someone/v1")
    for name in ("backbone", "stacked"):
        model = keras.models.load_model(tmp_path / "out" / f"{name}.keras")
        moved = {
            layer.name.split("_")[0]
            for layer in start.layers
            for old, new in zip(
                layer.get_weights(), model.get_layer(layer.name).get_weights(), strict=True
            )
            if layer.name != "head_dense" and not np.array_equal(old, new)
        }
        assert moved == {"stage3"}, name
    assert model.get_layer("stack_block1_bn2").gamma.numpy().any()  # new blocks learn


@pytest.mark.slow
def test_a_run_from_published_weights_is_a_backbone(weights: Weights, tmp_path: Path) -> None:
    overrides = [*FINE["overrides"], "model.name=resnet8", "train.epochs=1", "train.export=false"]
    run = reszoo.train("finetune", overrides=overrides, run_dir=tmp_path / "run", quiet=True).run
    record = drift(
        tmp_path / "out",
        **{**SMALL, "backbone": run.path, "overrides": [], "steps": 1, "blocks": 1},
    )
    scores = json.loads((run.path / "test.json").read_text())
    assert record["results"]["backbone"]["test_accuracy"] == scores["top1"]
