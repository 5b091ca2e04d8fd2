"""LiteRT and ONNX: run by their own runtimes, they compute what the Keras model computes, and the card's program runs them."""

from __future__ import annotations

import dataclasses
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
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from PIL import Image, ImageOps

import reszoo
from reszoo.cli.main import main
from reszoo.data.preprocessing import Preprocessing
from reszoo.errors import ReszooError
from reszoo.evaluation.source import Source, open_source
from reszoo.exporting import export as exporting
from reszoo.exporting import formats, parity
from reszoo.exporting.export import export_model
from reszoo.exporting.fold import fold
from reszoo.exporting.formats import FORMATS, QUANTIZE, get_format
from reszoo.exporting.litert import write_litert
from reszoo.exporting.onnx_file import write_onnx
from reszoo.exporting.pixels import PixelClassifier
from reszoo.exporting.samples import Sample, photographs, without_folders
from reszoo.exporting.savedmodel import write_savedmodel
from reszoo.models.batchnorm import BatchNormalization
from reszoo.models.build import build

ALL = [(name, precision) for name, one in FORMATS.items() for precision in one.precisions]
QUICK = {("litert", "int8"), ("onnx", "float32")}
CASES = [
    pytest.param(*case, marks=[] if case in QUICK else pytest.mark.slow, id="-".join(case))
    for case in ALL
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> reszoo.Run:
    """A small net that knows its digits, without a mean image, so that it can be asked at other sizes."""
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
        "a quantised net must differ"
    )
    assert card["check"] == check.to_dict() and (card["format"], card["precision"]) == (
        name,
        precision,
    )
    assert card["multiply_adds"] == reszoo.count("resnet8", (8, 8, 1), 10).multiply_adds
    assert card["recipe"]["train"]["seed"] == 0 and card["test"]["examples"] == 360
    assert (report.folded, report.kept) == (7, 0)


@pytest.mark.slow
def test_sizes_fall_with_precision(run: reszoo.Run, tmp_path: Path) -> None:
    """Bytes of a net whose weights outweigh everything else, against float32."""
    net = build("resnet20", input_shape=(8, 8, 1), classes=10)
    grey = run.preprocessing
    images = np.zeros((4, 8, 8, 1), np.uint8)
    for name, writer in (("litert", write_litert), ("onnx", write_onnx)):
        bytes_of = {}
        for precision in FORMATS[name].precisions:
            extra = {"class_names": "0123456789"} if name == "onnx" else {}
            path = tmp_path / f"{name}-{precision}"
            writer(path, fold(net).model, grey, precision=precision, calibration=images, **extra)
            bytes_of[precision] = path.stat().st_size
        parameters = sum(int(np.prod(w.shape)) for w in fold(net).model.weights)
        assert bytes_of["float32"] == pytest.approx(4 * parameters, rel=0.1)
        assert bytes_of["float16"] == pytest.approx(2 * parameters, rel=0.1)
        for precision in {"dynamic", "int8"} & set(bytes_of):
            assert parameters < bytes_of[precision] < 1.4 * parameters


def test_an_onnx_file_takes_any_batch_and_explains_itself(run: reszoo.Run, tmp_path: Path) -> None:
    model, images = (
        run.load_model(),
        np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1)).astype(np.float32),
    )
    names = tuple("0123456789")
    write_onnx(
        tmp_path / "m.onnx",
        model,
        run.preprocessing,
        precision="float32",
        calibration=None,
        class_names=names,
    )
    proto = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(proto, full_check=True)
    assert [(one.domain, one.version) for one in proto.opset_import if one.domain == ""] == [
        ("", 17)
    ]
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "n"
    told = {one.key: json.loads(one.value) for one in proto.metadata_props}
    assert (
        told["class_names"] == list(names)
        and Preprocessing.from_dict(told["preprocessing"]) == run.preprocessing
    )
    session = onnxruntime.InferenceSession(
        str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"]
    )
    logits = np.asarray(model(run.preprocessing.apply(images)))
    for rows in (1, 5):
        own, probabilities = session.run(["logits", "probabilities"], {"images": images[:rows]})
        np.testing.assert_allclose(own, logits[:rows], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)


def test_an_int8_litert_file_computes_in_8_bits_alone(run: reszoo.Run, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1)).astype(np.uint8)
    path = tmp_path / "m.tflite"
    write_litert(
        path, fold(run.load_model()).model, run.preprocessing, precision="int8", calibration=images
    )
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    assert interpreter.get_input_details()[0]["dtype"] == np.uint8
    kinds = {
        detail["op_name"]: {
            interpreter._get_tensor_details(i, 0)["dtype"] for i in detail["outputs"]
        }
        for detail in interpreter._get_ops_details()
    }
    assert (
        kinds["CONV_2D"] == {np.int8}
        and kinds["FULLY_CONNECTED"] == {np.int8}
        and kinds["ADD"] == {np.int8}
    )


COLOUR = {
    "image_size": (6, 5),
    "channels": 3,
    "resize": 0,
    "std": np.array([0.2, 0.3, 0.25], "float32"),
}
MEAN = np.array([0.5, 0.4, 0.3], "float32")


@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing(**COLOUR, mean=MEAN),
        Preprocessing(**COLOUR, mean=MEAN, channel_order="BGR"),
        Preprocessing(
            **COLOUR, mean=np.random.default_rng(1).uniform(size=(6, 5, 3)).astype(np.float32)
        ),
    ],
    ids=["rgb", "bgr", "mean image"],
)
def test_pixels_are_normalised_as_in_evaluation(preprocessing: Preprocessing) -> None:
    inputs = keras.Input((6, 5, 3))
    flat = keras.Model(inputs, keras.layers.Flatten()(inputs))
    images = np.random.default_rng(0).integers(0, 256, (3, 6, 5, 3)).astype(np.float32)
    own = PixelClassifier(flat, preprocessing).classify(images)["logits"]
    wanted = images / 255 if preprocessing.channel_order == "RGB" else images[..., ::-1] / 255
    wanted = (wanted - preprocessing.mean) / preprocessing.std
    np.testing.assert_allclose(own, wanted.reshape(3, -1), rtol=1e-4, atol=1e-5)


NETS = [
    {"shortcut": "A"}, {"shortcut": "C", "order": "pre"}, {"se_ratio": 0.25}, {"rezero": True}, {"gate": "exclusive"},
    {"block": "bottleneck", "groups": 4, "group_width": 16, "shortcut": "B"}, {"stem": "deep", "shrink": "avgpool", "shortcut": "B"},
    {"stem": "imagenet", "dropout": 0.2, "drop_path": 0.2}, {"shortcut_scale": 0.5, "branch_scale": 0.5},
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("fields", NETS, ids=str)
@pytest.mark.parametrize("size", [(32, 32), (33, 47)], ids=str)
def test_every_kind_of_block_is_written(
    fields: dict[str, Any], size: tuple[int, int], tmp_path: Path
) -> None:
    """Nets with random weights, against Keras, in both runtimes."""
    keras.utils.set_random_seed(0)
    net = build("resnet8", input_shape=(*size, 3), classes=5, **fields)
    plain = Preprocessing(**(COLOUR | {"image_size": size}), mean=MEAN)
    images = np.random.default_rng(0).integers(0, 256, (2, *size, 3)).astype(np.float32)
    wanted = np.asarray(net(plain.apply(images), training=False))
    folded = fold(net).model
    write_onnx(
        tmp_path / "m.onnx",
        folded,
        plain,
        precision="float32",
        calibration=None,
        class_names=tuple("abcde"),
    )
    session = onnxruntime.InferenceSession(
        str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"]
    )
    write_litert(tmp_path / "m.tflite", folded, plain, precision="float32", calibration=None)
    runner = Interpreter(str(tmp_path / "m.tflite")).get_signature_runner("serving_default")
    for own in (session.run(["logits"], {"images": images})[0], runner(images=images)["logits"]):
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
    write_onnx(
        path, model, prepared, precision="float32", calibration=None, class_names=tuple("abcde")
    )
    kinds = {node.op_type for node in onnx.load(path).graph.node}
    assert "MaxPool" in kinds and ("Pad" in kinds) != activated
    images = np.random.default_rng(0).uniform(0, 255, (3, 17, 20, 3)).astype(np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(
        session.run(["logits"], {"images": images})[0], model(images / 255), atol=1e-5
    )


def test_a_net_of_mixed_precision_goes_to_onnx_in_float32(run: reszoo.Run, tmp_path: Path) -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    mixed = build("resnet8", input_shape=(8, 8, 1), classes=10)
    keras.config.set_dtype_policy("float32")
    mixed.set_weights(run.load_model().get_weights())
    report = export_model(
        mixed,
        tmp_path / "out",
        preprocessing=run.preprocessing,
        class_names=run.class_names,
        format="onnx",
    )
    assert report.check.agreement == 1 and report.check.logit_difference < 1e-3
    proto = onnx.load(tmp_path / "out" / "model.onnx")
    kinds = onnx.TensorProto
    assert not {one.data_type for one in proto.graph.initializer} & {
        kinds.BFLOAT16,
        kinds.FLOAT16,
        kinds.DOUBLE,
    }
    with pytest.raises(ReszooError, match="int8 needs real training images"):
        export_model(
            mixed,
            tmp_path / "8",
            preprocessing=run.preprocessing,
            class_names=run.class_names,
            format="onnx",
            quantize="int8",
        )


def test_another_image_size(run: reszoo.Run, pictures: list[Path], tmp_path: Path) -> None:
    report = reszoo.export(run, tmp_path / "out", format="onnx", image_size=(16, 12), data="digits")
    session = onnxruntime.InferenceSession(
        str(tmp_path / "out" / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    assert session.get_inputs()[0].shape == ["n", 16, 12, 1]
    wanted = expected(run, pictures, (16, 12))
    answers = run_card(tmp_path / "out", pictures, ("keras", "reszoo", "tensorflow"))
    assert [label for label, _ in answers] == [str(row.argmax()) for row in wanted]
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["multiply_adds"] == reszoo.count("resnet8", (16, 12, 1), 10).multiply_adds
    assert report.check.images == 360 and report.check.accuracy is not None


@pytest.fixture
def sharp() -> Source:
    """A model of 12 x 10 inputs, made from a resized side of 16, that reacts to every pixel; its size is free."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((12, 10, 3))
    x = keras.layers.Conv2D(16, 3, data_format="channels_last", use_bias=False)(inputs)
    x = keras.layers.ReLU()(BatchNormalization()(x))
    x = keras.layers.GlobalMaxPooling2D(data_format="channels_last")(x)
    model = keras.Model(inputs, keras.layers.Dense(5)(x))
    preprocessing = Preprocessing((12, 10), 3, 16, MEAN, COLOUR["std"])
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
    """Probabilities by PIL, NumPy and Keras: shorter side to `side`, the middle `size` cut out, or `shift` pixels beside it."""
    image = Image.open(path)
    image = image.resize(
        [one * side // min(image.size) for one in image.size], Image.Resampling.BILINEAR
    )
    left, top = (
        round((have - want) / 2) for have, want in zip(image.size, size[::-1], strict=True)
    )
    left, top = left + shift[1], top + shift[0]
    pixels = np.asarray(image.crop((left, top, left + size[1], top + size[0])), np.float32)
    inputs = ((pixels / 255 - MEAN) / COLOUR["std"]).astype(np.float32)[None]
    layers = iter(model.layers[1:])
    for layer in layers:
        inputs = layer(inputs)
    return tf.nn.softmax(inputs).numpy()[0]


@pytest.mark.parametrize("name", ["savedmodel", "onnx"])
def test_another_image_size_resizes_in_the_same_ratio(
    name: str, sharp: Source, tmp_path: Path
) -> None:
    """Every answer against PIL: a side of 16 for 12 x 10 is one of 32 for 24 x 20, and nothing else."""
    image = np.random.default_rng(5).integers(0, 256, (67, 90, 3), np.uint8)
    image[..., 0] = np.linspace(0, 255, 90)  # across and down, so that each crop is another
    image[..., 1] = np.linspace(255, 0, 67)[:, None]
    Image.fromarray(image).save(tmp_path / "a.png")
    model = sharp.load()
    reszoo.export(sharp, tmp_path / "out", format=name, image_size=(24, 20))
    told = json.loads((tmp_path / "out" / "card.json").read_text())["preprocessing"]
    assert (told["resize"], told["image_size"]) == (32, [24, 20])
    wanted = by_pil(model, tmp_path / "a.png", 32, (24, 20))
    if name == "savedmodel":
        loaded = tf.saved_model.load(str(tmp_path / "out" / "1"))
        answer = loaded.signatures["image_bytes"](
            image_bytes=tf.constant([(tmp_path / "a.png").read_bytes()])
        )
        np.testing.assert_allclose(
            answer["probabilities"][0], wanted, atol=1e-3
        )  # PIL rounds a few pixels otherwise
    else:
        ((label, score),) = run_card(
            tmp_path / "out", [tmp_path / "a.png"], ("keras", "reszoo", "tensorflow")
        )
        assert label == "abcde"[wanted.argmax()] and float(score) == pytest.approx(
            wanted.max(), abs=6e-4
        )
    for side in (24, 27, 31, 33, 40, 67):
        assert np.abs(by_pil(model, tmp_path / "a.png", side, (24, 20)) - wanted).max() > 3e-3, side
    for shift in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        moved = by_pil(model, tmp_path / "a.png", 32, (24, 20), shift)
        assert np.abs(moved - wanted).max() > 3e-3 and abs(moved.max() - wanted.max()) > 2e-3, shift


def test_an_image_size_may_be_one_side(sharp: Source, tmp_path: Path) -> None:
    reszoo.export(sharp, tmp_path / "out", format="onnx", image_size=20)
    told = json.loads((tmp_path / "out" / "card.json").read_text())
    assert told["input_shape"] == [20, 20, 3] and told["preprocessing"]["resize"] == 32


@pytest.mark.parametrize("fold", [True, False])
def test_folding_is_done_where_it_is_asked_for(fold: bool, sharp: Source, tmp_path: Path) -> None:
    """Not only in `export_model`: what `export` and the command are asked must reach it."""
    report = reszoo.export(sharp, tmp_path / "out", fold_norms=fold)
    assert (report.folded, report.kept) == ((1, 0) if fold else (0, 1))
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["normalisations"] == {"folded": report.folded, "kept": report.kept}
    graph = (
        tf.saved_model.load(str(tmp_path / "out" / "1"))
        .signatures["serving_default"]
        .graph.as_graph_def()
    )
    ops = [node.op for function in graph.library.function for node in function.node_def]
    assert sum("FusedBatchNorm" in op for op in ops) == report.kept


def test_the_commands_no_fold_reaches_the_export(
    run: reszoo.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(run.path), str(tmp_path / "out"), "--no-fold"]) == 0
    assert "folded" not in capsys.readouterr().out
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["normalisations"] == {"folded": 0, "kept": 7}


LICENSED = {
    "model": "resnet8",
    "tag": "someone/v1",
    "source": "example.org",
    "licence": "CC-BY-NC-4.0",
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
    assert json.loads((tmp_path / "out" / "card.json").read_text())["licence"] == license
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
    run: reszoo.Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any) -> None:
        raise failure

    out = tmp_path / "out"
    if occupied:
        out.mkdir()
    monkeypatch.setattr(exporting, "check_pixels", fail)
    with pytest.raises(type(failure)):
        reszoo.export(run, out, format="onnx", check=photographs(2))
    assert [path.name for path in tmp_path.iterdir()] == ["out"] * occupied and not (
        occupied and any(out.iterdir())
    )


def test_ranges_are_found_on_training_images_and_the_check_is_made_on_test_images(
    run: reszoo.Run,
) -> None:
    source = open_source(run)
    found, ranges, note = exporting._samples(
        source, source.preprocessing, None, "int8", resized=False, check=None
    )
    assert (
        found is not None
        and found.origin == "digits, test, all 360 images"
        and len(found.pictures) == 360
    )
    assert (
        ranges is not None
        and ranges.origin == f"digits, train, {len(ranges.pictures)} of 1287 images"
    )
    assert 128 < len(ranges.pictures) <= 256
    assert not note


def test_a_half_precision_savedmodel_keeps_its_larger_weights_in_two_bytes(tmp_path: Path) -> None:
    model = build("resnet8", input_shape=(8, 8, 3), classes=5)
    plain = Preprocessing((8, 8), 3, 0, MEAN, COLOUR["std"])
    size = {}
    for precision in ("float32", "float16"):
        write_savedmodel(
            tmp_path / precision, fold(model).model, plain, tuple("abcde"), precision=precision
        )
        size[precision] = (
            (tmp_path / precision / "variables" / "variables.data-00000-of-00001").stat().st_size
        )
    assert size["float16"] == pytest.approx(size["float32"] / 2, rel=0.1)


@pytest.mark.parametrize("kind", ["savedmodel", "litert", "onnx"])
def test_an_export_is_checked_where_its_makers_cannot_be_imported(
    kind: str, tmp_path: Path
) -> None:
    """Or an export that needs them would pass."""
    program = f"""
import runpy, sys
found = runpy.run_path({str(parity.reload.__file__)!r})
def tried(export, folder):
    return {{name: name in sys.modules and sys.modules[name] is None for name in ("keras", "tf_keras", "reszoo", "tensorflow")}}
found["PROGRAMS"][{kind!r}] = tried
found["main"]({kind!r}, "", {str(tmp_path)!r})
"""
    subprocess.run([sys.executable, "-P", "-c", program], check=True)
    with np.load(tmp_path / "outputs.npz") as blocked:
        assert {name: bool(value) for name, value in blocked.items()} == {
            "keras": True, "tf_keras": True, "reszoo": True, "tensorflow": kind != "savedmodel",
        }  # fmt: skip


def test_a_net_too_far_from_keras_is_refused(
    run: reszoo.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the answers spoilt, as a quantisation gone wrong would."""
    honest = parity._run

    def spoilt(*args: Any) -> dict[str, np.ndarray]:
        outputs = honest(*args)
        outputs["pixels/probabilities"][::2] = np.roll(
            outputs["pixels/probabilities"][::2], 1, axis=1
        )
        return outputs

    monkeypatch.setattr(parity, "_run", spoilt)
    with pytest.raises(
        ReszooError,
        match=r"first class for 50.0 % of .* in int8 it must be at least 90 %; .*out was not written",
    ):
        reszoo.export(run, tmp_path / "out", format="litert", quantize="int8")
    assert not list(tmp_path.iterdir())


def test_data_that_is_gone_is_said_and_photographs_stand_in(
    run: reszoo.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: Any) -> None:
        raise ReszooError("the set has moved")

    monkeypatch.setattr(reszoo.Run, "open_pipeline", gone)
    report = reszoo.export(run, tmp_path / "out", format="onnx")
    assert (
        report.note == "the set has moved"
        and "photographs" in report.check.what
        and report.check.accuracy is None
    )
    with pytest.raises(ReszooError, match="the set has moved"):
        reszoo.export(run, tmp_path / "8", format="onnx", quantize="int8")


def test_what_does_not_go_together_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, precision in ALL:
        assert get_format(name, None if precision == "float32" else precision)[1] == precision
    for name in FORMATS:
        for quantize in set(QUANTIZE) - set(FORMATS[name].precisions):
            with pytest.raises(ReszooError, match=f"{quantize} goes with"):
                get_format(name, quantize)
    with pytest.raises(ReszooError, match="no format 'onxx'; did you mean 'onnx'"):
        get_format("onxx")
    with pytest.raises(ReszooError, match="no quantisation 'int4'"):
        get_format("onnx", "int4")
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(
        ReszooError, match=r"LiteRT needs ai_edge_litert, .*pip install 'reszoo\[litert\]'"
    ):
        get_format("litert")
    assert get_format("savedmodel")[1] == "float32"


@pytest.mark.parametrize("size", [0, -8, (8,), (8, 8, 8), (8, 0), 8.5])
def test_an_impossible_size_is_refused(size: Any, run: reszoo.Run, tmp_path: Path) -> None:
    with pytest.raises(ReszooError, match="image_size must be a side"):
        reszoo.export(run, tmp_path / "out", image_size=size)


def test_what_is_handed_over_tells_no_folders() -> None:
    told = without_folders(
        {
            "a": "folder:/home/me/flowers/",
            "b": ["/data/x.th", "cifar10", "folder:flowers"],
            "c": {"d": ("/", 3, None)},
        }
    )
    assert told == {
        "a": "folder:flowers",
        "b": ["x.th", "cifar10", "folder:flowers"],
        "c": {"d": ["", 3, None]},
    }


def test_the_photographs_are_real_and_always_the_same() -> None:
    from sklearn.datasets import load_sample_images

    whole, sample = load_sample_images().images, photographs(8)
    assert len(sample.pictures) == 8 and sample.labels is None
    for own, again in zip(sample.pictures, photographs(8).pictures, strict=True):
        np.testing.assert_array_equal(own, again)
    first = sample.pictures[0]
    windows = np.lib.stride_tricks.sliding_window_view(whole[0][..., 0], first.shape[:2])
    assert (windows[:, :, ::7, ::7] == first[::7, ::7, 0]).all((2, 3)).any()


def test_a_sample_holds_files_and_arrays_alike() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    grey = Preprocessing(
        image_size=(8, 8),
        channels=1,
        resize=0,
        mean=np.zeros(1, "float32"),
        std=np.ones(1, "float32"),
    )
    file = tf.io.encode_png(image).numpy()
    own = Sample([image, file], None, "").inputs(grey)
    assert own.shape == (2, 8, 8, 1) and own.dtype == np.uint8
    np.testing.assert_array_equal(own[0], own[1])
