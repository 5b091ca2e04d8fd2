"""LiteRT and ONNX: in their own runtimes they compute what Keras computes, and the card's program runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter
from PIL import Image, ImageOps

import reszoo
from reszoo.errors import ReszooError
from reszoo.exporting import formats
from reszoo.exporting.fold import fold
from reszoo.exporting.formats import FORMATS, QUANTIZE, Artifact, get_format
from reszoo.exporting.litert import write_litert
from reszoo.exporting.onnx_file import write_onnx
from reszoo.exporting.pixels import PixelClassifier
from reszoo.images.preprocessing import Preprocessing
from reszoo.models.build import build

ALL = [(name, precision) for name, one in FORMATS.items() for precision in one.precisions]
QUICK = {("litert", "int8"), ("onnx", "float32")}
CASES = [
    pytest.param(*case, marks=[] if case in QUICK else pytest.mark.slow, id="-".join(case))
    for case in ALL
]
GRAY = Preprocessing((8, 8), 1, 0, np.zeros(1, "float32"), np.ones(1, "float32"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> reszoo.Run:
    """A small model that knows its digits, without a mean image, so that other sizes are possible."""
    settings = ["model.name=resnet8", "train.epochs=6", "schedule.warmup=0", "train.export=false"]
    settings += ["data.normalize=channel"]
    return reszoo.train(
        "quickstart", overrides=settings, run_dir=tmp_path_factory.mktemp("r") / "run", quiet=True
    ).run


ORIENTATION = 0x0112  # of EXIF
TURNED = {1: 6, 4: 3, 7: 8, 8: 5, 11: 2, 13: 4, 14: 7}  # by number; all are JPEGs


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Digits as files of other sizes and kinds, some of them turned by their EXIF tag."""
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("pictures")
    paths = []
    for number in range(24):
        image = Image.fromarray((load_digits().images[number] * 255 / 16).astype(np.uint8)).resize(
            (29, 31 + number)
        )
        path = folder / f"{number}.{'jpg' if number % 3 else 'png'}"
        tag = Image.Exif()
        if turned := TURNED.get(number):
            tag[ORIENTATION] = turned
        image.convert("RGB" if number % 2 else "L").save(path, exif=tag)
        paths.append(path)
        with Image.open(path) as written:
            assert written.getexif().get(ORIENTATION) == turned
    return paths


def expected(run: reszoo.Run, paths: list[Path], size: tuple[int, int] = (8, 8)) -> np.ndarray:
    """Probabilities by PIL, NumPy and Keras."""
    told = run.meta["preprocessing"]
    rows = []
    for path in paths:
        image = ImageOps.exif_transpose(Image.open(path)).convert("L")
        rows.append(np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR), np.float32))
    inputs = (np.stack(rows)[..., None] / 255 - np.array(told["mean"])) / np.array(told["std"])
    spec, model = reszoo.Spec(**run.meta["spec"]), run.load_model()
    resized = build(spec, input_shape=(*size, 1), classes=10)
    resized.set_weights(model.get_weights())
    logits = np.asarray(resized(inputs.astype(np.float32)), np.float64)
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


ALONE = "import sys; sys.argv = ['run', *sys.argv[1:]]; sys.modules.update(dict.fromkeys({blocked})); exec(open(0).read())"


def run_card(out: Path, paths: list[Path], blocked: tuple[str, ...]) -> list[list[str]]:
    """Run the program of the card's README.md, where what reszoo is made of cannot be imported; return its lines' words."""
    program = (out / "README.md").read_text().split("```python\n")[1].split("```")[0]
    script = ALONE.format(blocked=repr(blocked))
    command = [sys.executable, "-c", script, *map(str, paths)]
    done = subprocess.run(
        command, input=program, cwd=out, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [
        line.removeprefix(f"{path} ").split()
        for line, path in zip(done.stdout.splitlines(), paths, strict=True)
    ]


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_the_cards_program_answers_as_keras_does(
    name: str, precision: str, run: reszoo.Run, pictures: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    quantize = None if precision == "float32" else precision
    report = reszoo.export(run, out, format=name, quantize=quantize)
    blocked = ("keras", "reszoo") + (() if name == "savedmodel" else ("tensorflow",))
    answers, wanted = run_card(out, pictures, blocked), expected(run, pictures)
    same = [label == str(row.argmax()) for (label, _), row in zip(answers, wanted, strict=True)]
    apart = [
        abs(float(score) - row.max())
        for (_, score), row, ok in zip(answers, wanted, same, strict=True)
        if ok
    ]
    if precision in ("float32", "float16"):
        assert all(same) and max(apart) < (
            2e-3 if precision == "float32" else 2e-2
        )  # three digits are printed
    else:
        assert np.mean(same) >= 0.9 and np.mean(apart) < 0.1

    check, card = report.check, json.loads((out / "card.json").read_text())
    assert (
        check.images == 360
        and check.what == "digits, test, all 360 images"
        and set(check.speed) == {"1", "32"}
    )
    assert check.keras_accuracy == pytest.approx(
        json.loads((run.path / "test.json").read_text())["top1"]
    )
    assert abs(check.accuracy - check.keras_accuracy) <= (0 if precision == "float32" else 0.02)
    assert (check.probability_difference < 1e-5) == (precision == "float32"), (
        "a quantized model must differ"
    )
    assert card["check"] == check.to_dict() and (card["format"], card["precision"]) == (
        name,
        precision,
    )
    assert card["macs"] == reszoo.count("resnet8", (8, 8, 1), 10).macs
    assert card["recipe"]["train"]["seed"] == 0 and card["test"]["examples"] == 360
    assert (report.folded, report.kept) == (7, 0)
    assert report.bytes == (out / FORMATS[name].file).stat().st_size or name == "savedmodel"


@pytest.mark.slow
def test_sizes_fall_with_precision(tmp_path: Path) -> None:
    """Bytes of a model whose weights outweigh everything else, against float32."""
    folded = fold(build("resnet20", input_shape=(8, 8, 1), classes=10)).model
    parameters = sum(int(np.prod(weight.shape)) for weight in folded.weights)
    images = np.zeros((4, 8, 8, 1), np.uint8)
    for name, write in (("litert", write_litert), ("onnx", write_onnx)):
        sizes = {}
        for precision in FORMATS[name].precisions:
            calibration = images if precision == "int8" else None
            path = tmp_path / f"{name}-{precision}"
            write(path, Artifact(folded, GRAY, "0123456789", precision, calibration))
            sizes[precision] = path.stat().st_size
        assert sizes["float32"] == pytest.approx(4 * parameters, rel=0.1)
        assert sizes["float16"] == pytest.approx(2 * parameters, rel=0.1)
        for precision in {"dynamic", "int8"} & set(sizes):
            assert parameters < sizes[precision] < 1.4 * parameters


def run_onnx(path: Path, images: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["logits", "probabilities"], {"images": images})


def test_an_onnx_file_takes_any_batch_and_explains_itself(tmp_path: Path) -> None:
    model = build("resnet8", input_shape=(8, 8, 1), classes=10)
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1)).astype(np.float32)
    write_onnx(tmp_path / "m.onnx", Artifact(model, GRAY, tuple("0123456789")))
    proto = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(proto, full_check=True)
    assert [one.version for one in proto.opset_import if one.domain == ""] == [17]
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "n"
    texts = {one.key: json.loads(one.value) for one in proto.metadata_props}
    assert texts["class_names"] == list("0123456789")
    assert Preprocessing.from_dict(texts["preprocessing"]) == GRAY
    wanted = np.asarray(model(images / 255))
    for rows in (1, 5):
        logits, probabilities = run_onnx(tmp_path / "m.onnx", images[:rows])
        np.testing.assert_allclose(logits, wanted[:rows], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)


def test_an_int8_litert_file_computes_in_8_bits_alone(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1)).astype(np.uint8)
    folded = fold(build("resnet8", input_shape=(8, 8, 1), classes=10)).model
    path = tmp_path / "m.tflite"
    write_litert(path, Artifact(folded, GRAY, "0123456789", "int8", images))
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    assert interpreter.get_input_details()[0]["dtype"] == np.uint8
    kinds = {
        detail["op_name"]: {
            interpreter._get_tensor_details(i, 0)["dtype"] for i in detail["outputs"]
        }
        for detail in interpreter._get_ops_details()
    }
    assert [kinds[name] for name in ("CONV_2D", "FULLY_CONNECTED", "ADD")] == [{np.int8}] * 3


COLOR = {"channels": 3, "resize": 0, "std": np.array([0.2, 0.3, 0.25], "float32")}
MEAN = np.array([0.5, 0.4, 0.3], "float32")
MEAN_IMAGE = np.random.default_rng(1).uniform(size=(6, 5, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("mean", "order"),
    [(MEAN, "RGB"), (MEAN, "BGR"), (MEAN_IMAGE, "RGB")],
    ids=["rgb", "bgr", "mean image"],
)
def test_pixels_are_normalized_as_in_evaluation(mean: np.ndarray, order: str) -> None:
    prepared = Preprocessing((6, 5), **COLOR, mean=mean, channel_order=order)
    inputs = keras.Input((6, 5, 3))
    flat = keras.Model(inputs, keras.layers.Flatten()(inputs))
    images = np.random.default_rng(0).integers(0, 256, (3, 6, 5, 3)).astype(np.float32)
    own = PixelClassifier(Artifact(flat, prepared, ())).classify(images)["logits"]
    wanted = (images[..., :: 1 if order == "RGB" else -1] / 255 - mean) / prepared.std
    np.testing.assert_allclose(own, wanted.reshape(3, -1), rtol=1e-4, atol=1e-5)


NETS = [
    {"shortcut": "A"}, {"shortcut": "C", "order": "pre"}, {"se_ratio": 0.25}, {"rezero": True}, {"gate": "exclusive"},
    {"block": "bottleneck", "groups": 4, "group_width": 16, "shortcut": "B"}, {"stem": "deep", "shrink": "avgpool", "shortcut": "B", "blur": True},
    {"stem": "imagenet", "dropout": 0.2, "drop_path": 0.2}, {"shortcut_scale": 0.5, "branch_scale": 0.5},
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("fields", NETS, ids=str)
@pytest.mark.parametrize("size", [(32, 32), (33, 47)], ids=str)
def test_every_kind_of_block_is_written(
    fields: dict[str, Any], size: tuple[int, int], tmp_path: Path
) -> None:
    """Models with random weights, against Keras, in both runtimes."""
    keras.utils.set_random_seed(0)
    model = build("resnet8", input_shape=(*size, 3), classes=5, **fields)
    prepared = Preprocessing(size, **COLOR, mean=MEAN)
    images = np.random.default_rng(0).integers(0, 256, (2, *size, 3)).astype(np.float32)
    wanted = np.asarray(model(prepared.apply(images), training=False))
    artifact = Artifact(fold(model).model, prepared, tuple("abcde"))
    write_onnx(tmp_path / "m.onnx", artifact)
    write_litert(tmp_path / "m.tflite", artifact)
    runner = Interpreter(str(tmp_path / "m.tflite")).get_signature_runner("serving_default")
    for own in (run_onnx(tmp_path / "m.onnx", images)[0], runner(images=images)["logits"]):
        np.testing.assert_allclose(own, wanted, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("activated", [True, False])
def test_a_pool_pads_by_itself_where_nothing_is_below_zero(activated: bool, tmp_path: Path) -> None:
    inputs = keras.Input((17, 20, 3))
    x = keras.layers.Conv2D(4, 3, name="c")(inputs)
    x = keras.layers.ReLU()(x) if activated else x
    x = keras.layers.MaxPooling2D(3, 2)(keras.layers.ZeroPadding2D(((1, 0), (2, 1)))(x))
    model = keras.Model(inputs, keras.layers.Dense(5)(keras.layers.GlobalMaxPooling2D()(-x)))
    prepared = Preprocessing((17, 20), 3, 0, np.zeros(3, np.float32), np.ones(3, np.float32))
    path = tmp_path / "net.onnx"
    write_onnx(path, Artifact(model, prepared, tuple("abcde")))
    kinds = {node.op_type for node in onnx.load(path).graph.node}
    assert "MaxPool" in kinds and ("Pad" in kinds) != activated
    images = np.random.default_rng(0).uniform(0, 255, (3, 17, 20, 3)).astype(np.float32)
    np.testing.assert_allclose(run_onnx(path, images)[0], model(images / 255), atol=1e-5)


def test_incompatible_options_are_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, precision in ALL:
        assert get_format(name, None if precision == "float32" else precision)[1] == precision
    for name in FORMATS:
        for quantize in set(QUANTIZE) - set(FORMATS[name].precisions):
            with pytest.raises(ReszooError, match=f"{quantize} needs --format"):
                get_format(name, quantize)
    for arguments, line in (
        (("onxx",), "format: onxx is unknown; did you mean 'onnx'"),
        (("onnx", "int4"), "quantize: int4 is unknown"),
    ):
        with pytest.raises(ReszooError, match=line):
            get_format(*arguments)
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ReszooError, match=r"LiteRT needs ai_edge_.*pip install 'reszoo\[litert\]'"):
        get_format("litert")
    assert get_format("savedmodel")[1] == "float32"


def test_another_image_size(run: reszoo.Run, pictures: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = reszoo.export(run, out, format="onnx", image_size=(16, 12), data="digits")
    session = onnxruntime.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["n", 16, 12, 1]
    wanted = expected(run, pictures, (16, 12))
    answers = run_card(out, pictures, ("keras", "reszoo", "tensorflow"))
    assert [label for label, _ in answers] == [str(row.argmax()) for row in wanted]
    card = json.loads((out / "card.json").read_text())
    assert card["macs"] == reszoo.count("resnet8", (16, 12, 1), 10).macs
    assert report.check.images == 360 and report.check.accuracy is not None
