"""Exports: whole or not at all, described, and never a result that differs from what was asked for."""

from __future__ import annotations

import dataclasses
import json
import resource
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
from PIL import Image

import reszoo
from reszoo.cli.main import main
from reszoo.errors import ReszooError
from reszoo.evaluation.source import Source, open_source
from reszoo.exporting import export as exporting
from reszoo.exporting.export import export_model
from reszoo.exporting.samples import Sample, choose_samples, photographs
from reszoo.images.preprocessing import Preprocessing
from reszoo.models.batchnorm import BatchNormalization
from reszoo.models.build import build

MEAN, STD = np.array([0.5, 0.4, 0.3], "float32"), np.array([0.2, 0.3, 0.25], "float32")


def test_the_folder_explains_itself(exported: Any) -> None:
    out, report = exported.out, exported.report
    assert sorted(path.name for path in out.iterdir()) == ["1", "README.md", "card.json"]
    files = ["assets", "fingerprint.pb", "saved_model.pb", "variables"]
    assert sorted(path.name for path in (out / "1").iterdir()) == files
    assets = out / "1" / "assets"
    assert (assets / "class_names.txt").read_text().splitlines() == list(exported.class_names)
    prepared = json.loads((assets / "preprocessing.json").read_text())
    assert Preprocessing.from_dict(prepared) == exported.preprocessing
    check = report.check
    assert report.path == str(out) and check.probability_difference <= 1e-5
    assert (check.images, check.what, check.agreement) == (3, "mine", 1.0)
    best = [exported.model(row[None]).numpy().argmax() for row in inputs(exported)]
    right = np.mean([own == label for own, label in zip(best, exported.sample.labels, strict=True)])
    assert check.accuracy == check.keras_accuracy == right
    size = sum(path.stat().st_size for path in (out / "1").rglob("*") if path.is_file())
    card = json.loads((out / "card.json").read_text())
    assert report.bytes == card["bytes"] == size and card["check"] == check.to_dict()
    assert card["parameters"] == 9 + 6 + 12 * 12 + 12 and list(card["signatures"])[2] == "features"
    assert (report.folded, report.kept) == (1, 0)
    assert [path.name for path in out.parent.iterdir()] == [out.name], "no temporary folder stays"


def inputs(exported: Any) -> np.ndarray:
    prepared = exported.preprocessing
    return prepared.apply(exported.sample.inputs(prepared)).numpy()


@pytest.fixture
def sharp() -> Source:
    """A model of 12 x 10 inputs, made from a resized side of 16, that reacts to every pixel; its size is free."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((12, 10, 3))
    x = keras.layers.Conv2D(16, 3, data_format="channels_last", use_bias=False)(inputs)
    x = keras.layers.ReLU()(BatchNormalization()(x))
    x = keras.layers.GlobalMaxPooling2D(data_format="channels_last")(x)
    model = keras.Model(inputs, keras.layers.Dense(5)(x))
    preprocessing = Preprocessing((12, 10), 3, 16, MEAN, STD)
    return Source(
        name="sharp", load=lambda: model, preprocessing=preprocessing, class_names=tuple("abcde")
    )


def by_pil(
    model: keras.Model,
    path: Path,
    side: int,
    size: tuple[int, int],
    shift: tuple[int, int] = (0, 0),
) -> np.ndarray:
    """Probabilities by PIL and Keras: shorter side to `side`, the middle `size`, or `shift` pixels beside it."""
    image = Image.open(path)
    sides = [one * side // min(image.size) for one in image.size]
    image = image.resize(sides, Image.Resampling.BILINEAR)
    left, top = (
        round((have - want) / 2) for have, want in zip(image.size, size[::-1], strict=True)
    )
    left, top = left + shift[1], top + shift[0]
    pixels = np.asarray(image.crop((left, top, left + size[1], top + size[0])), np.float32)
    found = ((pixels / 255 - MEAN) / STD).astype(np.float32)[None]
    for layer in model.layers[1:]:
        found = layer(found)
    return tf.nn.softmax(found).numpy()[0]


@pytest.mark.parametrize("name", ["onnx", pytest.param("savedmodel", marks=pytest.mark.slow)])
def test_another_image_size_resizes_in_the_same_ratio(
    name: str, sharp: Source, tmp_path: Path
) -> None:
    """Every answer against PIL: a side of 16 for 12 x 10 is one of 32 for 24 x 20, and nothing else."""
    image = np.random.default_rng(5).integers(0, 256, (67, 90, 3), np.uint8)
    image[..., 0] = np.linspace(0, 255, 90)  # across and down, so that each crop is another
    image[..., 1] = np.linspace(255, 0, 67)[:, None]
    file, out, model = tmp_path / "a.png", tmp_path / "out", sharp.load()
    Image.fromarray(image).save(file)
    reszoo.export(sharp, out, format=name, image_size=(24, 20))
    card = json.loads((out / "card.json").read_text())
    assert (card["preprocessing"]["resize"], card["preprocessing"]["image_size"]) == (32, [24, 20])
    wanted = by_pil(model, file, 32, (24, 20))
    if name == "savedmodel":
        loaded = tf.saved_model.load(str(out / "1"))
        found = loaded.signatures["image_bytes"](image_bytes=tf.constant([file.read_bytes()]))
        given = found["probabilities"][0].numpy()
    else:  # with the preprocessing that lies beside the file
        prepared = Preprocessing.from_dict(json.loads((out / "preprocessing.json").read_text()))
        pixels = prepared.to_input(image).numpy()[None].astype(np.float32)
        session = onnxruntime.InferenceSession(out / "model.onnx")
        given = session.run(["probabilities"], {"images": pixels})[0][0]
    np.testing.assert_allclose(given, wanted, atol=1e-3)  # PIL rounds a few pixels otherwise
    for side in (24, 27, 31, 33, 40, 67):
        assert np.abs(by_pil(model, file, side, (24, 20)) - wanted).max() > 3e-3, side
    for shift in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        assert np.abs(by_pil(model, file, 32, (24, 20), shift) - wanted).max() > 3e-3, shift


class Stopped(Exception):
    """Raised where an export would be written."""


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stop each export where its model would be written, and return what would be."""
    seen: list[Any] = []

    def stop(folder: Path, format: Any, artifact: Any) -> None:
        seen.append(artifact)
        raise Stopped

    monkeypatch.setattr(exporting, "_write", stop)
    return seen


@pytest.mark.parametrize("folding", [True, False])
def test_folding_is_done_where_it_is_asked_for(
    folding: bool,
    sharp: Source,
    written: list[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the function and by the command."""
    monkeypatch.setattr("reszoo.cli.export.open_model", lambda *_: sharp)
    words = ["export", "sharp", str(tmp_path / "out"), *([] if folding else ["--no-fold"])]
    for export in (
        lambda: reszoo.export(sharp, tmp_path / "out", fold_norms=folding),
        lambda: main(words),
    ):
        with pytest.raises(Stopped):
            export()
    for artifact in written:
        kinds = [type(layer).__name__ for layer in artifact.model.layers]
        assert ("BatchNormalization" in kinds) is not folding and "Conv2D" in kinds
    assert len(written) == 2 and not list(tmp_path.iterdir())


def test_an_image_size_may_be_one_side(sharp: Source, written: list[Any], tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        reszoo.export(sharp, tmp_path / "out", image_size=20)
    (artifact,) = written
    assert artifact.preprocessing.input_shape == (20, 20, 3)
    assert artifact.preprocessing.resize == 32 and artifact.model.input_shape == (None, 20, 20, 3)
    for size in (0, -8, (8,), (8, 8, 8), (8, 0), 8.5):
        with pytest.raises(ReszooError, match="image_size: .* is invalid; expected a side or"):
            reszoo.export(sharp, tmp_path / "out", image_size=size)


LICENSED = {
    "model": "resnet8",
    "tag": "someone/v1",
    "source": "example.org",
    "license": "CC-BY-NC-4.0",
}


@pytest.mark.parametrize(
    ("weights", "license"),
    [(LICENSED, "CC-BY-NC-4.0"), ("mine.weights.h5", "not specified"), (None, "not specified")],
)
def test_the_card_names_the_license_of_the_weights(
    weights: Any, license: str, sharp: Source, tmp_path: Path
) -> None:
    """A program reads it from card.json, a person from README.md."""
    source = dataclasses.replace(sharp, details={"weights": weights} if weights else {})
    reszoo.export(source, tmp_path / "out", format="onnx")
    assert json.loads((tmp_path / "out" / "card.json").read_text())["license"] == license
    assert f"| license | {license} |" in (tmp_path / "out" / "README.md").read_text()


def test_an_export_that_predicts_one_class_is_described_so(
    sharp: Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three images of "a" and one of "b", all called "a": accuracy 75 %, but half of the classes."""
    model = sharp.load()
    model.layers[-1].bias.assign([100.0, 0, 0, 0, 0])
    images = list(np.random.default_rng(0).integers(0, 256, (4, 30, 30, 3), np.uint8))
    report = reszoo.export(
        sharp, tmp_path / "out", format="onnx", check=Sample(images, np.array([0, 0, 1, 0]), "mine")
    )
    check = report.check
    assert (check.accuracy, check.balanced_accuracy, check.single_class) == (0.75, 0.5, 0)
    text = (tmp_path / "out" / "README.md").read_text()
    assert (
        "- accuracy 75.00 %" in text and "- balanced accuracy (mean of the classes) 50.00 %" in text
    )
    assert (
        "every image was predicted as 'a'" in text
        and "every image was predicted as 'a'" in report.one_class
    )
    same = reszoo.export(
        sharp, tmp_path / "one", format="onnx", check=Sample(images, np.zeros(4, int), "mine")
    )
    assert same.check.single_class is None and not same.one_class, "all images are of that class"
    bare = reszoo.export(
        sharp, tmp_path / "bare", format="onnx", check=Sample(images, None, "mine")
    )
    assert (bare.check.balanced_accuracy, bare.check.single_class) == (None, None)


@pytest.mark.parametrize(
    "failure", [ReszooError("no"), KeyboardInterrupt(), OSError("disk full")], ids=repr
)
@pytest.mark.parametrize("occupied", [False, True])
def test_whatever_stops_it_leaves_nothing(
    failure: BaseException,
    occupied: bool,
    sharp: Source,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise failure

    out = tmp_path / "out"
    if occupied:
        out.mkdir()
    monkeypatch.setattr(exporting, "check_export", fail)
    with pytest.raises(type(failure)) as caught:
        reszoo.export(sharp, out, format="onnx", check=photographs(2))
    if isinstance(failure, ReszooError):
        assert str(caught.value) == f"no; {out} was not written"
    assert [path.name for path in tmp_path.iterdir()] == ["out"] * occupied
    assert not occupied or not any(out.iterdir())


def test_a_full_disk_is_one_error_and_leaves_nothing(sharp: Source, tmp_path: Path) -> None:
    """What a full disk looks like to a program: writing fails after a while."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        with pytest.raises(OSError) as caught:
            reszoo.export(sharp, tmp_path / "out")
    finally:  # before pytest writes anything of its own
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_an_existing_output_is_an_error_and_kept(sharp: Source, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    for out, line in (
        (tmp_path, "is not empty; give a new folder"),
        (tmp_path / "mine", "mine is a file; give a new folder"),
        (tmp_path / "mine" / "out", "cannot be made: .*mine is not a folder"),
    ):
        with pytest.raises(ReszooError, match=line):
            reszoo.export(sharp, out)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["kept"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": ("a", "b", "c")}, r"\(None, 12\), but there are 3 class names"),
        ({"preprocessing": Preprocessing((12, 12), 3, 0, MEAN, STD)}, r"makes \(12, 12, 3\)"),
        ({"preprocessing": Preprocessing((8, 8), 1, 0, MEAN[:1], STD[:1])}, r"makes \(8, 8, 1\)"),
        ({"class_names": (*"abcdefghijk", "two\nlines")}, "line break"),
        ({"class_names": (*"abcdefghijk", "\udcff")}, "is not UTF-8"),
        ({"format": "onnx", "quantize": "int8"}, "int8 needs training images"),
    ],
)
def test_parts_that_do_not_fit_are_an_error(
    changes: dict[str, Any], message: str, exported: Any, tmp_path: Path
) -> None:
    parts = {"preprocessing": exported.preprocessing, "class_names": exported.class_names}
    with pytest.raises(ReszooError, match=message):
        export_model(exported.model, tmp_path / "out", **(parts | changes))
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> reszoo.Run:
    settings = ["model.name=resnet8", "train.steps=2", "schedule.warmup=0", "train.export=false"]
    folder = tmp_path_factory.mktemp("r") / "run"
    return reszoo.train("quickstart", overrides=settings, run_dir=folder, quiet=True).run


def test_ranges_are_measured_on_training_images_and_the_check_uses_test_images(
    run: reszoo.Run,
) -> None:
    source = open_source(run)
    samples = choose_samples(source, source.preprocessing, None, calibrate=True)
    check, ranges = samples.check, samples.calibration
    assert check and check.origin == "digits, test, all 360 images" and len(check.images) == 360
    assert ranges and ranges.origin == f"digits, train, {len(ranges.images)} of 1287 images"
    assert 128 < len(ranges.images) <= 256 and not samples.note
    assert choose_samples(source, source.preprocessing, None, calibrate=False).calibration is None


def test_data_that_is_gone_is_reported_and_photographs_take_its_place(
    run: reszoo.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: Any) -> None:
        raise ReszooError("the set has moved")

    monkeypatch.setattr(reszoo.Run, "open_pipeline", gone)
    report = reszoo.export(run, tmp_path / "out", format="onnx")
    assert report.note == "the set has moved" and report.check.accuracy is None
    assert report.check.images == 32 and "two photographs" in report.check.what
    with pytest.raises(ReszooError, match="the set has moved"):
        reszoo.export(run, tmp_path / "8", format="onnx", quantize="int8")


@pytest.mark.parametrize("made", ["mixed_bfloat16", "mixed_float16", "strategy"])
def test_a_model_of_any_policy_or_strategy_is_exported_in_float32(
    made: str, strategy: tf.distribute.Strategy, tmp_path: Path
) -> None:
    def make() -> keras.Model:
        return build("resnet8", input_shape=(8, 8, 3), classes=3, se_ratio=0.25)

    if made == "strategy":
        with strategy.scope():
            model = make()
    else:
        keras.config.set_dtype_policy(made)
        model = make()
    keras.config.set_dtype_policy("float32")
    plain = make()
    plain.set_weights(model.get_weights())
    prepared = Preprocessing((8, 8), 3, 0, MEAN, STD)
    names = tuple("abc")
    export_model(model, tmp_path / "out", preprocessing=prepared, class_names=names, format="onnx")
    path = tmp_path / "out" / "model.onnx"
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype(np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    wanted = np.asarray(plain((images / 255 - MEAN) / STD, training=False))
    found = session.run(["logits"], {"images": images})[0]
    np.testing.assert_allclose(found, wanted, atol=1e-5 * max(1, np.abs(wanted).max()))
    kinds = {one.data_type for one in onnx.load(path).graph.initializer}
    low = {onnx.TensorProto.BFLOAT16, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE}
    assert not kinds & low
