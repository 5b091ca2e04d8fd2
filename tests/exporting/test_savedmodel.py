"""SavedModels: loaded where neither Keras nor reszoo exists, they compute what the Keras model computes."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from reszoo.exporting.fold import fold
from reszoo.exporting.formats import Artifact
from reszoo.exporting.savedmodel import find_features, write_savedmodel
from reszoo.images.preprocessing import Preprocessing
from reszoo.models.build import build

ROUNDING = 3e-4  # of one pixel in a resized image
JPEG = 4e-3  # JPEG decoders differ by a level or so, of which a quadrant's mean keeps a fraction


def saved(image: np.ndarray, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


def smooth(height: int, width: int, channels: int = 3, seed: int = 7) -> np.ndarray:
    """By Pillow: TensorFlow must not start before conftest has made its devices."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image)[..., :channels]


def turned(image: np.ndarray, value: int) -> bytes:
    tag = Image.Exif()
    tag[0x0112] = value
    return saved(image, "JPEG", quality=95, exif=tag)


BIG = smooth(40, 20)
KINDS = {
    "png": saved(BIG, "PNG"),
    "jpeg": saved(BIG, "JPEG"),
    "progressive": saved(BIG, "JPEG", progressive=True),
    "optimised 4:4:4": saved(BIG, "JPEG", subsampling=0, optimize=True),
    "gray png": saved(BIG[..., 0], "PNG"),
    "gray jpeg": saved(BIG[..., 0], "JPEG"),
    "16 bits": saved(BIG[..., 0].astype(np.uint16) * 257, "PNG"),
    "alpha": saved(np.dstack([BIG, np.full((40, 20), 90, np.uint8)]), "PNG"),
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
    "gif": (saved(BIG, "GIF", save_all=True, append_images=[Image.fromarray(255 - BIG)]), 1),
    "bmp": (saved(BIG, "BMP"), 1),
    "webp": (saved(BIG, "WEBP"), 1),
    "tiff": (saved(BIG, "TIFF"), 1),
    "bomb": (KINDS["png"][:16] + b"\0\1\0\0" * 2 + KINDS["png"][24:], 2),
    "bomb jpeg": (KINDS["jpeg"].replace(b"\0\x28\0\x14\3", b"\xfd\xe8\xfd\xe8\3", 1), 2),
}


def expected(exported: Any, image: np.ndarray) -> np.ndarray:
    """Probabilities by Keras and NumPy: resize across and down, crop, scale, run, softmax."""
    prepared = exported.preprocessing
    size = [side * prepared.resize // min(image.shape[:2]) for side in image.shape[:2]]
    across = tf.image.resize(image, (image.shape[0], size[1]), antialias=True).numpy()
    resized = tf.image.resize(np.floor(across + 0.5), size, antialias=True).numpy()
    height, width = prepared.image_size
    top, left = round((size[0] - height) / 2), round((size[1] - width) / 2)
    crop = np.floor(resized + 0.5)[None, top : top + height, left : left + width]
    inputs = (crop / 255 - prepared.mean) / prepared.std
    logits = exported.model(inputs, training=False).numpy()[0].astype(float)
    return np.exp(logits) / np.exp(logits).sum()


LOAD_ALONE = """
import sys
sys.modules["keras"] = sys.modules["reszoo"] = None
for name in ("keras", "reszoo"):
    try:
        __import__(name)
    except ImportError:
        continue
    raise SystemExit(name + " can be imported")
import numpy as np, tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
images = np.load(sys.argv[2] + "/images.npy")
files = [open(f"{sys.argv[2]}/{number}", "rb").read() for number in range(int(sys.argv[3]))]
found = dict(model.signatures["serving_default"](images=tf.constant(images)))
found |= {"b_" + key: value for key, value in model.signatures["image_bytes"](image_bytes=tf.constant(files)).items()}
labels = found.pop("b_labels").numpy().tolist()
print(__import__("json").dumps([[name.decode() for name in row] for row in labels]))
np.savez(sys.argv[2] + "/out.npz", **{key: value.numpy() for key, value in found.items()})
"""


def test_tensorflow_alone_gives_the_keras_outputs_for_floats_and_for_every_kind_of_file(
    exported: Any, tmp_path: Path
) -> None:
    """One batch of all files, against Pillow, Keras and NumPy, by a model that sees position and color."""
    batch = np.stack([smooth(21, 33, seed=seed) for seed in range(3)])
    files = {name: (contents, 0) for name, contents in KINDS.items()} | NO_ANSWER
    np.save(tmp_path / "images.npy", batch.astype("float32"))
    for number, (contents, _) in enumerate(files.values()):
        (tmp_path / str(number)).write_bytes(contents)
    command = [sys.executable, "-c", LOAD_ALONE, str(exported.out / "1"), str(tmp_path)]
    done = subprocess.run([*command, str(len(files))], check=True, capture_output=True, text=True)
    labels = json.loads(done.stdout)
    with np.load(tmp_path / "out.npz") as loaded:
        outputs = dict(loaded)

    for row, image in enumerate(batch):
        wanted = expected(exported, image)
        np.testing.assert_allclose(outputs["probabilities"][row], wanted, atol=ROUNDING)
    softmax = np.exp(outputs["logits"]) / np.exp(outputs["logits"]).sum(1, keepdims=True)
    np.testing.assert_allclose(outputs["probabilities"], softmax, atol=1e-6)

    statuses = {name: status for name, (_, status) in files.items()}
    assert dict(zip(files, outputs["b_status"].tolist(), strict=True)) == statuses
    for row, (name, (contents, status)) in enumerate(files.items()):
        given, scores = outputs["b_probabilities"][row], outputs["b_scores"][row]
        if status:
            assert not given.any() and not scores.any() and set(labels[row]) == {""}, name
            continue
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(contents)))
        if name == "16 bits":
            image = Image.fromarray(BIG[..., 0])
        wanted = expected(exported, np.asarray(image.convert("RGB")))
        bound = JPEG if contents[:2] == b"\xff\xd8" else ROUNDING
        np.testing.assert_allclose(given, wanted, atol=bound, err_msg=name)
        order = np.argsort(-given, kind="stable")[:5]
        assert labels[row] == [exported.class_names[i] for i in order], name
        np.testing.assert_array_equal(scores, given[order])


def test_the_bound_separates_every_misread_image_from_the_right_one(exported: Any) -> None:
    """What a wrong decoder would see: turned, mirrored, inverted, gray, or with channels swapped."""
    flips = [np.rot90(one, times) for one in (BIG, BIG[:, ::-1]) for times in range(4)][1:]
    gray = np.repeat(np.asarray(Image.fromarray(BIG).convert("L"))[..., None], 3, axis=2)
    right = expected(exported, BIG)
    for wrong in (255 - BIG, gray, BIG[..., ::-1], BIG[..., [1, 0, 2]], *flips):
        assert np.abs(expected(exported, wrong) - right).max() > 5 * JPEG
    for value in range(1, 9):  # the files have the tag that they claim
        image = Image.open(io.BytesIO(KINDS[f"turned {value}"]))
        assert image.getexif()[0x0112] == value
        upright = np.asarray(ImageOps.exif_transpose(image), int)
        assert upright.shape == ((20, 40, 3) if value >= 5 else (40, 20, 3))
        assert value == 1 or upright.shape != (40, 20, 3) or np.abs(upright - BIG).mean() > 10


@pytest.fixture(scope="module")
def loaded(exported: Any) -> Any:
    return tf.saved_model.load(str(exported.out / "1"))


def test_cmyk_is_answered_in_its_own_colors(exported: Any, loaded: Any) -> None:
    file = io.BytesIO()
    Image.fromarray(BIG).convert("CMYK").save(file, "JPEG", quality=95)
    assert Image.open(file).mode == "CMYK"
    found = loaded.signatures["image_bytes"](image_bytes=tf.constant([file.getvalue()]))
    assert found["status"].numpy().tolist() == [0]
    np.testing.assert_allclose(found["probabilities"][0], expected(exported, BIG), atol=2 * JPEG)


def test_features_are_what_the_classifier_reads(exported: Any, loaded: Any) -> None:
    assert sorted(loaded.signatures) == ["features", "image_bytes", "serving_default"]
    images = tf.constant(smooth(20, 20)[None], tf.float32)
    vectors = loaded.signatures["features"](images=images)["features"].numpy()
    kernel, bias = exported.model.layers[-1].get_weights()
    logits = loaded.signatures["serving_default"](images=images)["logits"]
    np.testing.assert_allclose(vectors @ kernel + bias, logits, rtol=1e-4, atol=1e-5)
    assert loaded.signatures["features"](images=tf.zeros((0, 3, 3, 3)))["features"].shape == (0, 12)
    size = sum(np.prod(variable.shape) for variable in loaded.parameters)
    assert size == 9 + 3 + 12 * 12 + 12 + 2, "one copy of the folded weights serves all signatures"
    graph = loaded.signatures["serving_default"].graph.as_graph_def()
    ops = [node.op for function in graph.library.function for node in function.node_def]
    assert "Conv2D" in ops and not any("FusedBatchNorm" in op for op in ops)


def test_few_classes_no_rows_and_a_model_that_ends_without_a_classifier(tmp_path: Path) -> None:
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Dense(2)(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, keras.layers.Activation("linear")(x))
    gray = Preprocessing((8, 8), 1, 0, np.zeros(1, "float32"), np.ones(1, "float32"))
    assert find_features(model) is None and find_features(keras.Model(inputs, x)) is not None
    write_savedmodel(tmp_path / "1", Artifact(model, gray, ("a", "b")))
    found = tf.saved_model.load(str(tmp_path / "1"))
    assert sorted(found.signatures) == ["image_bytes", "serving_default"]
    empty = found.signatures["image_bytes"](image_bytes=tf.constant([], tf.string))
    assert {name: tuple(value.shape) for name, value in empty.items()} == {
        "probabilities": (0, 2), "labels": (0, 2), "scores": (0, 2), "status": (0,),
    }  # fmt: skip
    none = found.signatures["serving_default"](images=tf.zeros((0, 3, 3, 1)))
    assert none["logits"].shape == (0, 2)
    bad = found.signatures["image_bytes"](image_bytes=tf.constant([b"x"]))
    assert bad["status"].numpy().tolist() == [1]


@pytest.mark.slow
def test_half_precision_keeps_large_weights_in_two_bytes(exported: Any, tmp_path: Path) -> None:
    model = fold(build("resnet8", input_shape=(12, 10, 3), classes=12)).model
    size = {}
    for precision in ("float32", "float16"):
        artifact = Artifact(model, exported.preprocessing, exported.class_names, precision)
        write_savedmodel(tmp_path / precision, artifact)
        variables = tmp_path / precision / "variables" / "variables.data-00000-of-00001"
        size[precision] = variables.stat().st_size
    assert size["float16"] == pytest.approx(size["float32"] / 2, rel=0.1)
