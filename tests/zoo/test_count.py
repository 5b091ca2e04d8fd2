"""Counts against published figures, to the last weight, and against the nets that Keras builds."""

from __future__ import annotations

import math
import re
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from typing import Any

import pytest

from reszoo import ReszooError, Spec, count, list_models, spec
from reszoo.zoo.catalog import ALIASES
from reszoo.zoo.count import Count, check_input

# Trained weights on 10 classes with shortcut A (which a plain net shares), B and C. A and plain: He
# et al., table 6, to its digits, and akamaster/pytorch_resnet_cifar10's own table; B: pytorchcv and
# tf2cv's asserts for 20, 56 and 110. C and the rest: arithmetic by hand from the paper's table 1,
# done before this package was written.
CIFAR = {
    8: (75_290, 78_042, 78_330),
    14: (172_506, 175_258, 181_146),
    20: (269_722, 272_474, 283_962),
    32: (464_154, 466_906, 489_594),
    44: (658_586, 661_338, 695_226),
    56: (853_018, 855_770, 900_858),
    110: (1_727_962, 1_730_714, 1_826_202),
    1202: (19_421_274, 19_424_026, 20_538_714),
}
# On 1000 classes. B: torchvision's published num_params; A and C: arithmetic by hand.
IMAGENET = {
    18: (11_515_688, 11_689_512, 12_043_816),
    34: (21_623_848, 21_797_672, 22_716_840),
    50: (22_780_456, 25_557_032, 40_128_552),
    101: (41_772_584, 44_549_160, 76_981_288),
    152: (57_416_232, 60_192_808, 107_335_720),
}
TORCHVISION = "torchvision.models, meta['num_params'] of the published weights"
PYTORCHCV = "osmr/imgclsmob, pytorchcv/models: the weight_count asserts"
TIMM = "huggingface/pytorch-image-models, param_count of results/results-imagenet.csv, and models of the same name"
# (net, classes, fields, trained weights, source)
PUBLISHED: tuple[tuple[str, int, dict[str, Any], int, str], ...] = (
    ("resnet18", 1000, {}, 11_689_512, TORCHVISION),
    ("resnet34", 1000, {}, 21_797_672, TORCHVISION),
    ("resnet50", 1000, {}, 25_557_032, TORCHVISION),
    ("resnet101", 1000, {}, 44_549_160, TORCHVISION),
    ("resnet152", 1000, {}, 60_192_808, TORCHVISION),
    ("wide_resnet50_2", 1000, {}, 68_883_240, TORCHVISION),
    ("wide_resnet101_2", 1000, {}, 126_886_696, TORCHVISION),
    ("resnext50_32x4d", 1000, {}, 25_028_904, TORCHVISION),
    ("resnext101_32x8d", 1000, {}, 88_791_336, TORCHVISION),
    ("resnext101_64x4d", 1000, {}, 83_455_272, TORCHVISION),
    ("resnet164", 10, {}, 1_704_154, PYTORCHCV + ", resnet164bn_cifar10"),
    ("resnet1001", 10, {}, 10_328_602, PYTORCHCV),
    ("resnet164_v2", 10, {}, 1_703_258, PYTORCHCV + ", preresnet164bn_cifar10"),
    ("resnet164_v2", 100, {}, 1_726_388, PYTORCHCV + ", preresnet164bn_cifar100"),
    ("resnet1001_v2", 10, {}, 10_327_706, PYTORCHCV),
    ("resnet20_v2", 10, {"shortcut": "B"}, 272_282, PYTORCHCV + ", preresnet20_cifar10"),
    ("resnet56_v2", 10, {"shortcut": "B"}, 855_578, PYTORCHCV),
    ("resnet110_v2", 10, {"shortcut": "B"}, 1_730_522, PYTORCHCV),
    ("resnet1202_v2", 10, {"shortcut": "B"}, 19_423_834, PYTORCHCV),
    ("wrn16_10", 10, {}, 17_116_634, PYTORCHCV),
    ("wrn28_10", 10, {}, 36_479_194, PYTORCHCV),
    ("wrn28_10", 100, {}, 36_536_884, PYTORCHCV),
    ("wrn40_8", 10, {}, 35_748_314, PYTORCHCV),
    ("resnext29_16x64d", 10, {}, 68_155_210, PYTORCHCV),
    ("se_resnet50", 1000, {}, 28_088_024, TIMM),
    ("resnet50_d", 1000, {}, 25_576_264, TIMM),
    ("resnet50_gn", 1000, {}, 25_557_032, TIMM),
    ("nf_resnet50", 1000, {}, 25_557_032, TIMM),
    ("resnet50_d", 1000, {"stem": "rs", "se_ratio": 0.25}, 35_691_912, TIMM),  # resnetrs50
)
PRE_ACTIVATION = {  # pytorchcv's asserts for preresnet18 ...
    18: 11_687_848,
    34: 21_796_008,
    50: 25_549_480,
    101: 44_541_608,
    152: 60_185_256,
    200: 64_666_280,
}


@pytest.mark.parametrize(("option", "column"), [("A", 0), ("B", 1), ("C", 2), ("none", 0)])
@pytest.mark.parametrize("depth", CIFAR | IMAGENET)
def test_parameters_by_shortcut(depth: int, option: str, column: int) -> None:
    counted = count(f"resnet{depth}", shortcut=option)
    assert counted.parameters == (CIFAR | IMAGENET)[depth][column]
    assert counted.depth == depth


@pytest.mark.smoke
@pytest.mark.parametrize("depth", [20, 56, 110, 1202, 18, 34])
def test_plain_models_are_option_a_without_its_shortcuts(depth: int) -> None:
    assert count(f"plain{depth}").parameters == (CIFAR | IMAGENET)[depth][0]


@pytest.mark.parametrize("depth", [50, 101, 152, 200])
def test_where_a_bottleneck_strides_costs_no_parameter(depth: int) -> None:
    first, second = count(f"resnet{depth}_v1"), count(f"resnet{depth}_v1_5")
    assert first.parameters == second.parameters
    assert first.macs < second.macs


@pytest.mark.parametrize(
    ("name", "classes", "fields", "parameters", "source"),
    PUBLISHED,
    ids=[f"{row[0]}-{row[1]}{''.join(map(str, row[2].values()))}" for row in PUBLISHED],
)
def test_published_parameters(
    name: str, classes: int, fields: dict[str, Any], parameters: int, source: str
) -> None:
    assert count(name, classes=classes, **fields).parameters == parameters, source


@pytest.mark.parametrize("depth", PRE_ACTIVATION)
def test_pre_activation_has_no_second_normalization_after_the_stem(depth: int) -> None:
    # pytorchcv's first unit normalises what the stem has normalised already: one scale and one
    # offset for 64 channels more.
    assert count(f"resnet{depth}_v2").parameters == PRE_ACTIVATION[depth] - 2 * 64


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("name", "millions", "source"),
    [
        ("resnet20", "0.27", "arXiv 1512.03385, table 6"),
        ("resnet32", "0.46", "arXiv 1512.03385, table 6"),
        ("resnet44", "0.66", "arXiv 1512.03385, table 6"),
        ("resnet56", "0.85", "arXiv 1512.03385, table 6"),
        ("resnet110", "1.7", "arXiv 1512.03385, table 6"),
        ("resnet1202", "19.4", "arXiv 1512.03385, table 6"),
        ("wrn16_8", "11.0", "arXiv 1605.07146, table 4"),
        ("wrn40_4", "8.9", "arXiv 1605.07146, table 4"),
        ("wrn28_10", "36.5", "arXiv 1605.07146, table 4"),
        ("resnext29_8x64d", "34.4", "arXiv 1611.05431, table 7"),
        ("resnet164_v2", "1.7", "arXiv 1603.05027, table 4"),
    ],
)
def test_parameters_as_papers_print_them(name: str, millions: str, source: str) -> None:
    assert _rounded(Decimal(count(name).parameters) / 10**6, millions) == Decimal(millions), source


@pytest.mark.parametrize(("factor", "blocks"), [(4, 2), (8, 2), (4, 6), (10, 4)])
def test_wide_parameters_by_summing_over_widths(factor: int, blocks: int) -> None:
    """Sum a wide net by another road: over its six widths instead of over its layers."""
    before, total = 16, 3 * 9 * 16 + 2 * 16
    for width in (16 * factor, 32 * factor, 64 * factor):
        convolutions = 9 * before * width + (2 * blocks - 1) * 9 * width * width + before * width
        # Two scales and offsets a block; the first of a stage is of what enters it, but the stem's
        # own serves stage 1.
        norms = (0 if before == 16 else 2 * before) + (2 * blocks - 1) * 2 * width
        total, before = total + convolutions + norms, width
    total += 2 * before + before * 10 + 10
    assert count(f"wrn{6 * blocks + 4}_{factor}").parameters == total


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("depth", "millions"),
    [(20, "40.55"), (32, "68.86"), (44, "97.17"), (56, "125.49"), (110, "252.89"), (1202, "2829")],
)
def test_cifar_macs(depth: int, millions: str) -> None:
    """Option A's, by hand arithmetic; a plain net's are the same, because padding costs nothing."""
    for name in (f"resnet{depth}", f"plain{depth}"):
        assert _rounded(Decimal(count(name).macs) / 10**6, millions) == Decimal(millions)


@pytest.mark.parametrize(
    ("name", "fields", "billions"),
    [
        ("plain18", {}, "1.8"),
        ("resnet18", {"shortcut": "A"}, "1.8"),
        ("plain34", {}, "3.6"),
        ("resnet34", {"shortcut": "A"}, "3.6"),
        ("resnet50_v1", {}, "3.8"),
        ("resnet101_v1", {}, "7.6"),
        ("resnet152_v1", {}, "11.3"),
    ],
)
def test_macs_of_the_paper(name: str, fields: dict[str, Any], billions: str) -> None:
    """arXiv 1512.03385, table 1.

    The paper's 50-layer figure, 3.8, is the true 3.858 cut off, not rounded; those of 101 (7.570)
    and 152 layers (11.282) are rounded. A printed figure is therefore ours either rounded or cut
    off at its last digit.
    """
    ours = Decimal(count(name, **fields).macs) / 10**9
    digit = Decimal(billions)
    assert digit in (ours.quantize(digit, ROUND_HALF_UP), ours.quantize(digit, ROUND_DOWN))


@pytest.mark.parametrize(
    ("name", "billions"), [("resnet18", "1.81"), ("resnet50", "4.09"), ("resnet152", "11.51")]
)
def test_macs_of_torchvision(name: str, billions: str) -> None:
    """torchvision's table of models, column GFLOPS (of v1.5)."""
    assert _rounded(Decimal(count(name).macs) / 10**9, billions) == Decimal(billions)


def _rounded(value: Decimal, printed: str) -> Decimal:
    return value.quantize(Decimal(printed), ROUND_HALF_UP)


# The oracle against what Keras builds.


def _built(net: str | Spec, input_shape: tuple[int, int, int], **fields: Any) -> Any:
    from reszoo import build

    return build(net, input_shape=input_shape, **fields)


def _sizes(variables: Any) -> int:
    return sum(math.prod(variable.shape) for variable in variables)


WEIGHTED = ("Conv2D", "ScaledConv2D", "Dense")


def _agrees_with_keras(model: Spec) -> None:
    built = _built(model, (model.total_stride, model.total_stride, 3))
    counted = count(model)
    assert _sizes(built.trainable_variables) == counted.parameters
    statistics = [each for each in built.non_trainable_variables if "/moving_" in each.path]
    assert _sizes(statistics) == counted.state
    weighted = [each for each in built.layers if type(each).__name__ in WEIGHTED]
    beside = re.compile("shortcut|gate|_se_")
    assert len([each for each in weighted if not beside.search(each.name)]) == counted.depth


MODELS = [name for name in list_models() if name not in ALIASES]
# Every model of the catalog with fewer blocks and a quarter of the channels, each once.
SHORT = {
    (model := spec(name)).replace(
        name="short",
        depths=(2, *(1 for _ in model.depths[1:])),
        widths=tuple(width // 4 for width in model.widths),
        stem_width=model.stem_width // 4,
        norm_groups=16 if model.norm == "group" else 32,
    ): name
    for name in MODELS
}


@pytest.mark.parametrize("model", SHORT, ids=SHORT.values())
def test_built_weights_equal_the_count(model: Spec) -> None:
    _agrees_with_keras(model)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MODELS if count(name).depth <= 210])
def test_built_weights_equal_the_count_of_whole_models(name: str) -> None:
    _agrees_with_keras(spec(name))


def macs_of(model: Any) -> int:
    """Sum a built net's multiply-adds over its layers: pixels that leave a layer times the size of its kernel."""
    total = 0
    for layer in model.layers:
        if type(layer).__name__ in ("Conv2D", "ScaledConv2D"):
            _, height, width, _ = layer.output.shape
            total += height * width * math.prod(layer.kernel.shape)
        elif type(layer).__name__ == "Dense":
            total += math.prod(layer.kernel.shape)
    return total


@pytest.mark.parametrize("shape", [(32, 32, 3), (33, 35, 1), (47, 36, 4)])
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("resnet8", {}),
        ("plain14", {}),
        ("resnet14", {"shortcut": "C"}),
        ("resnet8", {"shortcut": "B", "gate": "exclusive"}),
        ("resnet8", {"shortcut": "B", "shrink": "avgpool", "se_ratio": 0.25}),
        ("resnet8", {"stem": "rs", "blur": True, "head_dropout": 0.1}),
        ("resnet14_v2", {"depths": (1, 2), "widths": (5, 7), "stem_width": 5}),
        ("wrn10_2", {}),
        ("resnext29_8x64d", {"depths": (1, 1), "widths": (4, 8), "group_width": 16, "groups": 2}),
        ("resnet18", {}),
        ("resnet50_v1", {"depths": (1, 1, 1, 2), "widths": (8, 8, 16, 16)}),
        ("resnet50", {"depths": (1, 1, 1, 2), "widths": (8, 8, 16, 16)}),
        ("resnet50_d", {"depths": (1, 1, 1, 2), "widths": (8, 8, 16, 16), "stem_width": 9}),
        ("se_resnet50", {"depths": (1, 1, 1, 1), "widths": (8, 8, 16, 16)}),
        ("resnet50_v2", {"depths": (1, 1, 1, 1), "order": "bn_after_add"}),
    ],
)
def test_macs_equal_a_sum_over_keras_layers(
    name: str, fields: dict[str, Any], shape: tuple[int, int, int]
) -> None:
    model = _built(name, shape, classes=7, **fields)
    counted = count(name, shape, 7, **fields)
    assert counted.macs == macs_of(model)
    assert counted.parameters == _sizes(model.trainable_variables)


@pytest.mark.smoke
def test_parts_carry_the_names_and_sizes_of_the_built_layers() -> None:
    fields: dict[str, Any] = {"shortcut": "B", "gate": "shortcut_only", "rezero": True}
    model = _built("resnet8", (33, 35, 3), **fields)
    weighted = {layer.name: layer for layer in model.layers if layer.weights}
    parts = {part.place: part for part in count("resnet8", (33, 35, 3), **fields).parts}
    assert set(parts) == set(weighted)
    for place, part in parts.items():
        assert part.parameters == _sizes(weighted[place].trainable_variables), place
        assert part.shape[-1] == weighted[place].output.shape[-1], place
        if place != "head_dense":
            assert part.shape == tuple(weighted[place].output.shape[1:]), place


@pytest.mark.smoke
def test_layer_groups_sum_to_the_whole() -> None:
    counted: Count = count("resnet50")
    rows = counted.by_group()
    # arXiv 1512.03385, table 1: what leaves each stage of a net fed 224x224.
    assert [(place, shape) for place, shape, *_ in rows] == [
        ("stem", (112, 112, 64)),
        ("stage1", (56, 56, 256)),
        ("stage2", (28, 28, 512)),
        ("stage3", (14, 14, 1024)),
        ("stage4", (7, 7, 2048)),
        ("head", (1, 1, 1000)),
    ]
    assert sum(row[2] for row in rows) == counted.parameters
    assert sum(row[3] for row in rows) == counted.macs


def test_defaults_are_the_data_the_family_was_published_on() -> None:
    assert count("resnet20") == count("resnet20", (32, 32, 3), 10)
    assert count("resnet18") == count("resnet18", (224, 224, 3), 1000)
    assert count("resnet20", (28, 28, 1)).parameters == 269_722 - 2 * 9 * 16


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"input_shape": (32, 32)}, "input_shape: (32, 32) is invalid; expected (height, width, "),
        ({"input_shape": (0, 32, 3)}, "input_shape: (0, 32, 3) is invalid"),
        ({"input_shape": (32.5, 32, 3)}, "input_shape: (32.5, 32, 3) is invalid"),
        ({"input_shape": (True, 32, 3)}, "input_shape: (True, 32, 3) is invalid"),
        ({"input_shape": (3, 32, 3)}, "expected at least 4x4"),
        ({"input_shape": (32, None, 3)}, "expected a size, on which MACs depend"),
        ({"input_shape": (32, 32, None)}, "Example: input_shape=(32, 32, 3)"),
        ({"input_shape": 32}, "input_shape: 32 is invalid"),
        ({"classes": 0}, "classes: 0 is invalid; expected an integer >= 1"),
        ({"classes": True}, "classes: True is invalid"),
        ({"classes": "10"}, "classes: '10' is invalid"),
    ],
)
def test_invalid_input_and_classes_are_rejected(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ReszooError) as caught:
        count("resnet20", **arguments)
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).startswith("resnet20: ")


def test_the_smallest_input() -> None:
    check_input(spec("resnet18"), (32, 32, 3))
    assert count("resnet18", (32, 32, 3)).by_group()[-2][1] == (1, 1, 512)
    with pytest.raises(ReszooError, match="at least 32x32"):
        count("resnet18", (31, 32, 3))


@pytest.mark.smoke
def test_models_without_batch_norm() -> None:
    # resnet110 has 1,727,962 weights, of which batch norm has 2 * (16 + 36 * (16 + 32 + 64)).
    # Fixup adds 5 scalars to each of 54 blocks and 2 outside (arXiv 1901.09321, figure 1).
    bare = 1_727_962 - 2 * (16 + 36 * (16 + 32 + 64))
    assert count("resnet110", norm="none").parameters == bare
    fixup = count("resnet110", norm="none", initialization="fixup")
    assert (fixup.parameters, fixup.state) == (bare + 54 * 5 + 2, 0)
    # Group norm has the trained weights of batch norm, and no statistics.
    group = count("resnet50", norm="group")
    assert (group.parameters, group.state) == (25_557_032, 0)
