"""weights= from a name to a net that evaluates, predicts, exports and trains; on a tiny row in place of the published ones."""

from __future__ import annotations

import enum
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

import reszoo
from reszoo import ReszooError, build, load_recipe, spec
from reszoo.cli.main import main
from reszoo.config.resolve import resolve_recipe
from reszoo.data.pipeline import open_pipeline
from reszoo.images.preprocessing import Preprocessing
from reszoo.training.setup import make_model
from reszoo.weights import published
from reszoo.weights.convert import export_arrays
from reszoo.weights.download import cache_path
from reszoo.weights.files import RemoteFile
from reszoo.weights.published import CIFAR10, Weights

URL = "https://weights.example/resnet8.safetensors"
TRANSFORMS = Preprocessing((32, 32), 3, 0, (0.5, 0.4, 0.3), (0.3, 0.2, 0.1))


@pytest.fixture
def row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Weights:
    """Published weights of resnet8 in PyTorch's layout, already in the cache, and no network."""
    monkeypatch.setenv("RESZOO_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    model = build("resnet8")
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if variable.name != "kernel":
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    path = cache_path(RemoteFile(url=URL, digest="sha256:" + 64 * "0"))
    path.parent.mkdir(parents=True)
    save_file(export_arrays(model, spec("resnet8"), "akamaster"), path)
    digest = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    row = Weights(
        model="resnet8",
        tag="someone/v1",
        layout="akamaster",
        data="cifar10",
        top1=90.0,
        top5=None,
        transforms=TRANSFORMS,
        license="BSD-2-Clause",
        source="https://weights.example",
        files=(RemoteFile(url=URL, digest=digest),),
    )
    known = published.published()
    monkeypatch.setattr(published, "published", lambda: (row, *known))
    return row


@pytest.mark.parametrize("tag", ["someone/v1", "v1", "cifar10"])
def test_a_built_model_carries_its_record(tag: str, row: Weights) -> None:
    model = build("resnet8", weights=tag)
    assert model.pretrained.weights is row and model.pretrained.transforms == TRANSFORMS
    assert model.pretrained.class_names == CIFAR10 and model.output_shape == (None, 10)
    arrays = export_arrays(model, spec("resnet8"), "akamaster")
    from safetensors.numpy import load_file

    held = load_file(cache_path(row.files[0]))
    assert all((arrays[name] == held[name]).all() for name in held if not name.endswith("tracked"))


def test_other_classes_and_channels_are_reported(
    row: Weights, capsys: pytest.CaptureFixture[str]
) -> None:
    model = build("resnet8", weights="cifar10", classes=7, input_shape=(16, 16, 1))
    said = capsys.readouterr().err
    assert "resnet8: new classifier for 7 classes, the rest loaded" in said
    assert "the first convolution's input channels were summed to 1" in said
    assert model.pretrained.class_names == () and model.pretrained.transforms.image_size == (16, 16)
    build("resnet8", weights="cifar10")
    assert capsys.readouterr().err == ""
    cut = build("resnet8", weights="cifar10", top=False)
    assert cut.output_shape == (None, 64) and cut.pretrained.class_names == ()
    for net in (model, cut):
        with pytest.raises(ReszooError, match="has no trained classifier"):
            reszoo.predict(net, [])


def test_a_damaged_or_absent_file_is_rejected_and_not_opened(row: Weights) -> None:
    path = cache_path(row.files[0])
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ReszooError, match="not in the cache"):
        build("resnet8", weights="cifar10")
    path.unlink()
    with pytest.raises(
        ReszooError, match=f"{URL}: not in the cache, and HF_HUB_OFFLINE is set.* put it at {path}"
    ):
        build("resnet8", weights="cifar10")


def test_predict_evaluate_and_export_prepare_images_as_recorded(
    row: Weights, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(1)
    files, pixels = [], []
    for number, name in enumerate(CIFAR10):
        for part in ("train", "test"):
            folder = tmp_path / "set" / part / name
            folder.mkdir(parents=True)
            image = rng.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(image).save(folder / f"{number}.png")
        files.append(folder / f"{number}.png")
        pixels.append(image)
    model = build("resnet8", weights="cifar10")
    inputs = (np.stack(pixels) / 255 - np.array(TRANSFORMS.mean)) / np.array(TRANSFORMS.std)
    logits = np.asarray(model(inputs.astype(np.float32)))
    expected = np.exp(logits - logits.max(1, keepdims=True))
    expected /= expected.sum(1, keepdims=True)
    for net in (model, "resnet8"):
        given = reszoo.predict(net, files, top=1)
        assert [p.labels[0] for p in given] == [CIFAR10[i] for i in expected.argmax(1)]
        np.testing.assert_allclose([p.probabilities[0] for p in given], expected.max(1), atol=1e-5)
    scores = reszoo.evaluate("resnet8", data=f"folder:{tmp_path}/set", out=tmp_path / "scores")
    assert scores.top1 == (expected.argmax(1) == np.arange(10)).mean() and scores.examples == 10
    assert [path.suffix for path in (tmp_path / "scores").iterdir()].count(".json") == 2
    with pytest.raises(ReszooError, match="data: none is given"):
        reszoo.evaluate("resnet8")
    assert main(["predict", "resnet8", str(files[0]), "--weights", "v1", "--top", "1"]) == 0
    report = reszoo.export(reszoo.freeze(model, until="stage1"), tmp_path / "served")
    assert report.check.probability_difference < 1e-5 and report.check.accuracy is None
    card = json.loads((tmp_path / "served" / "card.json").read_text())
    assert card["parameters"] == reszoo.count("resnet8").parameters, "frozen weights count too"
    assert card["weights"]["tag"] == "someone/v1" and card["weights"]["license"] == "BSD-2-Clause"
    told = json.loads((tmp_path / "served" / "1" / "assets" / "preprocessing.json").read_text())
    assert told["mean"] == pytest.approx(TRANSFORMS.mean) and told["std"] == pytest.approx(
        TRANSFORMS.std
    )


OVERRIDES = [
    "model.name=resnet8", "model.weights=cifar10", "data.name=digits", "augment.crop=pad", "augment.flip=false",
    "data.examples=64", "train.epochs=2", "train.export=false", "finetune.probe_epochs=1",
]  # fmt: skip


def test_finetuning_starts_from_the_weights_and_uses_their_transforms(
    row: Weights, tmp_path: Path
) -> None:
    recipe = load_recipe("finetune", OVERRIDES)
    assert (
        recipe.data.normalize == "weights"
        and recipe.data.image_size == (32, 32)
        and recipe.data.channels == 3
    )
    result = reszoo.train(recipe, run_dir=tmp_path / "run", quiet=True)
    run = result.run
    assert run.meta["weights"]["tag"] == "someone/v1"
    assert run.preprocessing.mean == pytest.approx(TRANSFORMS.mean)
    trained, start = run.load_model(), build("resnet8", weights="cifar10")
    for name in (
        "stem_conv1",
        "stage1_block1_conv1",
        "stage1_block1_bn2",
    ):  # frozen, statistics and all
        for now, before in zip(
            trained.get_layer(name).weights, start.get_layer(name).weights, strict=True
        ):
            np.testing.assert_array_equal(now.numpy(), before.numpy())
    moved = (
        trained.get_layer("stage3_block1_conv1").kernel.numpy()
        - start.get_layer("stage3_block1_conv1").kernel.numpy()
    )
    assert 0 < np.abs(moved).max() < 0.5
    assert run.class_names == tuple(map(str, range(10))), (
        "as many classes as CIFAR-10's, but others"
    )
    # Scored anew from the folder, and gone on with though the weights' file be gone: the checkpoint brings all.
    assert reszoo.evaluate(run, out=tmp_path / "again").top1 == result.test.top1  # type: ignore[union-attr]
    cache_path(row.files[0]).unlink()
    assert reszoo.train(run.recipe, run_dir=run.path, resume=True, quiet=True).finished


def test_a_new_classifier_is_made_where_as_many_classes_are_others(row: Weights) -> None:
    recipe = load_recipe("finetune", OVERRIDES)
    made, start = make_model(recipe, open_pipeline(recipe)), build("resnet8", weights="cifar10")
    kernels = [
        [model.get_layer(name).kernel.numpy() for model in (made, start)]
        for name in ("head_dense", "stage3_block1_conv1")
    ]
    assert not np.allclose(*kernels[0]) and made.pretrained.class_names == ()
    np.testing.assert_array_equal(*kernels[1])


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["data.normalize=channel"], 'expected "weights" with model.weights'),
        (["model.weights=nope"], "resnet8 has no weights 'nope'; it has someone/v1"),
        (
            ["train.grow_from=runs/x"],
            "train.grow_from: .* is invalid; expected no model.weights with it",
        ),
        (
            ["model.weights=''", "data.normalize=weights"],
            "expected published weights in model.weights with it",
        ),
    ],
)
def test_contradictory_recipes_are_rejected(overrides: list[str], says: str, row: Weights) -> None:
    with pytest.raises(ReszooError, match=says):
        load_recipe("finetune", [*OVERRIDES, *overrides])


def test_a_users_own_file_starts_a_run_too(
    row: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build("resnet8").save_weights(tmp_path / "mine.weights.h5")
    monkeypatch.chdir(tmp_path)
    overrides = [
        "model.name=resnet8",
        "model.weights=mine.weights.h5",
        "data.examples=64",
        "train.steps=1",
        "train.export=false",
    ]
    run = reszoo.train("quickstart", overrides=overrides, run_dir="run", quiet=True).run
    assert run.recipe.model.weights == str(tmp_path / "mine.weights.h5")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["predict", "resnet8", "x.png", "--weights", "nope"], "resnet8 has no weights 'nope'"),
        (["predict", "resnet9000", "x.png"], "no run folder resnet9000, and no model 'resnet9000'"),
        (["evaluate", "plain8"], "belong to resnet8: shortcut is 'none' here"),
        (["export", "nothing/here", "out"], "no run folder nothing/here"),
        (
            ["convert", "nothing.pth", "out.weights.h5"],
            "nothing.pth does not exist; expected a file or a run folder",
        ),
    ],
)
def test_the_command_line_rejects_in_one_line(
    arguments: list[str], says: str, row: Weights, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert says in capsys.readouterr().err


def test_convert_at_the_prompt(
    row: Weights, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, ours, theirs = (
        cache_path(row.files[0]),
        tmp_path / "a.weights.h5",
        tmp_path / "b.safetensors",
    )
    assert main(["convert", str(source), str(ours), "--model", "resnet8"]) == 0
    told = capsys.readouterr().out
    assert (
        "stage1_block1_conv1/kernel\tlayer1.0.conv1.weight\tmatched" in told
        and "a.weights.h5: 0." in told
    )
    assert main(["convert", str(ours), str(theirs), "--model", "resnet8", "--to", "akamaster"]) == 0
    from safetensors.numpy import load_file

    back, held = load_file(theirs), load_file(source)
    assert back.keys() == held.keys() and all((back[name] == held[name]).all() for name in held)
    capsys.readouterr()
    for arguments, says in (
        (["--model", "resnet14"], "30 tensors do not fit in all); "),
        (["--model", "resnet50"], "cannot have akamaster's weights"),
        ([], "model: expected a model name"),
        (["--model", "resnet8", "--from", "keras"], "resnet8 cannot have keras's weights"),
        (["--model", "resnet8", "--to", "caffe"], "expected a name that ends in .safetensors"),
    ):
        assert main(["convert", str(source), str(tmp_path / "c.weights.h5"), *arguments]) == 2
        assert says in capsys.readouterr().err
    assert not (tmp_path / "c.weights.h5").exists()
    assert main(["convert", str(source), str(ours), "--model", "resnet8"]) == 2
    assert "exists; remove it" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "a.weights.h5",
        "b.safetensors",
    ]


def test_weights_that_need_pytorch_are_rejected_before_the_download(
    row: Weights, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        ReszooError,
        match=r"resnet20-12fca82f.th is in PyTorch's own format; .*pip install 'reszoo\[torch\]'",
    ):
        build("resnet20", weights="cifar10")


class ResNet18_Weights(enum.Enum):
    IMAGENET1K_V1 = 1


@pytest.mark.parametrize(
    ("weights", "example"),
    [(True, "imagenet"), ("DEFAULT", "imagenet"), ("pretrained", "imagenet"),
     (ResNet18_Weights.IMAGENET1K_V1, "torchvision/IMAGENET1K_V1")],
)  # fmt: skip
def test_other_libraries_values_for_their_default_weights_lead_to_ours(
    weights: Any, example: str
) -> None:
    with pytest.raises(ReszooError, match=f"Example: weights='{example}'"):
        build("resnet18", weights=weights)


def test_a_classifier_that_does_not_fit_is_replaced_on_request(tmp_path: Path) -> None:
    three, none = tmp_path / "three.weights.h5", tmp_path / "none.weights.h5"
    build("resnet8", classes=3).save_weights(three)
    build("resnet8", top=False).save_weights(none)
    shapes = r"'head_dense/kernel' has shape \[64, 10\] here and \[64, 3\] there.*"
    for file, says in (
        (three, f"{shapes}Give classes=3 for the file's classifier, or another classes=N"),
        (none, "The file holds no classifier: give top=False for none, or classes=N"),
    ):
        with pytest.raises(ReszooError, match=says):
            build("resnet8", weights=file)
        assert build("resnet8", weights=file, classes=4).output_shape == (None, 4)
    kernel = build("resnet8", weights=three, classes=3).get_layer("head_dense").kernel
    assert kernel.shape == (64, 3)


def test_an_entry_of_a_checkpoint_starts_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`FILE#ENTRY` passes through a recipe, its absolute paths and the check before training."""
    arrays = export_arrays(build("resnet8"), spec("resnet8"), "akamaster")
    both = {f"model.{name}": array for name, array in arrays.items()}
    averaged = {f"ema.{name}": np.zeros_like(array) for name, array in arrays.items()}
    save_file(both | averaged, tmp_path / "both.safetensors")
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(
        "quickstart", ["model.name=resnet8", "model.weights=both.safetensors#raw", "train.steps=1"]
    )
    weights = resolve_recipe(recipe).model.weights
    assert weights == str(tmp_path / "both.safetensors#raw")
    assert (np.asarray(build("resnet8", weights=weights).get_layer("head_dense").kernel) != 0).any()
    assert (
        np.asarray(
            build("resnet8", weights=weights.removesuffix("#raw")).get_layer("head_dense").kernel
        )
        == 0
    ).all()


def test_convert_takes_an_entry_and_prints_what_it_ignored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = export_arrays(build("resnet8"), spec("resnet8"), "akamaster")
    held = {f"teacher.{name}": array for name, array in arrays.items()} | {
        f"student.{name}": np.asarray(2 * array) for name, array in arrays.items()
    }
    save_file(held, tmp_path / "two.safetensors")
    out = tmp_path / "out.weights.h5"
    assert main(["convert", str(tmp_path / "two.safetensors"), str(out), "--model", "resnet8"]) == 2
    assert "'student', 'teacher'" in capsys.readouterr().err and not out.exists()
    assert (
        main(["convert", f"{tmp_path}/two.safetensors#student", str(out), "--model", "resnet8"])
        == 0
    )
    assert "two.safetensors: loaded the weights under 'student.'" in capsys.readouterr().err
    expected = 2 * arrays["linear.weight"].T
    np.testing.assert_array_equal(
        np.asarray(build("resnet8", weights=out).get_layer("head_dense").kernel), expected
    )


@pytest.mark.parametrize("weights", [5, b"cifar10", ["cifar10"]])
def test_weights_of_a_wrong_type_are_rejected(weights: object) -> None:
    with pytest.raises(ReszooError, match="expected a tag such as 'imagenet', or a file"):
        build("resnet8", weights=weights)  # type: ignore[arg-type]


def test_a_run_from_a_file_that_is_not_there_is_rejected_at_once(tmp_path: Path) -> None:
    overrides = ["model.weights=none.weights.h5"]
    with pytest.raises(ReszooError, match="model.weights: no weights file .*none.weights.h5"):
        reszoo.train("quickstart", overrides=overrides, run_dir=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_freezing_all_leaves_the_recipes_probe_out(row: Weights) -> None:
    recipe = load_recipe("finetune", [*OVERRIDES[:-1], "finetune.freeze=all"])
    assert (recipe.finetune.probe_epochs, recipe.finetune.stage_decay) == (0.0, 1.0)
