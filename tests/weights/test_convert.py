"""Tensors of every layout into our nets and out again, on tiny nets whose answers PyTorch gave (goldens) or Keras gives here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from reszoo import ReszooError, Spec, build, list_models, spec
from reszoo.weights.checkpoint import read_arrays
from reszoo.weights.convert import adapt_channels, assign, export_arrays, variables
from reszoo.weights.detection import detect_layout
from reszoo.weights.layouts import LAYOUTS

from .nets import KERAS, NETS

GOLDENS = Path(__file__).parent / "goldens"


def golden(layout: str) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    answers = load_file(GOLDENS / f"{layout}-answers.safetensors")
    return load_file(GOLDENS / f"{layout}.safetensors"), answers["images"], answers["logits"]


def fresh(layout: str, **arguments: Any) -> keras.Model:
    classes = {"classes": 10 if layout == "akamaster" else 5}
    return build(NETS[layout], **({"input_shape": (None, None, 3)} | classes | arguments))


@pytest.mark.parametrize("layout", NETS)
def test_a_converted_model_has_the_outputs_of_pytorch(layout: str) -> None:
    arrays, images, logits = golden(layout)
    model = fresh(layout)
    found = assign(model, NETS[layout], arrays)
    assert found.complete and found.layout == layout.split("-")[0]
    assert not found.new and not found.adapted
    assert set(found.matched) == {name for name, _ in variables(model)}
    assert len(set(found.matched.values())) == len(found.matched)
    difference = np.abs(np.asarray(model(images)) - logits).max() / np.abs(logits).max()
    assert difference < 1e-5


@pytest.mark.parametrize("layout", NETS)
def test_the_conversion_back_is_exact(layout: str) -> None:
    arrays, *_ = golden(layout)
    model = fresh(layout)
    assign(model, NETS[layout], arrays)
    back = export_arrays(model, NETS[layout], layout.split("-")[0])
    assert back.keys() == arrays.keys()
    for name, array in back.items():
        if name.endswith(".gain"):  # multiplied and divided
            np.testing.assert_array_max_ulp(array, arrays[name], 1)
        elif not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(array, arrays[name], err_msg=name)
        assert array.shape == arrays[name].shape and array.dtype == arrays[name].dtype


@pytest.mark.parametrize("second", [False, True], ids=["v1", "v2"])
def test_keras_applications_models(second: bool, tmp_path: Path) -> None:
    """Keras' own builder with two short stages, its random weights, its answers; by both kinds of file that Keras writes."""
    from keras.src.applications import resnet

    net = KERAS[second]

    def stages(x: Any) -> Any:
        if second:
            x = resnet.stack_residual_blocks_v2(x, 4, 2, name="conv2")
            return resnet.stack_residual_blocks_v2(x, 8, 3, stride1=1, name="conv3")
        x = resnet.stack_residual_blocks_v1(x, 4, 2, stride1=1, name="conv2")
        return resnet.stack_residual_blocks_v1(x, 8, 2, name="conv3")

    theirs = resnet.ResNet(
        stages,
        second,
        True,
        weights=None,
        input_shape=(37, 40, 3),
        classes=5,
        classifier_activation=None,
    )
    rng = np.random.default_rng(0)
    for variable in theirs.weights:
        if variable.name != "kernel":
            low, high = (0.5, 1.5) if variable.name in ("gamma", "moving_variance") else (-0.3, 0.3)
            variable.assign(rng.uniform(low, high, variable.shape))
    images = rng.normal(size=(3, 37, 40, 3)).astype(np.float32)
    expected = np.asarray(theirs(images))
    for name in ("net.weights.h5", "net.keras"):
        theirs.save(tmp_path / name) if name.endswith(".keras") else theirs.save_weights(
            tmp_path / name
        )
        model = build(net, input_shape=(37, 40, 3), classes=5)
        found = assign(model, net, read_arrays(tmp_path / name))
        assert found.complete and found.layout == "keras", found.reason
        np.testing.assert_allclose(
            np.asarray(model(images)), expected, rtol=0, atol=1e-5 * np.abs(expected).max()
        )
    arrays = read_arrays(tmp_path / "net.keras")
    assert export_arrays(model, net, "keras").keys() == arrays.keys()
    for older in (
        "probs",
        "fc1000",
    ):  # the classifier's name in files of older builders, those that are published included
        renamed = {name.replace("predictions", older): array for name, array in arrays.items()}
        assert renamed.keys() != arrays.keys() and assign(model, net, renamed).complete


def test_the_legacy_file_that_keras_publishes_is_read(tmp_path: Path) -> None:
    """keras.applications' files are of Keras 2: a group for each layer, weights named `conv1_conv/kernel:0` in attributes."""
    import h5py

    path = tmp_path / "old.h5"
    kernel, bias = np.ones((7, 7, 3, 4), np.float32), np.arange(4, dtype=np.float32)
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"input_1", b"conv1_conv"]
        file.create_group("input_1").attrs["weight_names"] = []
        group = file.create_group("conv1_conv")
        group.attrs["weight_names"] = [b"conv1_conv/kernel:0", b"conv1_conv/bias:0"]
        group["conv1_conv/kernel:0"], group["conv1_conv/bias:0"] = kernel, bias
    arrays = read_arrays(path)
    assert arrays.keys() == {"conv1_conv/kernel", "conv1_conv/bias"}
    np.testing.assert_array_equal(arrays["conv1_conv/bias"], bias)


@pytest.mark.parametrize("layout", ["torchvision", "timm", "akamaster"])
def test_every_tensor_is_accounted_for_and_nothing_changes_where_one_does_not_fit(
    layout: str,
) -> None:
    arrays, *_ = golden(layout)
    head = "linear" if layout == "akamaster" else "fc"
    bad = dict(arrays)
    del bad["layer1.0.bn1.running_var"]
    bad["layer2.0.conv1.weight"] = bad["layer2.0.conv1.weight"][:-1]
    bad["layer9.0.conv1.weight"] = np.zeros(3, np.float32)
    model = fresh(layout)
    before = [value.numpy() for _, value in variables(model)]
    found = assign(model, NETS[layout], bad, layout=layout)
    assert found.missing == ["stage1_block1_bn1/moving_variance"] and found.left_over == [
        "layer9.0.conv1.weight"
    ]
    ((ours, theirs, there, here),) = found.wrong_shape
    assert (ours, theirs) == ("stage2_block1_conv1/kernel", "layer2.0.conv1.weight") and there[
        -1
    ] == here[-1] - 1
    assert (
        not found.complete
        and "3 tensors do not fit in all" in found.reason
        and f"{head}.weight" in arrays
    )
    assert all(
        (value.numpy() == old).all()
        for (_, value), old in zip(variables(model), before, strict=True)
    )


def test_other_classes_keep_the_new_head_and_other_channels_are_adapted() -> None:
    arrays, images, logits = golden("torchvision")
    net = NETS["torchvision"]
    model = fresh("torchvision", classes=3, input_shape=(None, None, 1))
    start = model.get_layer("head_dense").kernel.numpy()
    assert not assign(model, net, arrays).complete
    found = assign(model, net, arrays, other_classes=True)
    assert found.complete and found.new == ["head_dense/kernel", "head_dense/bias"]
    assert found.adapted == ["stem_conv1/kernel"]
    np.testing.assert_array_equal(model.get_layer("head_dense").kernel.numpy(), start)
    # A grey image is to the adapted net what the same image in three equal channels is to the whole one.
    whole, grey = fresh("torchvision", top=False, classes=None), images[..., :1]
    assign(whole, net, arrays)
    pooled = keras.Model(model.input, model.get_layer("head_pool").output)
    np.testing.assert_allclose(
        np.asarray(pooled(grey)),
        np.asarray(whole(np.repeat(grey, 3, -1))),
        rtol=0,
        atol=1e-4 * np.abs(logits).max(),
    )


@given(st.integers(1, 9))
def test_more_channels_repeat_the_kernel_and_keep_what_equal_channels_give(channels: int) -> None:
    """timm's rule; with all channels alike the sum over them is that of three."""
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 2))
    adapted = adapt_channels(kernel, channels)
    assert adapted.shape == (3, 3, channels, 2)
    if channels % 3 == 0 or channels == 1:
        np.testing.assert_allclose(adapted.sum(2), kernel.sum(2))
    elif channels > 1:
        np.testing.assert_allclose(adapted[:, :, :3], (kernel * 3 / channels)[:, :, :channels])
        np.testing.assert_allclose(
            adapted[:, :, 3:], (kernel * 3 / channels)[:, :, [i % 3 for i in range(3, channels)]]
        )


@pytest.mark.parametrize(
    ("name", "fields", "layout", "says"),
    [
        ("resnet50_v1", {}, "torchvision", "stride_at is 'conv1', where it has 'conv2'"),
        ("resnet50_v1", {}, "timm", "stride_at is 'conv1'"),
        ("resnet50_d", {}, "torchvision", "stem is 'deep', where it has 'imagenet'"),
        ("se_resnet50", {}, "torchvision", "se_ratio is 0.0625, where it has 0.0"),
        ("resnet18", {"shortcut": "A"}, "torchvision", "shortcut is 'A', where it has 'B'"),
        ("resnet18", {"rezero": True}, "timm", "it has no rezero"),
        ("resnet50_keras", {}, "timm", "stride_at is 'conv1'"),
        ("resnet50", {}, "keras", "stride_at is 'conv2', where it has 'conv1'"),
        ("resnet50", {}, "akamaster", "stem is 'imagenet', where it has 'cifar'"),
        ("resnet20", {"pad_at": "end"}, "akamaster", "pad_at is 'end', where it has 'both'"),
        ("resnet20_v2", {}, "akamaster", "order is 'pre', where it has 'post'"),
        ("resnet50_gn", {}, "torchvision", "it has no norm"),
        ("resnet50", {"blur": True}, "torchvision", "it has no blur"),
        ("resnet50_gn", {"norm_groups": 16}, "timm", "norm_groups is 16, where it has 32"),
        ("nf_resnet50", {"branch_scale": 0.5}, "timm", "branch_scale is 0.5, where it has 0.2"),
        ("nf_resnet50", {"shrink": "stride"}, "timm", "shrink is 'stride', where it has 'avgpool'"),
        ("resnet50_v2", {}, "timm", "order is 'pre', where it has 'post'"),
    ],
)
def test_a_layout_whose_models_compute_something_else_is_rejected(
    name: str, fields: dict[str, Any], layout: str, says: str
) -> None:
    net = spec(name, **fields)
    with pytest.raises(ReszooError, match=f"{net.name} cannot have {layout}'s weights: .*{says}"):
        assign(None, net, {}, layout=layout)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "reszoo"])
def test_a_layouts_names_of_a_models_tensors_are_all_different(layout: str) -> None:
    """Of one model of each kind: with few channels and blocks, many models are the same."""
    nets = {repr(small(spec(name)).to_dict() | {"name": ""}): name for name in list_models()}
    for name in nets.values():
        net = small(spec(name))
        if LAYOUTS[layout].find_mismatch(net):
            continue
        model = build(net, input_shape=(None, None, 3), classes=2)
        keys = [LAYOUTS[layout].find_name(variable, net) for variable, _ in variables(model)]
        assert len(set(keys)) == len(keys) == len(model.weights), name
        assert detect_layout(keys) in (layout, "torchvision")


def small(net: Spec) -> Spec:
    """The same net with few channels and at most two blocks per stage."""
    least = 32 if net.norm == "group" else 4
    widths = tuple(net.groups * 2 if net.groups > 1 else least for _ in net.widths)
    width = (
        {"stem_width": least, "group_width": 64}
        if net.stem != "cifar"
        else {"stem_width": min(widths)}
    )
    return net.replace(depths=tuple(min(2, n) for n in net.depths), widths=widths, **width)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text(max_size=12), st.just(np.zeros(1)), max_size=4))
def test_names_of_an_unknown_layout_are_rejected_in_one_line(arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(ReszooError, match="names of no layout known here") as caught:
        detect_layout(arrays)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("name", "fields", "layout"),
    [
        ("resnet50", {"shrink_at": "last"}, "torchvision"),
        ("resnet50", {"shrink_at": "last"}, "timm"),
        ("resnet20", {"shrink_at": "last", "shortcut": "B"}, "akamaster"),
        ("resnet20", {"shrink": "avgpool", "shortcut": "B"}, "akamaster"),
    ],
)
def test_where_a_stage_shrinks_must_agree_too(
    name: str, fields: dict[str, Any], layout: str
) -> None:
    with pytest.raises(ReszooError, match="cannot have .* weights: shrink"):
        assign(None, spec(name, **fields), {}, layout=layout)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (np.full(4, np.nan, np.float32), "holds values that are no numbers"),
        (np.ones(4, np.int32), "holds int32 numbers, not floating-point ones"),
        (np.ones(4, np.complex64), "holds complex64 numbers"),
    ],
)
def test_tensors_that_hold_no_numbers_are_rejected(value: np.ndarray, says: str) -> None:
    arrays, *_ = golden("akamaster")
    model = fresh("akamaster")
    with pytest.raises(ReszooError, match=f"'layer1.0.bn1.bias' {says}"):
        assign(model, NETS["akamaster"], arrays | {"layer1.0.bn1.bias": value})
    half = {
        name: array.astype(np.float16) if array.dtype.kind == "f" else array
        for name, array in arrays.items()
    }
    assert assign(model, NETS["akamaster"], half).complete


def test_a_classifier_is_new_as_a_whole_or_not_at_all() -> None:
    arrays, *_ = golden("akamaster")
    model, net = fresh("akamaster", classes=3), NETS["akamaster"]
    assert not assign(model, net, arrays).complete, "unless asked for"
    assert assign(model, net, arrays, other_classes=True).new == [
        "head_dense/kernel",
        "head_dense/bias",
    ]
    # Of another width its features are others: no matter of classes.
    odd = arrays | {
        "linear.weight": np.ones((3, 5), np.float32),
        "linear.bias": np.ones(10, np.float32),
    }
    found = assign(model, net, odd, other_classes=True)
    assert not found.new and [ours for ours, *_ in found.wrong_shape] == [
        "head_dense/kernel",
        "head_dense/bias",
    ]
    headless = {name: array for name, array in arrays.items() if not name.startswith("linear")}
    assert assign(model, net, headless, other_classes=True).complete
    assert assign(model, net, headless).missing == ["head_dense/kernel", "head_dense/bias"]
