"""Images that stay on the device: the pipeline's batches to the bit, by operations of a GPU."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import kernels

from reszoo.config.data import Augmentation, AugmentConfig, DataConfig, NoCrop
from reszoo.config.recipe import Recipe
from reszoo.data import loading
from reszoo.data.device_pipeline import DevicePipeline, open_device_pipeline
from reszoo.data.micro_batches import Part
from reszoo.data.pipeline import Pipeline, open_dataset
from reszoo.errors import ReszooError

AUGMENTS = {
    "nothing": {},
    "flip": {"flip": True},
    "crop": {"crop": "pad", "pad": 3},
    "crop and flip": {"crop": "pad", "pad": 2, "flip": True},
    "color": {"color": "pca"},
    "mixed": {"flip": True, "flip_mode": "alternating", "erase": 0.5, "mixup": 1.0, "cutmix": 1.0},
    "all": {"crop": "pad", "pad": 1, "flip": True, "color": "pca", "erase": 0.5, "cutmix": 1.0},
}


def recipe(data: DataConfig, augment: AugmentConfig) -> Recipe:
    return Recipe(
        model={"name": "resnet8"},
        data=data,
        augment=augment,
        train={"batch_size": 32, "seed": 5, "steps": 1},
        schedule={"kind": "constant", "rate": 0.1},
    )


def both(
    data: dict[str, Any], augment: dict[str, Any], **options: Any
) -> tuple[Pipeline, DevicePipeline]:
    settings = DataConfig(
        **{"name": "synthetic", "image_size": (12, 10), "validation": 30, "examples": 70, **data}
    )
    changes = Augmentation.of(**augment)
    return (
        open_dataset(settings, changes, batch_size=32, seed=5),
        open_device_pipeline(recipe(settings, changes), **options),
    )


def compare(ours: Any, theirs: Any) -> int:
    """Compare batches to the bit; return how many images they hold."""
    seen = 0
    for (images, labels), (expected, classes) in zip(ours, theirs, strict=True):
        assert images.dtype == tf.float32 and labels.dtype == classes.dtype
        np.testing.assert_array_equal(labels, classes)
        assert images.numpy().tobytes() == expected.numpy().tobytes()
        seen += len(labels)
    return seen


@pytest.mark.parametrize("augment", AUGMENTS)
@pytest.mark.parametrize(
    "data",
    [{"normalize": "channel"}, {"channels": 1, "sampler": "balanced"}],
    ids=["channel", "pixel_mean"],
)
def test_batches_are_the_pipelines_to_the_bit(augment: str, data: dict[str, Any]) -> None:
    """From step 1, over an epoch's end with its short batch, on the second device."""
    theirs, ours = both(data, AUGMENTS[augment], device="CPU:1")
    assert ours.info == theirs.info and ours.steps_per_epoch == theirs.steps_per_epoch == 3
    assert compare(ours.train(1).take(6), theirs.train(1).take(6)) == 2 * 70
    assert all(images.device.endswith("CPU:1") for images, _ in ours.train().take(1))


@pytest.mark.parametrize(("split", "count"), [("train", 70), ("validation", 30), ("test", 256)])
def test_evaluation_is_the_pipelines_to_the_bit(split: str, count: int) -> None:
    theirs, ours = both({}, AUGMENTS["all"], device="CPU:1")
    assert compare(ours.evaluation(split), theirs.evaluation(split)) == count
    assert all(images.device.endswith("CPU:1") for images, _ in ours.evaluation(split))
    part = Part(1, 2)
    assert compare(ours.evaluation(split, part), theirs.evaluation(split, part)) < count


def test_inputs_in_bgr_are_the_pipelines_to_the_bit() -> None:
    pairs = [both({"normalize": "channel"}, AUGMENTS[name]) for name in ("crop and flip", "color")]
    for pipeline in (*pairs[0], pairs[1][1]):
        pipeline.preprocessing = replace(pipeline.preprocessing, channel_order="BGR")
    theirs, ours = pairs[0]
    assert compare(ours.train().take(3), theirs.train().take(3)) == 70
    with pytest.raises(ReszooError, match="noise is in RGB"):
        pairs[1][1].train()


def test_images_are_stored_once_as_bytes_and_freed_with_the_pipeline() -> None:
    _, ours = both({}, {}, device="CPU:1")
    for _ in range(2):
        list(ours.train().take(1))
        list(ours.evaluation("test"))
    stored = {split: ours._stored[split] for split in ours._stored}
    assert {split: value.dtype.name for split, value in stored.items()} == {
        "train": "uint8",
        "test": "uint8",
    }
    left = [weakref.ref(value) for value in stored.values()] + [weakref.ref(ours)]
    del ours, stored
    gc.collect()
    assert [each() for each in left] == [None] * 3


def test_streamed_images_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for index in range(5):
            pixels = np.full((12, 12, 3), 20 * index, np.uint8)
            (tmp_path / name / f"{index}.png").write_bytes(tf.io.encode_png(pixels).numpy())
    monkeypatch.setattr(loading, "fits_memory", lambda counts, shape: False)
    data = DataConfig(
        name=f"folder:{tmp_path}", image_size=(8, 8), normalize="unit", on_device=True
    )
    with pytest.raises(
        ReszooError, match=r"data\.on_device: true is invalid .* streamed.*\. Example: "
    ):
        open_device_pipeline(recipe(data, NoCrop()))


def on_gpu(node: Any) -> bool:
    """Whether TensorFlow has a GPU kernel for a node of a graph whose outputs lie in the GPU's memory."""
    for kernel in kernels.get_registered_kernels_for_op(node.type).kernel:
        rules = {rule.name: set(rule.allowed_values.list.type) for rule in kernel.constraint}
        fits = all(node.get_attr(name).as_datatype_enum in types for name, types in rules.items())
        outputs = {output.name for output in node.op_def.output_arg}
        if (
            kernel.device_type in ("GPU", "DEFAULT")
            and fits
            and not outputs & set(kernel.host_memory_arg)
        ):
            return True
    return False


def test_a_gpu_has_every_operation_that_makes_a_batch() -> None:
    """Else TensorFlow would copy all images of the dataset to the CPU for each batch."""
    registered = kernels.get_registered_kernels_for_op("MatMul").kernel
    if not any(kernel.device_type == "GPU" for kernel in registered):
        pytest.skip("this TensorFlow is built without GPU kernels")
    _, ours = both({}, AUGMENTS["all"])
    (plan, _) = next(iter(ours.train().plans))
    graph = ours._make.get_concrete_function(ours._store("train"), plan).graph
    # Shapes and their parts are int32, and belong in the memory of the CPU.
    ranks = {node: node.outputs[0].shape.rank for node in graph.get_operations() if node.outputs}
    large = [node for node, rank in ranks.items() if rank is None or rank > 1]
    missing = {
        node.type
        for node in large
        if node.type not in ("Placeholder", "Const") and not on_gpu(node)
    }
    assert not missing
    assert "ResourceGather" in {node.type for node in large}
