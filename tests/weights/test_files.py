"""What a weights file is, by its content; and for every other file the true reason why it is not read."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import save_file

from reszoo import ReszooError, build
from reszoo.weights.checkpoint import read_arrays
from reszoo.weights.files import ADVICE, find_content, find_in_folder, is_file_name

from .wrapped import ARRAYS, CLASSES, NET, check_same, loaded, under


def write(path: Path, arrays: dict[str, np.ndarray] = ARRAYS) -> Path:
    save_file(arrays, path)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file of every kind that is read, each under the suffix of another."""
    folder = tmp_path_factory.mktemp("files")
    model = build(
        NET,
        input_shape=(None, None, 3),
        classes=CLASSES,
        weights=write(folder / "start.safetensors"),
    )
    paths = {kind: folder / f"{kind}.pth" for kind in ("safetensors", "hdf5", "keras")}
    write(paths["safetensors"])
    for kind, suffix in (("hdf5", ".weights.h5"), ("keras", ".keras")):
        model.save_weights(folder / f"x{suffix}") if kind == "hdf5" else model.save(
            folder / f"x{suffix}"
        )
        (folder / f"x{suffix}").rename(paths[kind])
    return paths


@pytest.mark.parametrize("kind", ["safetensors", "hdf5", "keras"])
def test_the_content_decides_and_not_the_suffix(kind: str, made: dict[str, Path]) -> None:
    assert find_content(made[kind]) == kind
    check_same(loaded(made[kind]))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pytorch_file_under_other_suffixes(zipped: bool, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch's own files need PyTorch")
    state = {name: torch.from_numpy(np.array(array)) for name, array in ARRAYS.items()}
    for name in ("a.ckpt", "a.h5", "a.safetensors", "a.model"):
        torch.save(state, tmp_path / name, _use_new_zipfile_serialization=zipped)
        assert find_content(tmp_path / name) == "torch"
        check_same(loaded(tmp_path / name))


def tensorflow_checkpoint(folder: Path) -> Path:
    tf.train.Checkpoint(x=tf.Variable(1.0)).write(str(folder / "model.ckpt"))
    return folder / "model.ckpt"


def zipped(names: dict[str, bytes]) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name, data in names.items():
            archive.writestr(name, data)
    return held.getvalue()


def npz() -> bytes:
    held = io.BytesIO()
    np.savez(held, a=np.ones(2))
    return held.getvalue()


def tar() -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.pth"))
    return held.getvalue()


@pytest.mark.parametrize(
    ("name", "contents", "kind"),
    [
        ("a.pth", b"", "empty"),
        ("a.pkl", pickle.dumps({"x": np.ones(3)}), "pickle"),
        ("a.pth", pickle.dumps({"x": 1}, protocol=4), "pickle"),
        ("a.npz", npz(), "npz"),
        ("a.pth.tar", tar(), "archive"),
        ("a.tar.gz", b"\x1f\x8b\x08" + bytes(20), "archive"),
        ("a.zip", zipped({"readme.txt": b""}), "archive"),
        ("a.pt", zipped({"m/constants.pkl": b"", "m/data.pkl": b"", "m/code/x.py": b""}), "script"),
        ("a.pth", b"<!DOCTYPE html><html>404</html>", "page"),
        ("a.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "lfs"),
        ("a.onnx", b"\x08\x07\x12\x07pytorch", "onnx"),
        ("saved_model.pb", b"\x08\x01\x12", "savedmodel"),
        ("a.tflite", b"\x1c\0\0\0TFL3\0\0", "litert"),
        ("a.safetensors", (10**6).to_bytes(8, "little") + b'{"a":', "damaged"),
        ("a.keras", b"PK\x03\x04" + bytes(40), "damaged"),
        ("a.pth", b"\0\1\2\3" * 20, "other"),
        ("a.safetensors", b"\xff" * 64, "other"),
        ("a.h5", b"not HDF5", "other"),
    ],
)
def test_other_files_are_rejected_with_the_true_reason(
    name: str, contents: bytes, kind: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(contents)
    for action in (lambda: read_arrays(path), lambda: build(NET, weights=str(path))):
        with pytest.raises(ReszooError) as caught:
            action()
        assert str(caught.value) == f"{path} cannot be read as weights: it is {ADVICE[kind]}"
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["", ".index", ".data-00000-of-00001"])
def test_a_tensorflow_checkpoint_is_reported_as_one(suffix: str, tmp_path: Path) -> None:
    path = f"{tensorflow_checkpoint(tmp_path)}{suffix}"
    with pytest.raises(ReszooError, match="it is a TensorFlow checkpoint; .*save_weights"):
        build(NET, weights=path)
    with pytest.raises(ReszooError, match="it is a TensorFlow checkpoint"):
        read_arrays(path)


def test_json_that_is_no_index_is_rejected(tmp_path: Path) -> None:
    for text, says in (("{}", "not an index of shards"), ("{", "not an index of shards"), ('{"weight_map": 3}', "not an index of shards"),
                       ('{"weight_map": {}}', "weight_map is invalid"), ('{"weight_map": {"a": "../b.bin"}}', "weight_map is invalid"),
                       ('{"weight_map": {"a": 3}}', "weight_map is invalid")):  # fmt: skip
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ReszooError, match=says):
            read_arrays(tmp_path / "config.json")


def sharded(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    names = list(arrays)
    parts = {f"model-{i + 1:05}-of-00003.safetensors": names[i::3] for i in range(3)}
    for file, some in parts.items():
        write(folder / file, {name: arrays[name] for name in some})
    table = {name: file for file, some in parts.items() for name in some}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": table}))
    return index


def test_shards_are_read_by_their_index_or_folder(tmp_path: Path) -> None:
    index = sharded(tmp_path, under("module."))
    check_same(loaded(str(index)))
    check_same(loaded(tmp_path))
    shard = tmp_path / "model-00002-of-00003.safetensors"
    with pytest.raises(
        ReszooError, match=f"is one of 3 shards; give the index of them all. Example: {index}"
    ):
        loaded(shard)
    shard.rename(tmp_path / "elsewhere")
    with pytest.raises(
        ReszooError,
        match="names 3 files, but model-00002-of-00003.safetensors not found next to it",
    ):
        loaded(index)


def test_a_tensor_that_its_shard_lacks_is_named(tmp_path: Path) -> None:
    index = sharded(tmp_path, ARRAYS)
    table = json.loads(index.read_text())
    table["weight_map"]["layer9.weight"] = "model-00001-of-00003.safetensors"
    index.write_text(json.dumps(table))
    with pytest.raises(
        ReszooError, match="'layer9.weight' is not in model-00001-of-00003.safetensors"
    ):
        loaded(index)


def test_shards_of_pytorch_files(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch's own files need PyTorch")
    names, table = list(ARRAYS), {}
    for i in range(2):
        file = f"pytorch_model-{i + 1:05}-of-00002.bin"
        torch.save(
            {name: torch.from_numpy(np.array(ARRAYS[name])) for name in names[i::2]},
            tmp_path / file,
        )
        table |= dict.fromkeys(names[i::2], file)
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": table}))
    check_same(loaded(tmp_path))


def test_bfloat16_in_safetensors(tmp_path: Path) -> None:
    import ml_dtypes

    write(
        tmp_path / "a.safetensors",
        {n: a.astype(ml_dtypes.bfloat16) if a.dtype.kind == "f" else a for n, a in ARRAYS.items()},
    )
    model = loaded(tmp_path / "a.safetensors")
    np.testing.assert_allclose(
        model.get_layer("head_dense").kernel.numpy(), ARRAYS["linear.weight"].T, rtol=2**-8
    )


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("saved_model.pb", "it is a SavedModel"),
        ("checkpoint", "it is a TensorFlow checkpoint"),
        (
            "recipe.toml",
            "holds no trained model yet. Finish the run: reszoo train --resume --run-dir",
        ),
        ("x.txt", "is a folder without weights"),
    ],
)
def test_folders_without_weights_are_rejected_with_what_they_are(
    file: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / file).write_text("")
    with pytest.raises(ReszooError, match=says):
        find_in_folder(tmp_path)
    with pytest.raises(ReszooError, match=says):
        build(NET, weights=tmp_path)
    if file == "saved_model.pb":
        (tmp_path / "1").mkdir()
        (tmp_path / file).rename(tmp_path / "1" / file)
        with pytest.raises(ReszooError, match=says):
            find_in_folder(tmp_path)


@pytest.mark.parametrize(
    ("text", "file"),
    [("a.ckpt", True), ("a.pth", True), ("A.SAFETENSORS", True), ("a.pth#raw", True),
     ("a.onnx", True), ("./a", True), ("~/a", True),
     ("/a/b", True), ("m.safetensors.index.json", True), ("imagenet", False), ("timm/a1_in1k", False),
     ("torchvision/IMAGENET1K_V1", False)],
)  # fmt: skip
def test_file_names_are_recognized(text: str, file: bool) -> None:
    assert is_file_name(text) is file


def test_a_hash_in_a_file_name_does_no_harm(tmp_path: Path) -> None:
    check_same(loaded(str(write(tmp_path / "run#3.safetensors"))))
    check_same(loaded(str(write(tmp_path / "run#4"))))


def test_addresses_are_not_downloaded() -> None:
    for text in ("https://example.org/a.pth", "http://example.org/a.pth"):
        with pytest.raises(ReszooError, match="an address is not downloaded"):
            build(NET, weights=text)


@pytest.fixture(scope="module", params=["sequential", "functional"])
def outer(request: Any, made: dict[str, Path]) -> keras.Model:
    """A model that holds the tiny net, with the state of an optimizer."""
    inner = build(NET, input_shape=(32, 32, 3), classes=CLASSES, weights=made["safetensors"])
    x = images = keras.Input((32, 32, 3))
    layers = [keras.layers.Rescaling(1 / 255), inner, keras.layers.Dense(3)]
    if request.param == "sequential":
        outer = keras.Sequential([images, *layers])
    else:
        for layer in layers:
            x = layer(x)
        outer = keras.Model(images, x)
    outer.compile("adam", "mse")
    outer.optimizer.build(outer.trainable_variables)
    return outer


@pytest.mark.parametrize("name", ["net.weights.h5", "net.keras", "net.h5"])
def test_a_model_inside_another_is_found(
    name: str, outer: keras.Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outer.save_weights(tmp_path / name) if "weights" in name else outer.save(tmp_path / name)
    capsys.readouterr()
    check_same(loaded(tmp_path / name))
    assert f"{name}: loaded the weights under 'tiny/'; ignored dense" in capsys.readouterr().err


def test_a_model_in_an_attribute_of_a_subclass_is_found(
    made: dict[str, Path], tmp_path: Path
) -> None:
    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            arguments = {"input_shape": (32, 32, 3), "classes": CLASSES}
            self.backbone = build(NET, weights=made["safetensors"], **arguments)
            self.extra = keras.layers.Dense(3)

        def call(self, x: Any) -> Any:
            return self.extra(self.backbone(x))

    net = Net()
    net(np.zeros((1, 32, 32, 3)))
    net.save_weights(tmp_path / "net.weights.h5")
    net.save(tmp_path / "net.keras")
    for name in ("net.weights.h5", "net.keras"):
        check_same(loaded(tmp_path / name))
