"""A user's own shortcuts and blocks, against reszoo's own with the same layers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras import layers

import reszoo
from reszoo.config.load import load_recipe
from reszoo.errors import ReszooError

TINY: dict[str, Any] = {"depths": (1, 2), "widths": (4, 6), "stem_width": 4}
SHAPE = (8, 8, 3)


def conv_bn(x: Any, channels: int, kernel: int, stride: int, name: str) -> Any:
    if kernel == 3:
        x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
    x = layers.Conv2D(channels, kernel, stride, use_bias=False, name=f"{name}_conv")(x)
    return layers.BatchNormalization(epsilon=1e-5, name=f"{name}_bn")(x)


def project(x: Any, channels: int, stride: int, name: str) -> Any:
    if stride == 1 and x.shape[-1] == channels:
        return x
    return conv_bn(x, channels, 1, stride, name)


def count_projection(shape: Any, channels: int, stride: int) -> Any:
    height, width, entry = shape
    if stride == 1 and entry == channels:
        return 0, 0, 0
    weights = entry * channels
    return weights + 2 * channels, 2 * channels, weights * (height // stride) * (width // stride)


def branch(x: Any, channels: int, stride: int, name: str) -> Any:
    x = conv_bn(x, channels, 3, stride, f"{name}_1")
    return conv_bn(layers.ReLU(name=f"{name}_relu")(x), channels, 3, 1, f"{name}_2")


def count_branch(shape: Any, channels: int, stride: int) -> Any:
    height, width, entry = shape
    weights = 9 * channels * (entry + channels)
    return weights + 4 * channels, 4 * channels, weights * (height // stride) * (width // stride)


@pytest.fixture(autouse=True)
def _register(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reszoo.zoo.own_parts._PARTS", {"shortcut": {}, "block": {}})
    reszoo.register_shortcut("project", project, count_projection)
    reszoo.register_block("two_convs", branch, count_branch, depth=2)


@pytest.mark.parametrize("fields", [{"shortcut": "project"}, {"block": "two_convs"}])
def test_an_own_part_equals_the_built_in_one_of_the_same_layers(fields: dict[str, Any]) -> None:
    built_in = {"shortcut": "B"} | TINY
    own = reszoo.build("resnet8", input_shape=SHAPE, **(built_in | fields))
    same = reszoo.build("resnet8", input_shape=SHAPE, **built_in)
    numbers = reszoo.count("resnet8", SHAPE, **(built_in | fields))
    expected = reszoo.count("resnet8", SHAPE, **built_in)
    for name in ("depth", "parameters", "state", "macs"):
        assert getattr(numbers, name) == getattr(expected, name), name
    assert numbers.parameters + numbers.state == own.count_params()
    rng = np.random.default_rng(0)
    left = list(same.weights)
    for weight in own.weights:  # the same layers, though in another order
        other = next(
            each
            for each in left
            if each.shape == weight.shape and _kind(each.path) == _kind(weight.path)
        )
        left.remove(other)
        value = rng.uniform(0.1, 1, weight.shape).astype("float32") / 4
        weight.assign(value)
        other.assign(value)
    images = rng.normal(size=(2, *SHAPE)).astype("float32")
    np.testing.assert_allclose(own(images), same(images), rtol=2e-5)


def _kind(path: str) -> tuple[bool, str]:
    return "shortcut" in path, path.rsplit("/", 1)[-1]


def test_a_recipe_names_an_own_part_by_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(
        "import reszoo\nfrom keras import layers\n"
        "def gain(x, channels, stride, name):\n"
        "    x = layers.AveragePooling2D(stride, name=f'{name}_pool')(x) if stride > 1 else x\n"
        "    return layers.Conv2D(channels, 1, use_bias=False, name=f'{name}_conv')(x)\n"
        "def count(shape, channels, stride):\n"
        "    return shape[2] * channels, 0, shape[2] * channels * 8\n"
        "reszoo.register_shortcut('gain', gain, count)\n"
        "def other(x, channels, stride, name): return x\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    recipe = load_recipe("quickstart", {"model.shortcut": "mine:gain"})
    assert 'shortcut = "mine:gain"' in recipe.to_toml()
    model = reszoo.build(recipe.model.spec, input_shape=(8, 8, 1))
    assert model.get_layer("stage2_block1_shortcut_conv").kernel.shape == (1, 1, 16, 32)
    monkeypatch.delitem(sys.modules, "mine")
    with pytest.raises(
        ReszooError, match="its module must call reszoo.register_shortcut with this"
    ):
        load_recipe("quickstart", {"model.shortcut": "mine:other"})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"shortcut": "projekt"},
            "a name given to reszoo.register_shortcut; did you mean 'project'",
        ),
        ({"block": "basicc"}, 'expected one of "basic", "bottleneck", "two_convs", or a name'),
        ({"shortcut": "nowhere:f"}, 'model.shortcut: "nowhere:f" is invalid; no module nowhere'),
        ({"shortcut": "project", "shrink": "avgpool"}, "because your function makes the shortcut"),
        (
            {"block": "two_convs", "order": "pre"},
            "expected 'post', because your function makes the",
        ),
        (
            {"block": "two_convs", "shortcut": "wrong"},
            "has 1,776 weights before its classifier, and count says 1,728;",
        ),
    ],
)
def test_what_cannot_be_built_is_one_line(fields: dict[str, Any], message: str) -> None:
    reszoo.register_shortcut("wrong", project)
    with pytest.raises(ReszooError) as caught:
        reszoo.build("resnet8", input_shape=SHAPE, **(TINY | {"shortcut": "B"} | fields))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_an_own_part_cannot_be_grown_or_replace_a_built_in_one() -> None:
    fields = TINY | {"shortcut": "project"}
    model = reszoo.build("resnet8", input_shape=SHAPE, **fields)
    with pytest.raises(ReszooError, match="your own function makes its shortcut or its branch"):
        reszoo.grow(model, "resnet8", **(fields | {"depths": (2, 2)}))
    for name in ("B", "x", "two words"):
        with pytest.raises(ReszooError, match="register_shortcut: name: "):
            reszoo.register_shortcut(name, project)
