"""The weights in the package load without a network, and their cards agree with themselves and with the real images."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import reszoo
from reszoo import ReszooError, build
from reszoo.cli.main import main
from reszoo.data.pipeline import open_pipeline
from reszoo.evaluation.evaluator import evaluate_model
from reszoo.weights import download, files
from reszoo.weights.files import packaged_path
from reszoo.weights.published import CIFAR10, Weights, find_weights, published

ROWS = [row for row in published() if row.card]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr("socket.socket.connect", fail)
    monkeypatch.setenv("RESZOO_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.tag)
def test_a_card_agrees_with_itself_and_its_file(row: Weights) -> None:
    path = packaged_path(row.files[0].url)
    assert path.stat().st_size < 1_000_000
    assert row.top1 + row.card["test_error"] == pytest.approx(100, abs=1e-9)
    assert abs(row.card["test_error"] - row.card["test_error_before_rounding"]) < 0.1
    assert row.card["recipe"]["train"]["seed"] == row.card["seed"]
    examples = row.card["examples"]
    assert examples["test"] == 10_000 and examples["validation"] == 5_000
    assert not any("/" in str(value) for value in row.card["recipe"]["data"].values())
    from safetensors.numpy import load_file

    kinds = {str(array.dtype) for array in load_file(path).values()}
    assert kinds == {"float16", "float32"}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.tag)
def test_a_model_is_built_grown_and_fine_tuned_from_them(row: Weights) -> None:
    model = build(row.model, weights=row.tag)
    assert model.pretrained.class_names == row.class_names and model.pretrained.weights is row
    assert model.input_shape[1:] == row.transforms.input_shape
    images = np.random.default_rng(0).normal(size=(4, *model.input_shape[1:])).astype("float32")
    logits = np.asarray(model(images))
    assert np.isfinite(logits).all() and logits.std() > 0.1
    grown = reszoo.grow(model, "resnet26")
    np.testing.assert_array_equal(np.asarray(grown(images)), logits)
    overrides = [f"model.name={row.model}", f"model.weights={row.tag}", "data.name=synthetic"]
    pipeline = open_pipeline(reszoo.load_recipe("finetune", overrides))
    assert pipeline.preprocessing == row.transforms


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.tag)
def test_they_predict_from_the_command_line(
    row: Weights, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.full((40, 40, 3), 90, np.uint8)).save(tmp_path / "gray.png")
    assert main(["predict", row.model, str(tmp_path / "gray.png"), "--weights", row.tag]) == 0
    assert any(name in capsys.readouterr().out for name in row.class_names)
    assert main(["list", "--weights", row.model]) == 0
    assert f"{row.top1:.2f}" in capsys.readouterr().out


def test_a_damaged_installation_is_reported_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (row, *_) = ROWS
    monkeypatch.setattr(download, "packaged_path", lambda url: tmp_path / url.partition(":")[2])
    with pytest.raises(
        ReszooError, match="safetensors: no such file. reszoo is not installed whole"
    ):
        build(row.model, weights=row.tag)
    damaged = bytearray(files.packaged_path(row.files[0].url).read_bytes())
    damaged[-1] ^= 1
    (tmp_path / f"{row.tag}.safetensors").write_bytes(damaged)
    with pytest.raises(ReszooError, match="sha256 is [0-9a-f]{64}; expected .* --force-reinstall"):
        build(row.model, weights=row.tag)


def test_the_datasets_names_still_mean_the_publishers_weights() -> None:
    assert find_weights(reszoo.spec("resnet20"), "cifar10").tag == "akamaster"
    assert find_weights(reszoo.spec("resnet20")).tag == "akamaster"


@pytest.mark.shared
@pytest.mark.slow
def test_the_cifar10_weights_have_their_accuracy(shared_data: Path) -> None:
    row = find_weights(reszoo.spec("resnet20"), "cifar10_reszoo")
    images, labels = [], []
    with tarfile.open(shared_data / "cifar10-png.tar.xz") as archive:
        for member in archive:
            path = Path(member.name)
            if "test" in path.parts and path.suffix == ".png":
                contents = archive.extractfile(member)
                assert contents is not None
                images.append(np.asarray(Image.open(io.BytesIO(contents.read()))))
                labels.append(CIFAR10.index(path.parent.name))
    batches = [
        (row.transforms.apply(np.stack(images[start : start + 500])), np.array(labels[start : start + 500]))
        for start in range(0, 10_000, 500)
    ]  # fmt: skip
    scores = evaluate_model(build("resnet20", weights=row.tag), batches, classes=10)
    assert scores.examples == 10_000 and round(100 * scores.top1, 2) == row.top1


@pytest.mark.shared
@pytest.mark.slow
def test_the_fashion_mnist_weights_have_their_accuracy(shared_data: Path) -> None:
    row = find_weights(reszoo.spec("resnet20"), "fashion_mnist")
    folder = shared_data / "fashion-mnist"
    images, labels = (
        np.frombuffer(gzip.decompress((folder / f"t10k-{name}-ubyte.gz").read_bytes()), np.uint8)
        for name in ("images-idx3", "labels-idx1")
    )
    images, labels = images[16:].reshape(-1, 28, 28, 1), labels[8:]
    batches = [
        (row.transforms.apply(images[start : start + 500]), labels[start : start + 500])
        for start in range(0, 10_000, 500)
    ]
    model = build("resnet20", weights=row.tag)
    scores = evaluate_model(model, batches, classes=10)
    assert scores.examples == 10_000 and round(100 * scores.top1, 2) == row.top1
