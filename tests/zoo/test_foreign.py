"""Arguments and names of other libraries lead to ours, and every example works."""

from __future__ import annotations

import re
from typing import Any

import pytest

from reszoo import ReszooError, build, count, list_models, load_recipe, spec
from reszoo.weights.published import find_weights
from reszoo.zoo.foreign import ARGUMENTS, UNSUPPORTED
from reszoo.zoo.spec import Spec

OURS = {"classes", "input_shape", "weights", "top", *Spec.model_fields}


@pytest.mark.parametrize(
    ("argument", "example"),
    [
        ({"include_top": False}, "top=False"),
        ({"include_top": True}, "top=True"),
        ({"num_classes": 7}, "classes=7"),
        ({"pretrained": True}, "weights='imagenet'"),
        ({"pretrained": False}, "weights=None"),
        ({"pretrained_cfg": "x"}, 'weights="timm/a1_in1k"'),
        ({"in_chans": 1}, "input_shape=(224, 224, 1)"),
        ({"input_tensor": ...}, "reszoo.build('resnet50_v1_5')(input_tensor)"),
        ({"pooling": "avg"}, "top=False"),
        ({"features_only": True}, "reszoo.features(reszoo.build('resnet50_v1_5'))"),
        ({"classifier_activation": None}, "keras.layers.Softmax()(model.output)"),
        ({"drop_path_rate": 0.2}, "drop_path=0.2"),
        ({"global_pool": ""}, "top=False"),
        ({"checkpoint_path": "a.pth"}, "weights='a.pth'"),
        ({"zero_init_residual": True}, "zero_gamma=True"),
        ({"Num_Classes": 7}, "classes=7"),
    ],
    ids=str,
)
def test_an_argument_of_another_library_leads_to_ours(
    argument: dict[str, Any], example: str
) -> None:
    for action in (build, spec, count):
        with pytest.raises(ReszooError) as caught:
            action("resnet50", **argument)
        text = str(caught.value)
        (key,) = argument
        assert text.startswith(f"resnet50_v1_5: {key}=") and " is invalid; expected " in text
        assert text.endswith(f". Example: {example}") and "\n" not in text


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_every_example_names_what_exists_here(argument: str) -> None:
    with pytest.raises(
        ReszooError, match=rf"^resnet20: {argument}=0 is invalid; expected .*\. Example: "
    ) as caught:
        spec("resnet20", **{argument: 0})
    example = str(caught.value).partition(" Example: ")[2]
    assert "{" not in example
    for name in re.findall(r"^(\w+)=", example):
        assert name in OURS, example
    assert argument not in OURS, "an argument of our own must work"


def test_examples_fit_the_family_of_the_model() -> None:
    with pytest.raises(ReszooError, match="Example: weights='cifar10'"):
        build("resnet20", pretrained=True)
    with pytest.raises(ReszooError, match=r"Example: input_shape=\(32, 32, 4\)"):
        build("resnet20", in_chans=4)


@pytest.mark.parametrize("argument", UNSUPPORTED)
def test_unsupported_arguments_are_reported_with_the_reason(argument: str) -> None:
    with pytest.raises(
        ReszooError, match=f"{argument}=8 is invalid; it is not supported, because "
    ):
        build("resnet50", **{argument: 8})


def test_a_recipe_explains_them_too() -> None:
    with pytest.raises(
        ReszooError, match="model: resnet20: num_classes=5 is invalid; expected classes"
    ):
        load_recipe("cifar10_resnet20_cpu", ["model.num_classes=5"])


@pytest.mark.parametrize(
    ("argument", "meant"),
    [("wieghts", "weights"), ("class", "classes"), ("inputshape", "input_shape")],
)
def test_a_misspelled_argument_names_the_nearest(argument: str, meant: str) -> None:
    with pytest.raises(
        ReszooError, match=f"build: {argument} is not an argument; did you mean '{meant}'"
    ):
        build("resnet20", **{argument: 3})


@pytest.mark.parametrize("shape", [(3, 224, 224), (1, 32, 32)])
def test_channels_first_is_rejected_with_the_right_order(shape: tuple[int, int, int]) -> None:
    with pytest.raises(
        ReszooError,
        match=rf"channels come last. Example: input_shape=\({shape[1]}, {shape[2]}, {shape[0]}\)",
    ):
        build("resnet18", input_shape=shape)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("ResNet50", "resnet50"), ("resnet-50", "resnet50"), ("ResNet-50", "resnet50"), ("resnet_50", "resnet50"),
        ("RESNET50", "resnet50"), ("resnet50v2", "resnet50_v2"), ("ResNet50V2", "resnet50_v2"), ("resnetv2_50", "resnet50_v2"),
        ("resnet_v2_101", "resnet101_v2"), ("resnet_v1_50", "resnet50_v1"), ("PreActResNet18", "resnet18_v2"),
        ("resnet50_v1.5", "resnet50_v1_5"), ("resnet50d", "resnet50_d"), ("ResNet-34-D", "resnet34_d"),
        ("wide-resnet50-2", "wide_resnet50_2"), ("Wide_ResNet101_2", "wide_resnet101_2"), ("WRN-28-10", "wrn28_10"),
        ("wide_resnet28_10", "wrn28_10"), ("WideResNet-40-4", "wrn40_4"), ("resnext50-32x4d", "resnext50_32x4d"),
        ("SE-ResNet-50", "se_resnet50"), ("microsoft/resnet-50", "resnet50"), ("torchvision.models.resnet18", "resnet18"),
        ("models.resnet18", "resnet18"), ("keras.applications.ResNet50", "resnet50_keras"),
        ("tf.keras.applications.ResNet101V2", "resnet101_v2_keras"), ("tv_resnet50", "resnet50"),
        ("gluon_resnet50_v1b", "resnet50"), ("cifar10_resnet20", "resnet20"), ("resnet20-cifar10", "resnet20"),
        ("ResNet-110", "resnet110"), ("resnet-1202", "resnet1202"), ("resnet20-v2", "resnet20_v2"), ("plain-20", "plain20"),
        ("ResNet-62", "resnet62"),
    ],
)  # fmt: skip
def test_a_model_name_of_another_library_leads_to_ours(name: str, ours: str) -> None:
    with pytest.raises(
        ReszooError,
        match=f"no model '{re.escape(name)}'; did you mean '{ours}'. Example: reszoo.build\\(\"{ours}\"\\)",
    ):
        spec(name)
    spec(ours)


@pytest.mark.parametrize(
    "name", ["resnet50.a1_in1k", "timm/resnet50.a1_in1k", "hf-hub:timm/resnet50.a1_in1k"]
)
def test_a_name_with_timms_tag_names_the_weights(name: str) -> None:
    with pytest.raises(
        ReszooError, match=r'Example: reszoo.build\("resnet50", weights="timm/a1_in1k"\)'
    ):
        spec(name)
    assert find_weights(spec("resnet50"), "timm/a1_in1k").tag == "timm/a1_in1k"


@pytest.mark.parametrize(
    "name", ["vgg16", "", "efficientnet_b0", "resnet", "net.a1_in1k", "///", "resnet50.a1_in1k.b"]
)
def test_other_names_lead_to_nothing_wrong(name: str) -> None:
    with pytest.raises(ReszooError, match="no model ") as caught:
        spec(name)
    if match := re.search(r"did you mean '(\w+)'", str(caught.value)):
        spec(match[1])


def test_our_own_names_are_never_explained() -> None:
    for name in list_models():
        spec(name)
