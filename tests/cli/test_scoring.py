"""`reszoo evaluate`, `predict` and `export` on a short run, as typed at a prompt."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from reszoo.cli.evaluate import most_confused, summary
from reszoo.cli.main import main
from reszoo.evaluation.scores import Scores
from reszoo.images.preprocessing import Preprocessing


@pytest.fixture(scope="module")
def finished(two_devices: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from reszoo.trainer import train

    folder = tmp_path_factory.mktemp("runs") / "run"
    settings = ["model.name=resnet8", "train.epochs=1", "schedule.warmup=0", "train.export=false"]
    train("quickstart", overrides=settings, run_dir=folder, devices="cpu", quiet=True)
    return folder


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for number, path in enumerate(paths):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 15, 1), np.uint8)
        path.write_bytes(tf.io.encode_png(pixels).numpy())
    return paths


def test_evaluate_prints_the_scores_it_writes(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scores"
    assert (
        main(
            ["evaluate", str(finished), "--batch-size", "50", "--devices", "cpu", "--out", str(out)]
        )
        == 0
    )
    printed = capsys.readouterr().out
    scores = json.loads((out / "test.json").read_text())
    assert f"top-1 error\t{100 - 100 * scores['top1']:.2f} %" in printed
    assert f"top-5 error\t{100 - 100 * scores['top5']:.2f} %" in printed
    assert f"balanced accuracy\t{100 * scores['balanced_accuracy']:.2f} %" in printed
    assert "every image was predicted" not in printed
    assert "images\t360" in printed and "digits, test\tmeasured" in printed
    assert (out / "confusion.png").is_file()


def test_evaluate_says_that_a_model_predicts_one_class_only(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import reszoo

    run = shutil.copytree(finished, tmp_path / "run")
    model = reszoo.Run.open(run).load_model()
    model.get_layer("head_dense").bias.assign([0.0] * 7 + [1000.0, 0.0, 0.0])
    model.save(run / "model.keras")
    assert main(["evaluate", str(run), "--devices", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "balanced accuracy\t10.00 %" in printed
    assert "every image was predicted as '7': the model does not tell the classes apart" in printed


def test_the_summary_tells_of_logits_that_are_not_finite() -> None:
    scores = Scores(
        examples=2000,
        top1=0.5,
        top5=None,
        loss=float("nan"),
        per_class=[0.5],
        confusion=[[1000]],
        not_finite=1000,
    )
    rows = dict(summary(scores))
    assert rows["images with logits that are not finite, counted wrong"] == "1,000"
    assert "top-5 error" not in rows and rows["images"] == "2,000"


def test_the_most_frequent_confusions_stand_first_and_ties_by_class() -> None:
    matrix = [[90, 10, 0], [0, 50, 50], [1, 1, 8]]
    names = ("a", "b", "c")
    assert most_confused(matrix, names) == [
        ("b", "c", "50.0 %"),
        ("a", "b", "10.0 %"),
        ("c", "a", "10.0 %"),
    ]
    assert most_confused([[5, 0], [0, 0]], ("a", "b")) == []


def test_predict_prints_a_row_for_each_class_and_image(
    finished: Path, images: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(finished), *map(str, images), "--top", "2"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["image", "class", "probability"]
    assert [row[0] for row in rows[1:]] == [str(images[0])] * 2 + [str(images[1])] * 2
    assert float(rows[1][2].removesuffix(" %")) >= float(rows[2][2].removesuffix(" %"))


def test_predict_prints_names_that_are_not_utf8(
    finished: Path, images: list[Path], tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9 [1].png")
    shutil.copy(images[0], name)
    assert main(["predict", str(finished), name, "--top", "1"]) == 0
    assert b"caf\\xe9 [1].png\t" in capfdbinary.readouterr().out
    assert main(["predict", str(finished), name, "--top", "1", "--json"]) == 0
    assert json.loads(capfdbinary.readouterr().out.decode())[0]["path"].endswith("caf\\xe9 [1].png")


def test_predict_as_json(
    finished: Path, images: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(finished), str(images[0]), "--json", "--top", "10"]) == 0
    (prediction,) = json.loads(capsys.readouterr().out)
    assert prediction["path"] == str(images[0]) and set(prediction["labels"]) == {
        str(d) for d in range(10)
    }
    assert sum(prediction["probabilities"]) == pytest.approx(1, abs=1e-5)


def test_export_of_a_run_with_damaged_scores_is_refused(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    (run / "test.json").write_text('{"examples":')
    assert main(["export", str(run), str(tmp_path / "out")]) == 2
    assert f"write it again with: reszoo evaluate {run}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_export_predict_and_the_served_net_agree(
    finished: Path, images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "served"
    assert main(["export", str(finished), str(out)]) == 0
    said = capsys.readouterr().out
    assert f"{out}: SavedModel, float32" in said and "all 360 images" in said and "accuracy" in said
    assert main(["predict", str(finished), *map(str, images), "--json"]) == 0
    predictions = json.loads(capsys.readouterr().out)

    served = tf.saved_model.load(str(out / "1"))
    answer = served.signatures["image_bytes"](
        image_bytes=tf.constant([path.read_bytes() for path in images])
    )
    for row, prediction in enumerate(predictions):
        assert [label.decode() for label in answer["labels"][row].numpy()] == prediction["labels"]
        assert answer["scores"][row].numpy() == pytest.approx(prediction["probabilities"], abs=1e-5)

    card = json.loads((out / "card.json").read_text())
    assert card["recipe"]["name"] == "quickstart" and card["spec"]["depths"] == [1, 1, 1]
    assert card["test"] == json.loads((finished / "test.json").read_text())
    run = json.loads((finished / "run.json").read_text())
    preprocessing = Preprocessing.from_dict(
        json.loads((out / "1" / "assets" / "preprocessing.json").read_text())
    )
    assert preprocessing == Preprocessing.from_dict(run["preprocessing"])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["evaluate", "{none}"], "no run folder"),
        (["evaluate", "{run}", "--split", "tset"], "no split 'tset'"),
        (
            ["evaluate", "{run}", "--data", "synthetic", "--devices", "cpu"],
            "class 0 of synthetic is 'stripes_000'",
        ),
        (["evaluate", "{run}", "--devices", "tpu"], "devices is 'tpu'"),
        (["evaluate", "{run}", "--batch-size", "many"], "--batch-size"),
        (["predict", "{run}"], "IMAGE"),
        (["predict", "{run}", "{none}"], "No such file"),
        (
            ["predict", "{run}", "{run}/test.json"],
            "test.json: not an image; expected a file in JPEG, PNG, GIF, BMP, WebP or TIFF",
        ),
        (["export", "{run}", "{run}"], "is not empty"),
        (["export", "{run}/model.keras", "{none}"], "give a run's folder"),
        (["export", "{none}", "{none}"], "no run folder"),
        (["export", "{run}", "{none}", "--format", "tflite"], "invalid choice: 'tflite'"),
        (["export", "{run}", "{none}", "--quantize", "int8"], "goes with litert and onnx"),
        (
            ["export", "{run}", "{none}", "--format", "onnx", "--quantize", "dynamic"],
            "dynamic goes with litert",
        ),
        (["export", "{run}", "{none}", "--image-size", "wide"], "a side, such as 192"),
        (["export", "{run}", "{none}", "--image-size", "0"], "a side, such as 192"),
        (["export", "{run}", "{none}", "--image-size", "16"], "mean image of 8 x 8"),
        (["export", "{run}", "{none}", "--data", "folder:{none}"], "no folder"),
        (["export", "{run}", "{run}/model.keras/out"], "model.keras"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_status_2_and_leaves_nothing(
    argv: list[str],
    message: str,
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"run": finished, "none": tmp_path / "none"}
    before = sorted(finished.rglob("*"))
    assert main([word.format(**places) for word in argv]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and len(printed.err.splitlines()) == 1
    assert printed.err.startswith("reszoo: ") and message in printed.err
    assert sorted(finished.rglob("*")) == before and not list(tmp_path.iterdir())
