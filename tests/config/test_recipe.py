"""Recipes: the packaged ones against the papers, overrides, round trips, and one line for each kind of bad input."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reszoo.config.data import Augmentation, DataConfig, NoCrop, PadCrop, ScaleCrop
from reszoo.config.load import load_recipe, recipe_folder, recipe_names
from reszoo.config.model import ModelConfig, Published
from reszoo.config.optimizer import SGD, Optimizer
from reszoo.config.recipe import Recipe
from reszoo.config.resolve import resolve_recipe
from reszoo.config.schedule import CosineSchedule, Schedule, StepSchedule
from reszoo.config.training import FinetuneConfig, TrainConfig
from reszoo.errors import ReszooError
from reszoo.validation.messages import choices
from reszoo.validation.table import Table

PUBLISHED = {  # percent error, typed from the papers' tables
    "cifar10_resnet20": 8.75, "cifar10_resnet32": 7.51, "cifar10_resnet44": 7.17, "cifar10_resnet56": 6.97,
    "cifar10_resnet110": 6.61, "cifar10_resnet1202": 7.93, "cifar10_resnet20_50k": 8.75,
    "cifar10_resnet110_v2": 6.37, "cifar10_resnet164_v2": 5.46, "cifar10_resnet1001_v2": 4.92,
    "cifar10_wrn28_10": 4.0, "cifar10_resnet110_sd": 5.23, "cifar10_resnet20_akamaster": 8.27,
    "cifar10_fixup110": 7.24,
    "cifar100_wrn28_10": 19.25, "cifar100_resnet110_sd": 24.58, "cifar100_resnet164_v2": 24.33,
    "cifar100_resnet1001_v2": 22.71,
    "imagenet_plain18": 27.94, "imagenet_plain34": 28.54, "imagenet_resnet18": 27.88, "imagenet_resnet34": 25.03,
    "imagenet_resnet50": 24.7, "imagenet_resnet101": 23.6, "imagenet_resnet152": 23.0,
}  # fmt: skip
MODERN = {
    "imagenet_resnet50_torchvision": 23.87, "imagenet_resnet50_v2": 19.14,
    "imagenet_resnet50_bag_of_tricks": 20.85, "imagenet_resnet50_a1": 19.6,
    "imagenet_resnet50_a2": 20.2, "imagenet_resnet50_a3": 21.9, "imagenet_resnet18_a1": 28.5,
    "imagenet_resnet18_a2": 29.4, "imagenet_resnet18_a3": 31.8,
    "imagenet_resnet50_mild": 23.81, "imagenet_resnetrs50": 21.2,
}  # fmt: skip
UNPUBLISHED = {"quickstart", "lab_digits", "finetune", "folder", "cifar10_resnet20_cpu"} | {
    f"cifar10_plain{depth}" for depth in (20, 32, 44, 56, 110)
}
FASHION = {f"fashion_{kind}{depth}" for kind in ("plain", "resnet") for depth in (20, 56)}
UNPUBLISHED |= FASHION | {"fashion_wrn28_10"}
WARMED = {f"cifar10_{net}" for net in ("resnet110", "plain110", "resnet1202")} | {
    f"cifar10_resnet{depth}_v2" for depth in (110, 164, 1001)
}
HE_CIFAR = sorted(
    name
    for name in {*PUBLISHED, *UNPUBLISHED}
    if name.startswith("cifar10_")
    and not name.endswith(("_cpu", "_sd", "wrn28_10", "akamaster", "fixup110", "speedrun"))
)
HE_IMAGENET = sorted(name for name in PUBLISHED if name.startswith("imagenet"))
PUBLISHED |= MODERN
UNPUBLISHED |= {"finetune_bit", "imagenet_resnet50_medium"}
UNPUBLISHED |= {"fashion_speedrun", "cifar10_speedrun"}


def minimal(**tables: dict[str, Any]) -> dict[str, Any]:
    """The tables of a small valid recipe, those given merged in."""
    base: dict[str, Any] = {
        "model": {"name": "resnet8"},
        "data": {"name": "digits"},
        "train": {"steps": 10, "batch_size": 4},
        "schedule": {"kind": "constant", "rate": 0.1},
    }
    return base | {key: base.get(key, {}) | table for key, table in tables.items()}


def refusal(call: Any, *args: Any, **kwargs: Any) -> str:
    """The one line with which a call is refused."""
    with pytest.raises(ReszooError) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The packaged recipes


@pytest.mark.smoke
def test_exactly_the_promised_recipes_are_packaged() -> None:
    assert set(recipe_names()) == {*PUBLISHED, *UNPUBLISHED}


@pytest.mark.parametrize("name", sorted({*PUBLISHED, *UNPUBLISHED}))
def test_packaged_recipe_loads_has_a_usage_comment_and_reads_back_equal(
    name: str, tmp_path: Path
) -> None:
    recipe = load_recipe(name)
    header = [
        line
        for line in (recipe_folder() / f"{name}.toml").read_text().splitlines()
        if line.startswith("#")
    ]
    assert f"#     reszoo train {name}" in header
    assert any(line.startswith("# Device: ") for line in header) and any(
        line.startswith("# Expect: ") for line in header
    )
    assert recipe.name == name and recipe.description
    written = tmp_path / "recipe.toml"
    written.write_text(recipe.to_toml())
    assert load_recipe(written) == recipe


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_figure_is_in_the_recipe_its_header_and_the_table(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.published is not None and recipe.published.value == PUBLISHED[name]
    assert f"{PUBLISHED[name]} %" in (recipe_folder() / f"{name}.toml").read_text()
    rows = (recipe_folder() / "README.md").read_text().splitlines()
    (row,) = (row for row in rows if f"`{name}`" in row and row.startswith("|"))
    assert str(PUBLISHED[name]) in row


@pytest.mark.parametrize("name", sorted(UNPUBLISHED))
def test_recipe_without_a_published_figure_states_none(name: str) -> None:
    assert load_recipe(name).published is None
    assert f"`{name}`" in (recipe_folder() / "README.md").read_text()


@pytest.mark.parametrize("name", HE_CIFAR)
def test_cifar_recipes_follow_the_papers(name: str) -> None:
    recipe = load_recipe(name)
    assert (recipe.train.steps, recipe.train.batch_size, recipe.train.batch_norm) == (
        64_000,
        128,
        "local",
    )
    assert (recipe.schedule.kind, recipe.schedule.rate, recipe.schedule.factor) == (
        "step",
        0.1,
        0.1,
    )
    assert (recipe.schedule.boundaries, recipe.schedule.unit) == ((32_000, 48_000), "steps")
    warmup = (400, 0.01) if name in WARMED else (0, None)
    assert (recipe.schedule.warmup, recipe.schedule.warmup_rate) == warmup
    assert recipe.optimizer == SGD(momentum=0.9, weight_decay=1e-4, decay="coupled")
    assert recipe.augment == PadCrop(pad=4, flip=True)
    assert (recipe.data.name, recipe.data.normalize) == ("cifar10", "pixel_mean")
    held_out = 0 if name.endswith("50k") else 5_000
    assert recipe.data.validation == held_out and recipe.train.select == "last"
    # The papers' step counts in epochs of the images that are left, the last batch of each short.
    steps_per_epoch = math.ceil((50_000 - held_out) / 128)
    assert steps_per_epoch == (391 if name.endswith("50k") else 352)
    assert recipe.total_steps(steps_per_epoch) == 64_000


# Epochs, where the learning rate drops, by which factor, weight decay, Nesterov, images held out.
OTHERS: dict[str, tuple[float, tuple[float, ...], float, float, bool, int]] = {
    "cifar10_wrn28_10": (200, (60, 120, 160), 0.2, 5e-4, True, 0),
    "cifar10_resnet110_sd": (500, (250, 375), 0.1, 1e-4, True, 5_000),
    "cifar10_resnet20_akamaster": (200, (100, 150), 0.1, 1e-4, False, 0),
    "cifar10_fixup110": (200, (100, 150), 0.1, 1e-4, False, 0),
    "fashion_wrn28_10": (300, (150, 225), 0.1, 5e-4, False, 5_000),
}


@pytest.mark.parametrize("name", OTHERS)
def test_recipes_of_other_authors_follow_their_code(name: str) -> None:
    recipe, (epochs, boundaries, factor, decay, nesterov, held_out) = (
        load_recipe(name),
        OTHERS[name],
    )
    assert (recipe.train.epochs, recipe.train.batch_size) == (epochs, 128)
    schedule = StepSchedule(
        kind="step", rate=0.1, factor=factor, boundaries=boundaries, unit="epochs"
    )
    assert recipe.schedule == schedule
    # Torch7 and PyTorch add up gradients, not updates.
    assert recipe.optimizer == SGD(
        momentum=0.9, nesterov=nesterov, velocity="gradients", weight_decay=decay
    )
    mixup = 1.0 if "fixup" in name else 0.0
    assert recipe.augment == PadCrop(pad=4, flip=True, mixup=mixup)
    assert (recipe.data.validation, recipe.data.normalize) == (held_out, "channel")
    assert recipe.train.select == ("best" if name.endswith("_sd") else "last")


@pytest.mark.parametrize("name", sorted(n for n in PUBLISHED if n.startswith("cifar100")))
def test_a_recipe_on_cifar100_differs_only_in_the_data(name: str) -> None:
    other, own = load_recipe(name.replace("cifar100", "cifar10")), load_recipe(name)
    changed = {key: getattr(own, key) for key in ("name", "description", "published")}
    assert other.replace(**changed, data=other.data.replace(name="cifar100")) == own


@pytest.mark.parametrize("name", HE_IMAGENET)
def test_imagenet_recipes_follow_the_paper(name: str) -> None:
    recipe = load_recipe(name)
    assert (recipe.train.steps, recipe.train.batch_size) == (600_000, 256)
    assert (recipe.schedule.kind, recipe.schedule.rate, recipe.schedule.factor) == (
        "plateau",
        0.1,
        0.1,
    )
    assert recipe.data.validation > 0, "the plateau must not be read off the test images"
    assert recipe.optimizer == SGD(momentum=0.9, weight_decay=1e-4, decay="coupled")
    assert recipe.augment == ScaleCrop(scale=(256, 480), flip=True, color="pca")
    assert (recipe.data.image_size, recipe.data.resize) == ((224, 224), 256)
    spec = recipe.model.spec
    depth = int(re.sub(r"\D", "", name))
    assert spec.stride_at == "conv1" and spec.block == ("basic" if depth < 50 else "bottleneck")
    assert spec.shortcut == ("none" if "plain" in name else "A" if depth < 50 else "B")


# Epochs, batch, highest learning rate, weight decay, share of label smoothing, mixup, CutMix.
MODERN_KEYS: dict[str, tuple[float, ...]] = {
    "imagenet_resnet50_torchvision": (90, 256, 0.1, 1e-4, 0, 0, 0),
    "imagenet_resnet50_v2": (600, 1024, 0.5, 2e-5, 0.1, 0.2, 1),
    "imagenet_resnet50_bag_of_tricks": (200, 1024, 0.4, 1e-4, 0.1, 0.2, 0),
    "imagenet_resnet50_a1": (600, 2048, 5e-3, 0.01, 0.1, 0.2, 1),
    "imagenet_resnet50_a2": (300, 2048, 5e-3, 0.02, 0, 0.1, 1),
    "imagenet_resnet50_a3": (100, 2048, 8e-3, 0.02, 0, 0.1, 1),
    "imagenet_resnet50_mild": (28, 2048, 2.048, 5e-4 / 2.048, 0.08, 0, 0),
    "imagenet_resnet50_medium": (90, 2048, 2.048, 5e-4 / 2.048, 0.1, 0.2, 0),
    "imagenet_resnetrs50": (350, 4096, 0.1, 4e-5, 0.1, 0, 0),
}


@pytest.mark.parametrize("name", MODERN_KEYS)
def test_modern_recipes_have_the_originals_values(name: str) -> None:
    recipe = load_recipe(name)
    train, augment = recipe.train, recipe.augment
    found = (train.epochs, train.batch_size, recipe.schedule.rate, recipe.optimizer.weight_decay)
    found += (train.label_smoothing, augment.mixup, augment.cutmix)
    assert found == pytest.approx(MODERN_KEYS[name], rel=1e-4)
    if name.endswith("_v2"):  # train.py of pytorch/vision: model_ema_decay, per batch and epochs
        assert 1 - train.ema == pytest.approx((1 - 0.99998) * 1024 * 32 / 600, rel=1e-4)
    if name.endswith(("_mild", "_medium")):  # half of an average is from the last 100 steps
        assert train.ema ** (100 / train.ema_every) == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize("epochs", [28, 90, 180])
@pytest.mark.parametrize("kind", ["mild", "medium"])
def test_mosaicml_recipes_warm_up_as_composer_does_at_every_length(kind: str, epochs: int) -> None:
    recipe = load_recipe(f"imagenet_resnet50_{kind}", [f"train.epochs={epochs}"])
    per_epoch = 1_281_167 // 2048
    warm, total = 8 * per_epoch, epochs * per_epoch  # Composer 0.7.1 does not scale the warm-up
    for step in (0, 1, warm // 2, warm - 1, warm, warm + 1, total // 2, total - 1):
        factor = step / warm
        if step >= warm:
            factor = 0.5 * (1 + math.cos(math.pi * (step - warm) / (total - warm)))
        rate = recipe.schedule.rate_at(
            step, total_steps=total, steps_per_epoch=per_epoch, batch_size=2048
        )
        assert rate == pytest.approx(2.048 * factor, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    "name", [name for name in sorted({*PUBLISHED, *UNPUBLISHED}) if "plain" in name]
)
def test_plain_twin_differs_only_in_the_model(name: str) -> None:
    plain, residual = load_recipe(name), load_recipe(name.replace("plain", "resnet"))
    like_plain = dict.fromkeys(("name", "description", "published", "model"))
    assert residual.replace(**{key: getattr(plain, key) for key in like_plain}) == plain
    assert residual.model.spec.plain_twin().replace(name=plain.model.name) == plain.model.spec


def test_names_sort_by_the_numbers_in_them() -> None:
    names = recipe_names()
    assert (
        names.index("cifar10_resnet56")
        < names.index("cifar10_resnet110")
        < names.index("cifar10_resnet1202")
    )


# Length


def test_epochs_become_whole_steps_of_at_least_one() -> None:
    recipe = load_recipe("cifar10_resnet20", ["train.epochs=1.5"])
    assert recipe.total_steps(352) == 528
    assert load_recipe("cifar10_resnet20", ["train.epochs=0.001"]).total_steps(352) == 1


# Overrides


@pytest.mark.smoke
def test_overrides_reach_every_table_as_toml_or_unquoted_text() -> None:
    recipe = load_recipe(
        "cifar10_resnet20",
        [
            "train.seed = 7", "train.precision=mixed_bfloat16", "data.name=folder:/x y", "data.image_size=[32, 24]",
            "augment.flip=false", "model.shortcut=B", "model.depths=[2, 2, 2]", "optimizer.weight_decay=5e-4",
            'schedule.unit="epochs"', "schedule.boundaries=[1, 2.5]", "published.value=3",
        ],
    )  # fmt: skip
    assert (recipe.train.seed, recipe.train.precision) == (7, "mixed_bfloat16")
    assert (recipe.data.name, recipe.data.image_size) == ("folder:/x y", (32, 24))
    assert recipe.augment.flip is False
    assert recipe.model == ModelConfig(name="resnet20", shortcut="B", depths=(2, 2, 2))
    assert recipe.model.spec.depths == (2, 2, 2)
    assert recipe.optimizer.weight_decay == 5e-4
    assert (recipe.schedule.unit, recipe.schedule.boundaries) == ("epochs", (1.0, 2.5))
    assert recipe.published is not None and recipe.published.value == 3.0


def test_text_is_taken_as_typed_even_where_it_looks_like_a_number() -> None:
    assert load_recipe(
        "quickstart", ["published.metric=1e3", "published.value=1", "published.source=2016-03-16"]
    ).published == (Published(metric="1e3", value=1, source="2016-03-16"))


@pytest.mark.parametrize("spelt", ["plain20", '"plain20"', "'plain20'", " plain20 "])
def test_text_may_be_quoted(spelt: str) -> None:
    recipe = load_recipe("quickstart", [f"model.name={spelt}", f"data.name={spelt}"])
    assert (recipe.model.name, recipe.data.name) == ("plain20", "plain20")


def test_the_last_of_two_overrides_of_a_key_holds() -> None:
    assert load_recipe("quickstart", ["train.seed=1", "train.seed=2"]).train.seed == 2


def test_overriding_epochs_drops_the_files_steps_and_the_reverse() -> None:
    assert load_recipe("cifar10_resnet20", ["train.epochs=2"]).train.steps == 0
    assert load_recipe("cifar10_resnet20_cpu", ["train.steps=9"]).train.epochs == 0
    message = refusal(load_recipe, "cifar10_resnet20", ["train.steps=9", "train.epochs=2"])
    assert "exactly one" in message


def test_overriding_the_kind_drops_the_keys_of_the_files_kind() -> None:
    recipe = load_recipe(
        "cifar10_resnet110", ["schedule.kind=cosine", "optimizer.name=adam", "augment.crop=none"]
    )
    assert recipe.schedule == CosineSchedule(kind="cosine", rate=0.1, warmup=400, warmup_rate=0.01)
    assert recipe.optimizer.name == "adam" and recipe.augment == NoCrop(flip=True)
    message = refusal(
        load_recipe, "cifar10_resnet20", ["schedule.kind=cosine", "schedule.factor=0.5"]
    )
    assert 'schedule.factor: not used with schedule.kind = "cosine"' in message


BAD_OVERRIDES = {
    "epochs=2": "did you mean 'train.epochs'",
    "trian.epochs=2": "did you mean 'train.epochs'",
    "train.epoch=2": "did you mean 'train.epochs'",
    "zebra": "expected table.key=value. Example: --set train.epochs=2",
    "zebra=1": '"zebra": unknown recipe key; expected model.KEY, data.KEY',
    "model=resnet20": '"model": unknown recipe key',
    "name=other": '"name": unknown recipe key',
    "model.name=resnet21": "the nearest is 20 or 26",
    "model.name=resnte20": "did you mean 'resnet20'",
    "model.shortcuts=B": "did you mean 'shortcut'",
    "model.shortcut=D": 'shortcut: "D" is invalid; expected one of "none", "A", "B", "C"',
    "model.depths=3": "depths: 3 is invalid; expected a list of at least 1, each an integer >= 1",
    "model.zero_gamma=1": "zero_gamma: 1 is invalid; expected true or false",
    "train.epochs=two": 'train.epochs: "two" is invalid; expected a number >= 0. Example: --set train.epochs=20',
    "train.epochs=": 'train.epochs: "" is invalid; expected a number >= 0',
    "train.epochs=nan": "train.epochs: NaN is invalid; expected a number >= 0",
    "train.epochs=-1": "train.epochs: -1 is invalid; expected a number >= 0",
    "train.steps=0": "expected exactly one > 0 of train.steps and train.epochs",
    "train.batch_size=1.5": "train.batch_size: 1.5 is invalid; expected an integer >= 1",
    "train.batch_size=true": "train.batch_size: true is invalid; expected an integer >= 1",
    "train.batch_size=0": "train.batch_size: 0 is invalid; expected an integer >= 1. Example: --set train.batch_size=128",
    "train.accumulate=129": "expected at most train.batch_size = 128",
    "train.seed=-1": "train.seed: -1 is invalid; expected an integer >= 0 and < 2147483648",
    "train.ema=1": "train.ema: 1 is invalid; expected a number >= 0 and < 1",
    "train.ema_batch_norm=true": "train.ema_batch_norm: not used with train.ema = 0.0",
    "train.label_smoothing=1.5": "expected a number >= 0 and < 1",
    "train.precision=flaot16": '"mixed_float16"',
    "data.multi_label=true": 'train.loss: "categorical" is invalid; expected "bce" or your own f',
    "train.class_weights={a=0.0}": 'train.class_weights: {"a": 0.0} is invalid; expected one of "none", "balanced" or a table of keys. Example: --set train.class_weights="balanced"',
    "train.select=bets": "did you mean 'best'",
    "train.deterministic=yes": 'train.deterministic: "yes" is invalid; expected true or false',
    "train.seed=1\ntrain.steps=2": "expected an integer",
    "data.image_size=[32]": "data.image_size: [32] is invalid; expected a list of 2",
    "data.image_size=32": "data.image_size: 32 is invalid; expected a list of 2",
    "data.normalize=pixelmean": "did you mean 'pixel_mean'",
    "data.name=\udcff": "is invalid; expected text",
    "optimizer.name=sdg": "did you mean 'sgd'",
    "optimizer.name=adamw": 'optimizer.decay: "coupled" is invalid; expected "decoupled"',
    "optimizer.decay=update": 'expected "coupled" or "decoupled" without optimizer.name = "lamb"',
    "optimizer.momentum=1": "optimizer.momentum: 1 is invalid; expected a number >= 0 and < 1",
    "optimizer.weight_decay=-1e-4": "expected a number >= 0",
    "optimizer.beta1=0.8": 'optimizer.beta1: not used with optimizer.name = "sgd"; expected only with "adam" or',
    "schedule.rate=0": "schedule.rate: 0 is invalid; expected a number > 0",
    "schedule.rate=1e999": "schedule.rate: Infinity is invalid; expected a number > 0",
    "schedule.factor=1": "schedule.factor: 1 is invalid; expected a number > 0 and < 1",
    "schedule.boundaries=[]": "schedule.boundaries: [] is invalid; expected a list of at least 1, each a number",
    "schedule.boundaries=[2, 1]": "expected rising numbers",
    "schedule.boundaries=[0, 1]": "expected rising numbers",
    'schedule.boundaries=[1, "x"]': "each a number",
    "schedule.warmup=32000": "expected rising numbers > schedule.warmup = 32000",
    "schedule.warmup_rate=0.01": "expected schedule.warmup > 0 with it",
    "schedule.warmup_start=0": "expected schedule.warmup > 0 with it",
    "schedule.every=epoch": 'expected schedule.unit = "epochs" with "epoch"',
    "schedule.include_warmup=true": 'expected only with "cosine"',
    "schedule.kind=plateau": "schedule.patience: missing; expected an integer >= 1",
    "schedule.patience=3": 'schedule.patience: not used with schedule.kind = "step"; expected only with "plateau"',
    "finetune.freeze=stage4": "expected one of 'none', 'stem', 'stage1', 'stage2', 'stage3', 'all' with model resnet20",
    "finetune.frezee=stem": "did you mean 'finetune.freeze'",
    "finetune.probe_epochs=two": "expected a number >= 0",
    "published.test=11-crop": 'published.test: "11-crop" is invalid; expected 1-crop, 10-crop or '
    "scales A,B,..., then perhaps flip, ratio X, or bicubic. Example: --set published.test=10-crop",
    "published.value=101": "published.value: 101 is invalid; expected a number >= 0 and <= 100",
}


CONTRADICTIONS = {
    (
        "train.jit=true",
        'train.batch_norm="sync"',
    ): 'train.jit: true is invalid; expected false with train.batch_norm = "sync"',
    (
        "train.jit=true",
        "model.drop_path=0.1",
    ): "train.jit: true is invalid; expected false with model.drop_path",
    (
        "train.jit=true",
        "model.dropout=0.1",
    ): "train.jit: true is invalid; expected false with model.dropout",
    (
        "train.checkpoint_gradients=true",
        "train.batch_norm=sync",
    ): 'train.checkpoint_gradients: true is invalid; expected false with train.batch_norm = "sync"',
    ("train.checkpoint_gradients=true", "train.jit=true"): "expected false with train.jit",
    ("train.jit=true", "model.shortcut_dropout=0.1"): "expected false with model.shortcut_dropout",
    (
        "data.on_device=true",
        "augment.crop=inception",
    ): 'data.on_device: true is invalid; expected false with augment.crop = "inc',
    (
        "train.class_weights=balanced",
        "data.sampler=balanced",
    ): 'class_weights: "balanced" is invalid; expected "none" with data.sampler = "balanced"',
    ("data.on_device=true", "augment.crop=scale"): 'expected false with augment.crop = "scale"',
}


@pytest.mark.parametrize("overrides", CONTRADICTIONS)
def test_keys_that_contradict_each_other_are_rejected_with_an_example(
    overrides: tuple[str, str],
) -> None:
    size = ["data.image_size=[24, 24]", "data.normalize=unit"]
    load_recipe("cifar10_resnet20", [*size, overrides[0]])
    load_recipe("cifar10_resnet20", [*size, overrides[1]])
    message = refusal(load_recipe, "cifar10_resnet20", [*size, *overrides])
    key, _, value = overrides[0].partition("=")
    fix = "false" if value == "true" else "none"
    assert CONTRADICTIONS[overrides] in message and f"Example: --set {key}={fix}" in message


@pytest.mark.smoke
@pytest.mark.parametrize("text", BAD_OVERRIDES)
def test_invalid_override_names_key_value_expected_and_fix(text: str) -> None:
    message = refusal(load_recipe, "cifar10_resnet20", [text])
    assert BAD_OVERRIDES[text] in message


@settings(max_examples=300, deadline=None)
@given(
    text=st.text(max_size=30)
    | st.from_regex(r"(train|model|schedule)\.[a-z_]{1,12}=.{0,12}", fullmatch=True)
)
def test_any_override_gives_a_recipe_or_the_one_error(text: str) -> None:
    try:
        recipe = load_recipe("quickstart", [text])
    except ReszooError:
        return
    assert isinstance(recipe, Recipe)


@settings(max_examples=50, deadline=None)
@given(
    batch=st.integers(1, 10**6),
    decay=st.floats(0, 1),
    word=st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda text: bool(text.strip())),
)
def test_override_equals_the_value_it_spells(batch: int, decay: float, word: str) -> None:
    quoted = '"' + "".join(f"\\U{ord(char):08x}" for char in word) + '"'
    overrides = [
        f"train.batch_size={batch}",
        f"optimizer.weight_decay={decay!r}",
        f"data.name={quoted}",
    ]
    recipe = load_recipe("quickstart", overrides)
    assert (recipe.train.batch_size, recipe.optimizer.weight_decay, recipe.data.name) == (
        batch,
        decay,
        word,
    )


# Files


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[model", "is not TOML"),
        ("a = 1\na = 2", "is not TOML"),
        ("[modle]\nname = 'resnet8'", "modle: unknown key; did you mean 'model'"),
        ("", "model: missing; expected a table of keys under [model]"),
        (
            "model = 3\ndata = 1\ntrain = 1\nschedule = 1",
            "model: 3 is invalid; expected a table of keys under [model]",
        ),
        ("description = 3", "description: 3 is invalid; expected text"),
    ],
)
def test_an_invalid_file_is_rejected_in_one_line_that_names_it(
    text: str, says: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    message = refusal(load_recipe, path)
    assert message.startswith(str(path)) and says in message


@pytest.mark.parametrize(
    ("tables", "says"),
    [
        (
            minimal(train={"batchsize": 4}),
            "train.batchsize: unknown key; did you mean 'batch_size'",
        ),
        (
            minimal(train={"batch_size": "4"}),
            'train.batch_size: "4" is invalid; expected an integer >= 1. Example: --set train.batch_size=128',
        ),
        (
            minimal(data={"name": 4}),
            'data.name: 4 is invalid; expected text. Example: --set data.name="cifar10"',
        ),
        (
            minimal(model={"name": 4}),
            'model.name: 4 is invalid; expected text. Example: --set model.name="resnet20"',
        ),
        (minimal(model={"depths": [2, 2]}), "model: resnet8: depths=(2, 2) is invalid"),
        (
            minimal() | {"train": {"steps": 10}},
            "train.batch_size: missing; expected an integer >= 1. Example: train.batch_size = 128",
        ),
        (minimal() | {"train": 10}, "train: 10 is invalid; expected a table of keys under [train]"),
        (minimal() | {"name": 10}, "name: 10 is invalid; expected text"),
        (minimal(published={"value": 3}), "published.metric: missing; expected text"),
    ],
)
def test_an_invalid_table_is_rejected_with_key_type_and_example(
    tables: dict[str, Any], says: str
) -> None:
    assert says in refusal(Recipe, **tables)


def test_missing_unreadable_and_binary_files_are_rejected_in_one_line(tmp_path: Path) -> None:
    assert refusal(load_recipe, tmp_path / "none.toml") == f"no file {tmp_path / 'none.toml'}"
    assert "Is a directory" in refusal(load_recipe, tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    assert "is not text in UTF-8" in refusal(load_recipe, tmp_path / "binary.toml")


@pytest.mark.smoke
def test_an_unknown_name_leads_to_the_nearest() -> None:
    assert "did you mean 'quickstart'" in refusal(load_recipe, "quickstrat")
    assert "`reszoo recipes`" in refusal(load_recipe, "zzzz")


# Made in Python


def test_configs_made_in_python_are_checked_alike() -> None:
    assert 'train.batch_size: "x" is invalid' in refusal(TrainConfig, batch_size="x", steps=1)
    assert StepSchedule(kind="step", rate=1, boundaries=[1, 2]).boundaries == (1.0, 2.0)  # type: ignore[arg-type]
    assert "model: no model" in refusal(ModelConfig, name="resnot")
    assert "nesterov" in refusal(SGD, nesterov=True, momentum=0)


OTHER = {"boundaries": (1.0,), "factor": 0.5, "patience": 1, "peak": 0.5, "final_rate": 0.01, "warmup": 1.0,
         "momentum": 0.5, "nesterov": True, "beta1": 0.5, "beta2": 0.5, "epsilon": 0.5,
         "pad": 2, "scale": (16, 32), "area": (0.5, 1.0)}  # fmt: skip
NEEDED: dict[str, dict[str, Any]] = {"step": {"boundaries": (9.0,)}, "plateau": {"patience": 9}}
ALTERNATIVES = [
    each for family in (Schedule, Optimizer, Augmentation) for each in family.alternatives()
]


@pytest.mark.parametrize("cls", ALTERNATIVES, ids=lambda cls: cls.__name__)
def test_a_key_is_accepted_by_its_own_alternatives_and_rejected_by_all_others(
    cls: type[Table],
) -> None:
    shared = {"rate": 0.1} if issubclass(cls, Schedule) else {}
    chosen = {cls.CHOICE: next(iter(choices(cls.model_fields[cls.CHOICE])), "mine:make")}
    for key in OTHER.keys() & cls.fields_of_alternatives().keys():
        values = chosen | shared | NEEDED.get(chosen[cls.CHOICE], {}) | {key: OTHER[key]}
        if key in cls.model_fields:
            assert getattr(cls.of(**values), key) == OTHER[key]
        else:
            assert f"{cls.TABLE}.{key}: not used with {cls.TABLE}.{cls.CHOICE} = " in refusal(
                cls.of, **values
            )


OLD = {  # the tables with alternatives, as version 0.1 wrote them into the run folder of cifar10_resnet20
    "augment": {"crop": "pad", "pad": 4, "flip": True, "scale": [256, 480], "area": [0.08, 1], "color": "none"},
    "optimizer": {"name": "sgd", "momentum": 0.9, "nesterov": False, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-7,
                  "weight_decay": 0.0001, "decay": "coupled", "decay_norms": True},
    "schedule": {"kind": "step", "rate": 0.1, "rate_batch": 0, "unit": "steps", "boundaries": [32000, 48000],
                 "factor": 0.1, "warmup": 0, "final_rate": 0, "peak": 0.25, "patience": 0},
}  # fmt: skip


def test_a_recipe_as_version_0_1_wrote_it_loads_equal() -> None:
    recipe = load_recipe("cifar10_resnet20")
    assert Recipe(**recipe.to_dict() | OLD).to_dict() == recipe.to_dict()


# Round trip

words = st.text(st.characters(codec="utf-8"), max_size=20)
recipes = st.builds(
    Recipe,
    name=words,
    description=words,
    model=st.builds(
        ModelConfig,
        name=st.sampled_from(["resnet20", "plain8", "resnet50_v1"]),
        dropout=st.floats(0, 0.9),
        stem_width=st.integers(1, 16),
    ),
    data=st.builds(DataConfig, name=words.filter(lambda name: name.strip() not in ("", "folder:")), channels=st.sampled_from([None, 1, 3])),
    augment=st.builds(NoCrop, flip=st.booleans()),
    train=st.builds(
        TrainConfig,
        batch_size=st.integers(8, 10**9),
        epochs=st.floats(1e-9, 1e9),
        clip_norm=st.floats(0, 1e18),
        precision=st.sampled_from(["float32", "mixed_bfloat16"]),
        deterministic=st.booleans(),
    ),
    optimizer=st.builds(SGD, weight_decay=st.floats(0, 1), nesterov=st.booleans()),
    schedule=st.builds(
        StepSchedule,
        kind=st.just("step"),
        rate=st.floats(1e-6, 10),
        boundaries=st.lists(st.floats(1, 1e9), min_size=1, unique=True).map(sorted),
        warmup=st.just(0.5),
        warmup_rate=st.none() | st.floats(1e-9, 1),
    ),
    finetune=st.builds(
        FinetuneConfig, freeze=st.sampled_from(["none", "stem", "stage2"]), stage_decay=st.floats(1e-6, 1)
    ),
    published=st.none() | st.builds(Published, metric=words, value=st.floats(0, 100), source=words),
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(recipe=recipes)
def test_a_written_recipe_reads_back_equal(
    recipe: Recipe, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    path.write_text(recipe.to_toml(), encoding="utf-8", newline="")
    assert load_recipe(path) == resolve_recipe(recipe)


def test_published_weights_fill_the_omitted_keys_of_the_data_table() -> None:
    data = load_recipe("finetune").data
    assert (data.image_size, data.resize, data.channels, data.normalize) == (
        (224, 224),
        232,
        3,
        "weights",
    )
    bicubic = load_recipe("finetune", ["model.weights=timm/a1_in1k"]).data
    assert (bicubic.image_size, bicubic.resize, bicubic.interpolation) == (
        (288, 288),
        288,
        "bicubic",
    )
    small = load_recipe("finetune", ["data.image_size=[112, 112]"]).data
    assert (small.image_size, small.resize) == ((112, 112), 116)
    own = load_recipe(
        "finetune", ["data.image_size=[112, 112]", "data.resize=150", "data.channels=1"]
    ).data
    assert (own.resize, own.channels) == (150, 1)
    made = load_recipe("finetune", ["data.name=synthetic", "data.validation=0"]).data
    assert (made.resize, made.image_size, made.normalize) == (0, (224, 224), "weights")
    free = load_recipe("finetune", ["model.weights=''"])
    assert (
        free.data.normalize == "pixel_mean"
        and free.data.image_size is None
        and free.model.published is None
    )


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (
            ["model.name=resnet50_v1"],
            "model.weights: resnet50_v1: weights .* stride_at is 'conv1' here and 'conv2' there",
        ),
        (["model.weights=3"], "model.weights: resnet50_v1_5 has no weights '3'"),
        (["data.normalize=channel"], 'expected "weights" with model.weights'),
        (
            ["data.interpolation=nearest"],
            'data.interpolation: "nearest" is invalid; expected one of "bilinear", "bicubic"',
        ),
    ],
)
def test_invalid_weights_of_a_recipe_are_rejected(overrides: list[str], says: str) -> None:
    with pytest.raises(ReszooError, match=says) as caught:
        load_recipe("finetune", overrides)
    assert "\n" not in str(caught.value)
