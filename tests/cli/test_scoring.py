"""`reszoo evaluate`, `predict` and `export` of a short run, as typed at a prompt."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import reszoo
from reszoo.cli.main import main
from reszoo.images.preprocessing import Preprocessing


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for number, path in enumerate(paths):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 15), np.uint8)
        Image.fromarray(pixels).save(path)
    return paths


def test_evaluate_prints_the_scores_that_it_writes(
    digits_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--batch-size", "50", "--devices", "cpu", "--out", str(tmp_path)]
    arguments += ["--no-predictions"]
    assert main(["evaluate", str(digits_run), *arguments]) == 0
    printed = capsys.readouterr().out
    scores = json.loads((tmp_path / "test.json").read_text())
    assert f"top-1 error\t{100 - 100 * scores['top1']:.2f} %" in printed
    assert f"top-5 error\t{100 - 100 * scores['top5']:.2f} %" in printed
    assert f"balanced accuracy\t{100 * scores['balanced_accuracy']:.2f} %" in printed
    assert f"macro F1\t{100 * scores['macro_f1']:.2f} %" in printed
    assert f"calibration error\t{100 * scores['calibration_error']:.2f} %" in printed
    cells = [100 * scores[key][9] for key in ("precision", "per_class", "f1")]
    assert "9\t{:.2f} %\t{:.2f} %\t{:.2f} %".format(*cells) in printed
    assert "every image was predicted" not in printed
    assert "images\t360" in printed and "digits, test\tmeasured" in printed
    assert (tmp_path / "confusion.png").is_file()
    assert not [*tmp_path.glob("*.csv"), *tmp_path.glob("*.html")]


def test_evaluate_reports_that_a_model_predicts_one_class_only(
    digits_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(digits_run, tmp_path / "run")
    model = reszoo.Run.open(run).load_model()
    model.get_layer("head_dense").bias.assign([0.0] * 7 + [1000.0, 0.0, 0.0])
    model.save(run / "model.keras")
    assert main(["evaluate", str(run), "--devices", "cpu"]) == 0
    printed, reported = capsys.readouterr()
    assert reported == f"written: {run}/predictions.csv, {run}/evaluation.html\n"
    assert len((run / "predictions.csv").read_text().splitlines()) == 361
    assert "360 images are predicted wrongly" in (run / "evaluation.html").read_text()
    assert "balanced accuracy\t10.00 %" in printed
    assert "every image was predicted as '7': the model does not distinguish the classes" in printed


@pytest.mark.parametrize(
    ("test", "row"),
    [("10-crop", "published\t3 %"), ("1-crop", "published, 1-crop: not compared\t3 %")],
)
def test_evaluate_compares_with_a_published_error_of_the_same_test_only(
    test: str, row: str, digits_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(digits_run, tmp_path / "run"))
    with (run / "recipe.toml").open("a") as file:
        text = f'\n[published]\nmetric = "error"\nvalue = 3\nsource = "me"\ntest = "{test}"\n'
        file.write(text)
    words = ["--crops", "10", "--devices", "cpu", "--no-predictions"]
    assert main(["evaluate", str(run), *words]) == 0
    assert f"{row} (error; me)" in capsys.readouterr().out
    assert (run / "evaluation-10-crop.json").is_file()


def test_predict_prints_one_row_per_image_and_class_or_json(
    digits_run: Path, images: list[Path], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    latin1 = os.fsdecode(os.fsencode(images[0].parent) + b"/caf\xe9 [1].png")
    shutil.copy(images[0], latin1)
    arguments = ["predict", str(digits_run), str(images[1]), latin1]
    assert main([*arguments, "--top", "2"]) == 0
    head, *rows = (line.split("\t") for line in capfdbinary.readouterr().out.decode().splitlines())
    shown = rf"{images[0].parent}/caf\xe9 [1].png"
    assert head == ["image", "class", "probability"]
    assert [row[0] for row in rows] == [str(images[1])] * 2 + [shown] * 2
    assert 1 >= float(rows[0][2]) >= float(rows[1][2]) > 0
    assert main([*arguments, "--top", "10", "--json"]) == 0
    predictions = json.loads(capfdbinary.readouterr().out.decode())
    assert [prediction["path"] for prediction in predictions] == [str(images[1]), shown]
    assert set(predictions[0]["labels"]) == {str(digit) for digit in range(10)}
    assert sum(predictions[0]["probabilities"]) == pytest.approx(1, abs=1e-5)


def test_predict_writes_each_format_with_numbers(
    digits_run: Path,
    images: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    predictions = reszoo.predict(digits_run, images, top=2)
    expected = [
        [one.path, label, f"{probability:.6g}"]
        for one in predictions
        for label, probability in zip(one.labels, one.probabilities, strict=True)
    ]
    monkeypatch.setattr("reszoo.evaluation.predict.BATCH", 1)  # one batch per image, one header
    comma = images[0].with_name('a, "b".png')
    shutil.copy(images[0], comma)

    def predict(*words: str) -> str:
        assert main(["predict", str(digits_run), *words, "--top", "2"]) == 0
        return capsys.readouterr().out

    head, *rows = csv.reader(io.StringIO(predict(*map(str, images), str(comma), "--format", "csv")))
    assert head == ["image", "class", "probability"] and rows[:4] == expected
    assert [row[0] for row in rows[4:]] == [str(comma)] * 2
    comma.unlink()
    lines = predict(f"{images[0].parent}/*.png", "--format", "jsonl").splitlines()
    assert [json.loads(line)["labels"] for line in lines] == [list(p.labels) for p in predictions]
    text = f"{images[1]}\n\n{images[0]}\n".encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
    piped = [line.split("\t") for line in predict("-").splitlines()]
    assert piped == [head, *expected[2:], *expected[:2]]


def test_predict_reports_each_unreadable_file_and_classifies_the_others(
    digits_run: Path, images: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    broken, missing = images[0].with_name("broken.png"), images[0].with_name("missing.png")
    broken.write_bytes(b"no image")
    words = [str(path) for path in (broken, images[0], missing, images[1])]
    assert main(["predict", str(digits_run), *words, "--format", "jsonl"]) == 1
    out, err = capsys.readouterr()
    assert [json.loads(line)["path"] for line in out.splitlines()] == list(map(str, images))
    first, second, last = err.splitlines()
    assert first.startswith(f"reszoo: {broken}: not an image; expected a file in JPEG")
    assert second == f"reszoo: {missing}: No such file or directory"
    assert last == "reszoo: 2 of 4 images cannot be read"
    assert main(["predict", str(digits_run), str(broken), str(missing)]) == 2
    assert capsys.readouterr().out == ""


@pytest.fixture(scope="module")
def convolutional(digits_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run with a convolutional model of random weights."""
    run = Path(shutil.copytree(digits_run, tmp_path_factory.mktemp("runs") / "convolutional"))
    reszoo.build("resnet8", classes=10, input_shape=(8, 8, 1)).save(run / "model.keras")
    return run


def test_explain_writes_one_image_per_readable_file(
    convolutional: Path, images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = tmp_path / "more" / "a.png"
    same.parent.mkdir()
    shutil.copy(images[1], same)
    out, words = tmp_path / "out", [str(path) for path in (*images, tmp_path / "c.png", same)]
    options = ["--class", "3", "--layer", "stage2", "--out", str(out)]
    assert main(["explain", str(convolutional), *words, *options]) == 1
    printed, reported = capsys.readouterr()
    assert reported.splitlines()[0] == f"reszoo: {tmp_path / 'c.png'}: No such file or directory"
    head, *rows = (line.split("\t") for line in printed.splitlines())
    assert head == ["image", "class", "probability", "file"]
    names = ["a-gradcam.png", "b-gradcam.png", "a-2-gradcam.png"]
    assert [Path(row[3]).name for row in rows] == names
    assert sorted(path.name for path in out.iterdir()) == sorted(names)
    found = reszoo.explain(convolutional, [*images, same], class_name="3", layer="stage2")
    for one, (path, label, probability, file) in zip(found, rows, strict=True):
        assert (path, label, probability) == (one.path, "3", f"{one.probability:.6g}")
        with Image.open(file) as image:
            np.testing.assert_array_equal(image, one.overlay())


def test_export_of_a_run_with_damaged_scores_is_rejected(
    digits_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(digits_run, tmp_path / "run"))
    (run / "test.json").write_text('{"examples":')
    assert main(["export", str(run), str(tmp_path / "out")]) == 2
    assert f"write it again with: reszoo evaluate {run}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_export_predict_and_the_served_model_agree(
    digits_run: Path, images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "served"
    assert main(["export", str(digits_run), str(out)]) == 0
    printed = capsys.readouterr().out
    for text in (f"{out}: SavedModel, float32", "all 360 images", "accuracy"):
        assert text in printed
    assert main(["predict", str(digits_run), *map(str, images), "--json"]) == 0
    predictions = json.loads(capsys.readouterr().out)

    served = tf.saved_model.load(str(out / "1")).signatures["image_bytes"]
    answer = served(image_bytes=tf.constant([path.read_bytes() for path in images]))
    for row, prediction in enumerate(predictions):
        assert [label.decode() for label in answer["labels"][row].numpy()] == prediction["labels"]
        assert answer["scores"][row].numpy() == pytest.approx(prediction["probabilities"], abs=1e-5)

    card = json.loads((out / "card.json").read_text())
    assert card["recipe"]["name"] == "quickstart"
    assert card["test"] == json.loads((digits_run / "test.json").read_text())
    record = json.loads((out / "1" / "assets" / "preprocessing.json").read_text())
    assert Preprocessing.from_dict(record) == reszoo.Run.open(digits_run).preprocessing


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("evaluate {none}", "no run folder"),
        ("evaluate {run} --split tset", "split: 'tset' is invalid"),
        ("evaluate {run} --data synthetic --devices cpu", "class 0 of synthetic is 'stripes_000'"),
        ("evaluate {run} --devices tpu", "devices: tpu is invalid"),
        ("evaluate {run} --batch-size many", "--batch-size"),
        ("evaluate {run} --crops 5", "crops: 5 is invalid; expected 1 or 10"),
        ("evaluate {run} --scales a,b", "scales: 'a,b' is invalid; expected lengths in pixels"),
        (
            "evaluate {run} --scales 8",
            "scales: [8] is invalid; the images are normalized by a mean",
        ),
        ("evaluate {run} --crop-ratio 0", "crop_ratio: 0.0 is invalid; expected a number above 0"),
        (
            "evaluate {run} --interpolation box",
            "interpolation: 'box' is invalid; expected bilinear",
        ),
        ("predict {run}", "IMAGE"),
        ("predict {run} {none}", "No such file"),
        ("predict {run} {none}*.png", "none*.png is invalid; it matches no file"),
        ("predict {run} {none} --json --format csv", "--json is invalid with --format csv"),
        ("predict {run} {none} --format xml", "invalid choice: 'xml'"),
        (
            "predict {run} {run}/test.json",
            "test.json: not an image; expected a file in JPEG, PNG, GIF, BMP, WebP or TIFF",
        ),
        ("explain {run} {none}", "linear: no layer with maps"),
        ("explain {run} {none} --class x", "class_name: 'x' is invalid; expected a class"),
        ("explain {run} {none} --out {run}/test.json", "is not a folder"),
        ("export {run} {run}", "is not empty"),
        ("export {run}/model.keras {none}", "expected a run folder or a model name"),
        ("export {none} {none}", "no run folder"),
        ("export {run} {none} --format tflite", "invalid choice: 'tflite'"),
        ("export {run} {none} --quantize int8", "quantize: int8 is invalid for SavedModel"),
        ("export {run} {none} --image-size wide", "a side, such as 192"),
        ("export {run} {none} --image-size 16", "mean image of 8 x 8"),
        ("export {run} {none} --data folder:{none}", "no folder"),
        ("export {run} {run}/model.keras/out", "model.keras"),
    ],
)
def test_invalid_input_is_reported_in_one_line_with_status_2_and_leaves_nothing(
    command: str,
    message: str,
    digits_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = sorted(digits_run.rglob("*"))
    assert main(command.format(run=digits_run, none=tmp_path / "none").split()) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and len(printed.err.splitlines()) == 1
    assert printed.err.startswith("reszoo: ") and message in printed.err
    assert sorted(digits_run.rglob("*")) == before and not list(tmp_path.iterdir())
