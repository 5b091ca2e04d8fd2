"""Names: rows, aliases, depths by rule, near misses, wildcards; and an import that costs nothing."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import reszoo
from reszoo import ReszooError, Spec, list_models, spec
from reszoo.zoo.catalog import ALIASES, ROWS, alias_of

# The names that the project promises.
PROMISED = (
    "plain8 plain20 plain56 plain1202 resnet8 resnet20 resnet32 resnet44 resnet56 resnet110 "
    "resnet1202 resnet20_v2 resnet110_v2 resnet164 resnet164_v2 resnet1001 resnet1001_v2 plain18 "
    "plain34 resnet18 resnet34 resnet50 resnet101 resnet152 resnet200 resnet50_v1 resnet101_v1 "
    "resnet152_v1 resnet50_v1_5 resnet101_v1_5 resnet152_v1_5 resnet18_v2 resnet34_v2 resnet50_v2 "
    "resnet101_v2 resnet152_v2 resnet200_v2 resnet50_d resnet101_d resnet152_d wrn16_4 wrn16_8 "
    "wrn28_10 wrn40_4 wide_resnet50_2 wide_resnet101_2 resnext50_32x4d resnext101_32x8d "
    "resnext29_8x64d se_resnet50 resnet110_sd"
).split()


@pytest.mark.smoke
def test_every_listed_name_gives_a_spec_of_that_name() -> None:
    names = list_models()
    assert len(names) == len(set(names))
    assert set(PROMISED) <= set(names)
    for name in names:
        assert spec(name).name == ALIASES.get(name, name)


@pytest.mark.smoke
def test_aliases_resolve_to_rows() -> None:
    for alias, row in ALIASES.items():
        assert row in (*ROWS, "resnet8_kerasio") and alias not in ROWS
        assert spec(alias) == spec(row) and alias_of(alias) == row and alias_of(row) is None
    assert spec("resnet50").stride_at == "conv2" and spec("resnet50_v1").stride_at == "conv1"
    assert spec("resnet18_v1") == spec("resnet18")


@pytest.mark.smoke
@pytest.mark.parametrize("blocks", [1, 2, 3, 7, 18, 33, 200])
def test_any_depth_of_the_cifar_form_is_a_model(blocks: int) -> None:
    depth = 6 * blocks + 2
    if depth not in (50, 152, 200):
        assert spec(f"resnet{depth}").depths == (blocks,) * 3
        assert spec(f"resnet{depth}_v2").order == "pre"
        assert spec(f"plain{depth}").shortcut == "none"
    assert spec(f"cifar_resnet{depth}").depths == (blocks,) * 3
    plain = spec(f"cifar_plain{depth}")
    assert (plain.shortcut, plain.widths) == ("none", (16, 32, 64))
    assert reszoo.count(f"cifar_resnet{depth}").depth == depth


def test_a_depth_that_both_families_have_is_imagenets() -> None:
    for depth in (50, 152, 200):
        assert spec(f"resnet{depth}").stem == spec(f"resnet{depth}_v2").stem == "imagenet"
        cifar = spec(f"cifar_resnet{depth}")
        assert (cifar.stem, cifar.shortcut) == ("cifar", "A")
        for name in (f"plain{depth}", f"resnet{depth}_sd"):
            with pytest.raises(ReszooError, match=f"no model '{name}'.* is 'cifar_{name}'"):
                spec(name)
            assert spec(f"cifar_{name}").stem == "cifar"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("resnet21", "20 or 26"),
        ("resnet19", "14 or 20"),
        ("plain55", "50 or 56"),
        ("cifar_resnet51", "50 or 56"),
        ("resnet111_v2", "110 or 116"),
        ("resnet2", "8"),
        ("resnet7", "8"),
        ("resnet1203", "1202"),
        ("resnet9999", "1202"),
    ],
)
def test_other_depths_name_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(ReszooError) as caught:
        spec(name)
    assert str(caught.value).startswith(f"no model '{name}': a CIFAR model has depth 6n+2")
    assert str(caught.value).endswith(f"the nearest is {nearest}")
    for depth in nearest.split(" or "):
        spec(f"cifar_resnet{depth}")


def test_wide_models_by_rule() -> None:
    wide = spec("wrn28_10")
    assert (wide.depths, wide.widths) == ((4, 4, 4), (160, 320, 640))
    assert (wide.order, wide.shortcut) == ("pre", "B")
    assert spec("wrn22_3").widths == (48, 96, 192)
    for name in ("wrn27_10", "wrn4_2", "wrn29_1"):
        with pytest.raises(
            ReszooError, match=rf"no model '{name}': .* wrnD_K with depth D = 6n\+4"
        ):
            spec(name)


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("resnt20", "resnet20"),
        ("ResNet56", "resnet56"),
        ("resnet-110", "resnet110"),
        ("resnext50", "resnext50_32x4d"),
        ("resnext101", "resnext101_32x8d"),
        ("WRN28", "wrn28_10"),
        ("wideresnet50_2", "wide_resnet50_2"),
        ("resnet020", "resnet20"),
        ("wrn28_010", "wrn28_10"),
    ],
)
def test_near_misses_name_what_was_meant(name: str, nearest: str) -> None:
    with pytest.raises(ReszooError, match=f"no model '{name}'; did you mean .*'{nearest}'"):
        spec(name)


def test_names_far_from_any_other_lead_to_the_list() -> None:
    for name in ("", "vgg16", "Mobile Net"):
        with pytest.raises(ReszooError, match=f"no model '{name}'; `reszoo list` shows every name"):
            spec(name)
    with pytest.raises(ReszooError, match="a name such as 'resnet56' or a Spec, not int"):
        spec(56)  # type: ignore[arg-type]
    with pytest.raises(ReszooError, match=r"stochastic depth needs a shortcut. Example: resnet56_"):
        spec("plain56_sd")


@pytest.mark.smoke
def test_wildcards() -> None:
    wide = ["wrn16_4", "wrn16_8", "wrn28_10", "wrn40_4", "wrn50_2", "wrn101_2"]
    assert list_models("wrn*") == wide
    ends = ("_v1", "_v1_5", "_v2", "_d", "_gn", "_keras", "_v2_keras", "")
    assert list_models("resnet50*") == [f"resnet50{end}" for end in ends]
    assert list_models("PLAIN1?") == ["plain14", "plain18"]
    assert list_models("resnet20") == ["resnet20"]
    assert list_models("vgg*") == []


def test_fields_change_a_named_model() -> None:
    assert spec("resnet20", shortcut="B").shortcut == "B"
    assert spec("resnet20", name="mine").name == "mine"
    made = Spec(**spec("resnet20").to_dict())
    assert spec(made) == made and spec(made, order="pre") == made.replace(order="pre")
    assert spec("resnet110_sd") == spec("resnet110", drop_path=0.5, name="resnet110_sd")
    with pytest.raises(ReszooError, match="resnet20: no field 'shortcutt'"):
        spec("resnet20", shortcutt="B")


@pytest.mark.smoke
def test_every_public_name_is_there() -> None:
    assert reszoo.__all__ == sorted(reszoo.__all__)
    for name in reszoo.__all__:
        assert getattr(reszoo, name) is not None
        assert name in dir(reszoo)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = reszoo.nothing
    with pytest.raises(ImportError):
        importlib.import_module("reszoo.nothing")


@pytest.mark.smoke
def test_the_zoo_is_imported_without_anything_heavy() -> None:
    script = (
        "import sys, reszoo\n"
        "reszoo.list_models(); reszoo.spec('resnet20').to_dict(); reszoo.count('resnet50')\n"
        "heavy = {'tensorflow', 'keras', 'numpy', 'jax', 'matplotlib', 'sklearn', 'rich', 'h5py'}\n"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
