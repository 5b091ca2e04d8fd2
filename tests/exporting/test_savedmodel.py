"""Exported nets: loaded where neither Keras nor reszoo exists, they compute what the Keras model computes."""

from __future__ import annotations

import io
import json
import math
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from reszoo.data.preprocessing import Preprocessing
from reszoo.errors import ReszooError
from reszoo.exporting import parity
from reszoo.exporting.export import Report, as_float32, export_model
from reszoo.exporting.samples import Sample
from reszoo.models.build import build

NAMES = ("cat", "dog", "\N{CJK UNIFIED IDEOGRAPH-732B}", "a b", "ship", "truck", "x")
GREY = Preprocessing(
    image_size=(8, 8), channels=1, resize=0, mean=np.zeros(1, "float32"), std=np.ones(1, "float32")
)


def colour(size: tuple[int, int] = (12, 10), resize: int = 16) -> Preprocessing:
    return Preprocessing(
        image_size=size,
        channels=3,
        resize=resize,
        mean=np.array([0.5, 0.4, 0.3], "float32"),
        std=np.array([0.2, 0.3, 0.25], "float32"),
    )


def small_net(shape: tuple[int, int, int] = (12, 10, 3), classes: int = len(NAMES)) -> keras.Model:
    keras.utils.set_random_seed(1)
    inputs = keras.Input(shape)
    x = keras.layers.Conv2D(8, 3, padding="same", use_bias=False)(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Activation("relu")(x)
    x = keras.layers.Dropout(0.5)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(
        inputs, keras.layers.Dense(classes, dtype="float32", kernel_initializer="he_normal")(x)
    )
    rng = np.random.default_rng(2)  # moving statistics that are not those of a fresh layer
    model.layers[2].set_weights([rng.uniform(0.5, 2, 8) for _ in range(4)])
    return model


QUADRANTS = tuple(
    f"{place} {color}"
    for place in ("top left", "top right", "bottom left", "bottom right")
    for color in "RGB"
)


def seeing_net(gain: float = 2.0) -> keras.Model:
    """A model of 12 x 10 inputs whose logits are the mean red, green and blue of each quadrant: it sees position and color."""
    inputs = keras.Input((12, 10, 3))
    x = keras.layers.AveragePooling2D((6, 5), data_format="channels_last")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(12)(keras.layers.Flatten()(x)))
    model.layers[-1].set_weights([gain * np.eye(12, dtype="float32"), np.zeros(12, "float32")])
    return model


def photo(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (1, 4, 4, channels))
    return tf.cast(tf.image.resize(coarse, (height, width)), tf.uint8).numpy()[0]


def saved(image: np.ndarray, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


LOAD_ALONE = """
import sys, json
sys.modules["keras"] = sys.modules["reszoo"] = None
for name in ("keras", "reszoo"):
    try:
        __import__(name)
    except ImportError:
        continue
    raise SystemExit(name + " can be imported")
import numpy as np, tensorflow as tf
out, folder = sys.argv[1:]
model = tf.saved_model.load(out)
images = np.load(folder + "/images.npy")
files = [open(folder + "/" + name, "rb").read() for name in json.load(open(folder + "/files.json"))]
f = model.signatures["serving_default"](images=tf.constant(images))
b = model.signatures["image_bytes"](image_bytes=tf.constant(files))
np.savez(folder + "/out.npz", probabilities=f["probabilities"], logits=f["logits"], **{
    "b_" + k: np.char.encode(np.vectorize(bytes.decode, otypes=[str])(v.numpy())) if v.dtype == tf.string else v.numpy()
    for k, v in b.items()})
"""


def ask_alone(
    out: Path, folder: Path, images: np.ndarray, files: dict[str, bytes]
) -> dict[str, np.ndarray]:
    """Both signatures' outputs, from a process that has TensorFlow only."""
    np.save(folder / "images.npy", images)
    for name, contents in files.items():
        (folder / name).write_bytes(contents)
    (folder / "files.json").write_text(json.dumps(list(files)))
    subprocess.run([sys.executable, "-c", LOAD_ALONE, str(out), str(folder)], check=True)
    with np.load(folder / "out.npz") as outputs:
        return dict(outputs)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[keras.Model, Path, Report]:
    """An export whose check ran in an interpreter of its own."""
    out = tmp_path_factory.mktemp("exported") / "deep" / "out"
    model = small_net()
    return (
        model,
        out,
        export_model(
            model, out, preprocessing=colour(), class_names=NAMES, details={"recipe": "r"}
        ),
    )


@pytest.fixture(scope="module")
def seeing_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("seeing") / "out"
    export_model(seeing_net(), out, preprocessing=colour(), class_names=QUADRANTS)
    return out


@pytest.fixture(scope="module")
def seeing(seeing_folder: Path) -> tuple[keras.Model, Any]:
    """The model and what its export's `image_bytes` answers."""
    loaded = tf.saved_model.load(str(seeing_folder / "1"))
    return seeing_net(), lambda files: loaded.signatures["image_bytes"](
        image_bytes=tf.constant(files)
    )


def expected(model: keras.Model, preprocessing: Preprocessing, image: np.ndarray) -> np.ndarray:
    """Probabilities by Keras and NumPy: resize across and down, crop, scale, run, softmax."""
    size = [side * preprocessing.resize // min(image.shape[:2]) for side in image.shape[:2]]
    across = np.floor(
        tf.image.resize(image, (image.shape[0], size[1]), antialias=True).numpy() + 0.5
    )
    resized = np.floor(tf.image.resize(across, size, antialias=True).numpy() + 0.5)
    top, left = (
        round((have - want) / 2) for have, want in zip(size, preprocessing.image_size, strict=True)
    )
    crop = resized[
        top : top + preprocessing.image_size[0], left : left + preprocessing.image_size[1]
    ]
    logits = (
        model((crop[None] / 255 - preprocessing.mean) / preprocessing.std, training=False)
        .numpy()[0]
        .astype(float)
    )
    return np.exp(logits) / np.exp(logits).sum()


def test_tensorflow_alone_gives_the_keras_outputs_for_floats_and_bytes(
    exported: tuple[keras.Model, Path, Report], tmp_path: Path
) -> None:
    model, out, _ = exported
    batch = np.stack([photo(21, 33, seed=s) for s in range(3)])
    big, grey = photo(40, 20, seed=7), photo(15, 15, 1, seed=8)
    files = {
        "a.png": tf.io.encode_png(big).numpy(),
        "broken.jpg": tf.io.encode_jpeg(big).numpy()[:200],
        "b.jpg": tf.io.encode_jpeg(big).numpy(),
        "text.png": b"not an image",
        "empty": b"",
        "grey.png": tf.io.encode_png(grey).numpy(),
        "animated.gif": saved(
            big, "GIF", save_all=True, append_images=[Image.fromarray(255 - big)]
        ),
        "bitmap.bmp": saved(big, "BMP"),
    }
    outputs = ask_alone(out / "1", tmp_path, batch.astype("float32"), files)

    for row, image in enumerate(batch):
        np.testing.assert_allclose(
            outputs["probabilities"][row], expected(model, colour(), image), atol=1e-5
        )
    softmax = np.exp(outputs["logits"]) / np.exp(outputs["logits"]).sum(1, keepdims=True)
    np.testing.assert_allclose(outputs["probabilities"], softmax, atol=1e-6)

    assert outputs["b_status"].tolist() == [0, 1, 0, 1, 1, 0, 1, 1]
    jpeg = tf.io.decode_jpeg(files["b.jpg"], dct_method="INTEGER_ACCURATE").numpy()
    for row, image in ((0, big), (2, jpeg), (5, np.repeat(grey, 3, axis=2))):
        wanted = expected(model, colour(), image)
        np.testing.assert_allclose(outputs["b_probabilities"][row], wanted, atol=1e-5)
        order = np.argsort(-wanted)[:5]
        assert [name.decode() for name in outputs["b_labels"][row]] == [NAMES[i] for i in order]
        np.testing.assert_allclose(outputs["b_scores"][row], wanted[order], atol=1e-5)
    for row in (1, 3, 4, 6, 7):
        assert not outputs["b_probabilities"][row].any() and not outputs["b_scores"][row].any()
        assert set(outputs["b_labels"][row]) == {b""}


def turned(image: np.ndarray, value: int) -> bytes:
    tag = Image.Exif()
    tag[0x0112] = value
    return saved(image, "JPEG", quality=95, exif=tag)


def smooth(height: int, width: int) -> np.ndarray:
    """As `photo`, by Pillow: TensorFlow must not start before conftest has made its devices."""
    coarse = Image.fromarray(np.random.default_rng(7).integers(0, 256, (4, 4, 3), np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BILINEAR))


BIG = smooth(40, 20)
RGBA = np.dstack([BIG, np.full((40, 20), 90, np.uint8)])
KINDS = {
    "png": saved(BIG, "PNG"),
    "jpeg": saved(BIG, "JPEG"),
    "progressive": saved(BIG, "JPEG", progressive=True),
    "optimised 4:4:4": saved(BIG, "JPEG", subsampling=0, optimize=True),
    "grey png": saved(BIG[..., 0], "PNG"),
    "grey jpeg": saved(BIG[..., 0], "JPEG"),
    "16 bits": saved(BIG[..., 0].astype(np.uint16) * 257, "PNG"),
    "alpha": saved(RGBA, "PNG"),
    "animated": saved(BIG, "PNG", save_all=True, append_images=[Image.fromarray(255 - BIG)]),
    "one pixel": saved(BIG[:1, :1], "PNG"),
    "wide": saved(smooth(10, 2000), "PNG"),
    "tall": saved(smooth(2000, 10), "JPEG"),
    **{f"turned {value}": turned(BIG, value) for value in range(1, 9)},
}
NO_ANSWER = {
    "cut": (KINDS["jpeg"][:300], 1),
    "cut png": (KINDS["png"][:200], 1),
    "text": (b"GET / HTTP/1.1", 1),
    "empty": (b"", 1),
    "gif": (saved(BIG, "GIF"), 1),
    "bmp": (saved(BIG, "BMP"), 1),
    "webp": (saved(BIG, "WEBP"), 1),
    "tiff": (saved(BIG, "TIFF"), 1),
    "bomb": (KINDS["png"][:16] + b"\0\1\0\0" * 2 + KINDS["png"][24:], 2),
    "bomb jpeg": (KINDS["jpeg"].replace(b"\0\x28\0\x14\3", b"\xfd\xe8\xfd\xe8\3", 1), 2),
}


# JPEG decoders differ by a level or so, of which a quadrant's mean keeps a fraction.
JPEG = 4e-3


def misread(image: Image.Image) -> dict[str, Image.Image]:
    """What a wrong decoder would see: turned, mirrored, inverted, gray, or with channels swapped."""
    pixels = np.asarray(image.convert("RGB"))
    turns = [
        np.rot90(flipped, times) for flipped in (pixels, pixels[:, ::-1]) for times in range(4)
    ][1:]
    gray = np.repeat(np.asarray(image.convert("L"))[..., None], 3, axis=2)
    wrong = {
        "inverted": 255 - pixels,
        "gray": gray,
        "BGR": pixels[..., ::-1],
        "GRB": pixels[..., [1, 0, 2]],
    }
    wrong |= {f"turned {number}": turn for number, turn in enumerate(turns)}
    return {name: Image.fromarray(np.ascontiguousarray(one)) for name, one in wrong.items()}


def test_the_bounds_tell_every_misread_image_from_the_right_one(
    seeing: tuple[keras.Model, Any],
) -> None:
    right = expected(seeing[0], colour(), BIG)
    for name, image in misread(Image.fromarray(BIG)).items():
        apart = np.abs(expected(seeing[0], colour(), np.asarray(image)) - right).max()
        assert apart > 5 * JPEG, name


def test_the_files_have_the_tag_that_they_claim() -> None:
    for value in range(1, 9):
        image = Image.open(io.BytesIO(KINDS[f"turned {value}"]))
        assert image.getexif()[0x0112] == value
        upright = np.asarray(ImageOps.exif_transpose(image), int)
        assert upright.shape == ((20, 40, 3) if value >= 5 else (40, 20, 3))
        assert value == 1 or upright.shape != (40, 20, 3) or np.abs(upright - BIG).mean() > 10


def test_every_kind_of_file_has_its_answer_or_its_status(seeing: tuple[keras.Model, Any]) -> None:
    """One batch of them all, against Pillow, Keras and NumPy, by a model that sees position and color."""
    model, ask = seeing
    files = {name: (contents, 0) for name, contents in KINDS.items()} | NO_ANSWER
    answer = ask([contents for contents, _ in files.values()])
    assert dict(zip(files, answer["status"].numpy().tolist(), strict=True)) == {
        n: status for n, (_, status) in files.items()
    }
    for row, (name, (contents, status)) in enumerate(files.items()):
        given = answer["probabilities"][row].numpy()
        if status:
            assert not given.any() and set(answer["labels"][row].numpy()) == {b""}, name
            continue
        opened = ImageOps.exif_transpose(Image.open(io.BytesIO(contents)))
        if name == "16 bits":
            opened = Image.fromarray(BIG[..., 0])
        wanted = expected(model, colour(), np.asarray(opened.convert("RGB")))
        np.testing.assert_allclose(
            given, wanted, atol=JPEG if contents[:2] == b"\xff\xd8" else 1e-5, err_msg=name
        )


def test_cmyk_is_answered_in_its_own_colors(seeing: tuple[keras.Model, Any]) -> None:
    model, ask = seeing
    file = io.BytesIO()
    Image.fromarray(BIG).convert("CMYK").save(file, "JPEG", quality=95)
    assert Image.open(file).mode == "CMYK"
    answer = ask([file.getvalue()])
    assert answer["status"].numpy().tolist() == [0]
    np.testing.assert_allclose(
        answer["probabilities"][0], expected(model, colour(), BIG), atol=2 * JPEG
    )


def test_features_are_what_the_classifier_reads(exported: tuple[keras.Model, Path, Report]) -> None:
    model, out, _ = exported
    loaded = tf.saved_model.load(str(out / "1"))
    assert sorted(loaded.signatures) == ["features", "image_bytes", "serving_default"]
    images = tf.constant(photo(20, 20)[None], tf.float32)
    vectors = loaded.signatures["features"](images=images)["features"].numpy()
    kernel, bias = model.layers[-1].get_weights()
    assert vectors.shape == (1, 8)
    np.testing.assert_allclose(
        vectors @ kernel + bias,
        loaded.signatures["serving_default"](images=images)["logits"],
        rtol=1e-5,
    )
    assert loaded.signatures["features"](images=tf.zeros((0, 3, 3, 3)))["features"].shape == (0, 8)
    weights = sum(weight.numpy().size for weight in model.trainable_weights)
    assert sum(np.prod(variable.shape) for variable in loaded.parameters) < weights + 32, (
        "one copy serves all signatures"
    )


def test_a_net_that_closes_otherwise_has_no_features(tmp_path: Path) -> None:
    model = small_net()
    model = keras.Model(model.input, keras.layers.Activation("linear")(model.output))
    export_model(model, tmp_path / "out", preprocessing=colour(), class_names=NAMES)
    assert "features" not in tf.saved_model.load(str(tmp_path / "out" / "1")).signatures
    assert "features" not in json.loads((tmp_path / "out" / "card.json").read_text())["signatures"]


def test_the_folder_explains_itself(exported: tuple[keras.Model, Path, Report]) -> None:
    model, out, report = exported
    assert sorted(p.name for p in out.iterdir()) == ["1", "README.md", "card.json"]
    served = out / "1"
    assert sorted(p.name for p in served.iterdir()) == [
        "assets",
        "fingerprint.pb",
        "saved_model.pb",
        "variables",
    ]
    assert (served / "assets" / "class_names.txt").read_text().splitlines() == list(NAMES)
    assert (
        Preprocessing.from_dict(json.loads((served / "assets" / "preprocessing.json").read_text()))
        == colour()
    )
    assert (
        report.path == str(out)
        and report.check.probability_difference <= 1e-5
        and report.check.images == 32
    )
    assert report.check.accuracy is None and "two photographs" in report.check.what
    assert report.bytes == sum(p.stat().st_size for p in served.rglob("*") if p.is_file())
    assert [p.name for p in out.parent.iterdir()] == ["out"], "no temporary folder stays"


def test_batches_of_no_rows_and_few_classes(tmp_path: Path) -> None:
    export_model(small_net((8, 8, 1), 2), tmp_path, preprocessing=GREY, class_names=("a", "b"))
    loaded = tf.saved_model.load(str(tmp_path / "1"))
    empty = loaded.signatures["image_bytes"](image_bytes=tf.constant([], tf.string))
    assert {name: tuple(value.shape) for name, value in empty.items()} == {
        "probabilities": (0, 2), "labels": (0, 2), "scores": (0, 2), "status": (0,),
    }  # fmt: skip
    assert loaded.signatures["serving_default"](images=tf.zeros((0, 3, 3, 1)))["logits"].shape == (
        0,
        2,
    )
    bad = loaded.signatures["image_bytes"](image_bytes=tf.constant([b"x"]))
    assert bad["status"].numpy().tolist() == [1]


@pytest.mark.parametrize(
    "policy", [pytest.param("mixed_bfloat16", marks=pytest.mark.slow), "mixed_float16"]
)
def test_a_net_of_mixed_precision_is_exported_in_float32(policy: str, tmp_path: Path) -> None:
    keras.config.set_dtype_policy(policy)
    model = build("resnet8", classes=7, input_shape=(12, 10, 3), se_ratio=0.25)
    keras.config.set_dtype_policy("float32")
    same = build("resnet8", classes=7, input_shape=(12, 10, 3), se_ratio=0.25)
    same.set_weights(model.get_weights())
    assert {layer.compute_dtype for layer in as_float32(model).layers} == {"float32"}

    export_model(model, tmp_path, preprocessing=colour(), class_names=NAMES)
    image = photo(20, 20)
    served = tf.saved_model.load(str(tmp_path / "1")).signatures["serving_default"](
        images=image[None].astype("float32")
    )
    np.testing.assert_allclose(
        served["probabilities"][0], expected(same, colour(), image), atol=1e-5
    )
    assert served["logits"].dtype == tf.float32


def test_a_net_made_under_a_strategy_is_exported(
    strategy: tf.distribute.Strategy, tmp_path: Path
) -> None:
    with strategy.scope():
        model = small_net()
    export_model(model, tmp_path, preprocessing=colour(), class_names=NAMES)
    served = tf.saved_model.load(str(tmp_path / "1")).signatures["serving_default"](
        images=photo(20, 20)[None].astype("float32")
    )
    np.testing.assert_allclose(
        served["probabilities"][0], expected(model, colour(), photo(20, 20)), atol=1e-5
    )


class Restless(keras.layers.Layer):
    """Adds something else at every call, so that no two computations agree."""

    def call(self, x: Any) -> Any:
        return x + tf.random.uniform(tf.shape(x))


@pytest.mark.parametrize("occupied", [False, True])
def test_a_net_that_differs_after_loading_is_not_exported(occupied: bool, tmp_path: Path) -> None:
    model = small_net()
    model = keras.Model(model.input, Restless()(model.output))
    out = tmp_path / "out"
    if occupied:
        out.mkdir()
    with pytest.raises(
        ReszooError,
        match=r"differ from the Keras model's by .*, more than 1e-04, .*out was not written",
    ):
        export_model(model, out, preprocessing=colour(), class_names=NAMES)
    assert [p.name for p in tmp_path.iterdir()] == ["out"] * occupied
    assert not occupied or not any(out.iterdir())


@pytest.mark.parametrize(
    ("output", "row", "value", "message"),
    [
        ("bytes/probabilities", 3, math.nan, "differ from the Keras model's by inf"),
        ("float-0001/probabilities", 0, 2.0, "differ from the Keras model's by"),
        ("bytes/status", 0, 1, "misjudges which files are images"),
        ("bytes/status", -1, 0, "misjudges which files are images"),
    ],
)
def test_each_wrong_answer_of_the_loaded_net_is_noticed(
    output: str,
    row: int,
    value: float,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = parity._run

    def spoilt(kind: str, export: Path, folder: Path) -> dict[str, np.ndarray]:
        outputs = honest(kind, export, folder)
        outputs[output][row] = value
        return outputs

    monkeypatch.setattr(parity, "_run", spoilt)
    with pytest.raises(ReszooError, match=message):
        export_model(small_net(), tmp_path / "out", preprocessing=colour(), class_names=NAMES)
    assert not list(tmp_path.iterdir())


def test_agreement_and_accuracy_are_those_of_the_export(
    seeing_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the Keras model's: half of the export's answers are spoilt here."""
    model, honest = seeing_net(), parity._run
    pictures = [photo(20, 20, seed=seed) for seed in range(4)]
    best = np.array([int(expected(model, colour(), picture).argmax()) for picture in pictures])

    def spoilt(kind: str, export: Path, folder: Path) -> dict[str, np.ndarray]:
        outputs = honest(kind, export, folder)
        rows = outputs["bytes/probabilities"][-5:-1]  # the pictures; a broken file is last
        rows[::2] = np.roll(rows[::2], 1, axis=1)
        return outputs

    monkeypatch.setattr(parity, "_run", spoilt)
    check = parity.check_savedmodel(
        seeing_folder / "1", model, colour(), Sample(pictures, best, "mine")
    )
    assert (check.agreement, check.accuracy, check.keras_accuracy) == (0.5, 0.5, 1.0)
    with pytest.raises(ReszooError, match="differ from the Keras model's"):
        check.refuse("float32")


def test_a_net_that_cannot_be_run_by_tensorflow_alone_is_not_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "reload.py"
    script.write_text("raise SystemExit('no such op')")
    monkeypatch.setattr(parity.reload, "__file__", str(script))
    with pytest.raises(ReszooError, match="does not load by TensorFlow alone: no such op"):
        export_model(small_net(), tmp_path / "out", preprocessing=colour(), class_names=NAMES)
    assert [p.name for p in tmp_path.iterdir()] == ["reload.py"]


def test_a_diverged_net_is_refused(tmp_path: Path) -> None:
    model = small_net()
    model.layers[-1].bias.assign(np.full(7, np.nan))
    with pytest.raises(ReszooError, match="not finite numbers; did its training diverge"):
        export_model(model, tmp_path / "out", preprocessing=colour(), class_names=NAMES)
    assert not list(tmp_path.iterdir())


def test_the_given_images_are_the_ones_compared(tmp_path: Path) -> None:
    given = Sample(
        [photo(30, 31), saved(photo(9, 40), "JPEG"), saved(photo(50, 20), "PNG")],
        np.array([0, 1, 2]),
        "mine",
    )
    check = export_model(
        net := small_net(), tmp_path / "out", preprocessing=colour(), class_names=NAMES, check=given
    ).check
    best = [int(expected(net, colour(), np.asarray(picture)).argmax()) for picture in pixels(given)]
    assert (check.images, check.what, check.agreement) == (3, "mine", 1.0)
    assert (
        check.accuracy
        == check.keras_accuracy
        == np.mean([own == want for own, want in enumerate(best)])
    )


def pixels(sample: Sample) -> list[np.ndarray]:
    return [
        np.asarray(Image.open(io.BytesIO(one))) if isinstance(one, bytes) else one
        for one in sample.pictures
    ]


def test_an_occupied_folder_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(ReszooError, match="is not empty; give a new folder"):
        export_model(small_net(), tmp_path, preprocessing=colour(), class_names=NAMES)
    with pytest.raises(ReszooError, match="mine is a file; give a new folder"):
        export_model(small_net(), tmp_path / "mine", preprocessing=colour(), class_names=NAMES)
    assert [p.read_text() for p in tmp_path.iterdir()] == ["kept"]


def test_a_full_disk_is_one_error_and_leaves_nothing(tmp_path: Path) -> None:
    """What a full disk looks like to a program: writing fails after a while."""
    net = small_net()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        with pytest.raises(OSError) as caught:
            export_model(net, tmp_path / "out", preprocessing=colour(), class_names=NAMES)
    finally:  # before pytest writes anything of its own
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_parent_that_is_a_file_is_rejected_and_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(ReszooError, match="cannot be made: .*file is not a folder"):
        export_model(
            small_net(), tmp_path / "file" / "out", preprocessing=colour(), class_names=NAMES
        )
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"class_names": NAMES[:3]}, r"\(None, 7\), but there are 3 class names"),
        (
            {"preprocessing": colour((12, 12))},
            r"takes images of \(12, 10, 3\), but the preprocessing makes \(12, 12, 3\)",
        ),
        ({"preprocessing": GREY}, r"the preprocessing makes \(8, 8, 1\)"),
        ({"class_names": (*NAMES[:6], "two\nlines")}, "line break"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    arguments: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ReszooError, match=message):
        export_model(
            small_net(),
            tmp_path / "out",
            **({"preprocessing": colour(), "class_names": NAMES} | arguments),
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "fields",
    [
        {"shortcut": "A"},
        {"shortcut": "C", "order": "pre"},
        {"se_ratio": 0.25},
        {"rezero": True},
        {"drop_path": 0.3, "dropout": 0.2},
        {"shortcut_scale": 0.5, "branch_scale": 0.5},
        {"gate": "exclusive"},
        {"shortcut_dropout": 0.5},
    ],
    ids=str,
)
def test_a_float32_copy_computes_what_the_net_does(fields: dict[str, Any]) -> None:
    net = {"classes": 4, "input_shape": (16, 16, 3), **fields}
    keras.config.set_dtype_policy("mixed_bfloat16")
    mixed = build("resnet8", **net)
    keras.config.set_dtype_policy("float32")
    plain = build("resnet8", **net)
    rng = np.random.default_rng(0)
    plain.set_weights([rng.uniform(0.1, 0.3, w.shape) for w in plain.get_weights()])
    mixed.set_weights(plain.get_weights())
    images = rng.normal(size=(2, 16, 16, 3)).astype("float32")
    copy = as_float32(mixed)
    assert {layer.compute_dtype for layer in copy._flatten_layers()} == {"float32"}
    np.testing.assert_allclose(copy(images), plain(images, training=False), rtol=1e-5)
