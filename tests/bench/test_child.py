"""Every option of a job changes what a side measures."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from typing import Any

import pytest
import tensorflow as tf

from reszoo.bench import child

JOB = {
    "what": "train",
    "model": "resnet8",
    "batch": 4,
    "size": 32,
    "classes": 10,
    "device": "cpu",
    "precision": "float32",
    "threads": 1,
}
CHANGES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "model": {"model": "plain14"},
    "batch": {"batch": 3},
    "size": {"size": 40},
    "classes": {"classes": 7},
    "precision": {"precision": "mixed_bfloat16"},
    "inference": {"what": "infer"},
    "inference, precision": {"what": "infer", "precision": "mixed_bfloat16"},
    "threads": {"threads": 2},
}
"""What differs from JOB; each job is measured in a process that has measured the jobs of the same threads before."""

PROBE = """
import json, sys

from reszoo.bench.child import SIDES, _batch

name, jobs = json.loads(sys.argv[1])
for job in jobs:
    side = SIDES[name](job)
    # The calls of the middle and the last convolution, of the head, and the labels: what the measured call computes, and of what.
    seen = {}
    images, labels = _batch(job)
    seen["batch"], seen["size"], seen["labels"] = len(images), images.shape[1], int(labels.max()) < job["classes"]
    seen["classes"] = None
    if name == "torch":
        import torch

        net = side.build()
        for part in net.modules():
            if isinstance(part, torch.nn.Conv2d):
                part.register_forward_hook(
                    lambda part, given, out: seen.update(
                        compute=str(out.dtype).removeprefix("torch."), batch=given[0].shape[0]
                    )
                )
            elif isinstance(part, torch.nn.Linear):
                part.register_forward_hook(lambda part, given, out: seen.update(classes=out.shape[1]))
        seen["size"] = side._batch()[0].shape[-1]
        seen["weights"] = str(next(net.parameters()).dtype).removeprefix("torch.")
        (side.step(net) if job["what"] == "train" else side._forward(net))(1)
        seen["threads"] = torch.get_num_threads()
        seen["parameters"] = sum(weight.numel() for weight in net.parameters())
    else:
        import keras

        # The dtypes of the convolutions' outputs as the measured call traces them, and the images that it gets.
        call = keras.layers.Conv2D.call

        def spy(layer, inputs, *args, **kwargs):
            outputs = call(layer, inputs, *args, **kwargs)
            seen["compute"] = keras.backend.standardize_dtype(outputs.dtype)
            if layer.name == "stem_conv1":
                seen["size"] = inputs.shape[1]
            return outputs

        net = side.build()
        keras.layers.Conv2D.call = spy
        (side.step(net) if job["what"] == "train" else side._forward(net))(1)
        keras.layers.Conv2D.call = call
        seen["classes"] = net.output_shape[1]
        seen["weights"] = net.weights[0].dtype
        seen["parameters"] = sum(weight.numpy().size for weight in net.trainable_weights)
        import tensorflow as tf

        seen["threads"] = tf.config.threading.get_intra_op_parallelism_threads()
    print(json.dumps(seen), flush=True)
"""


def measured(side: str) -> dict[str, dict[str, Any]]:
    """Return what a side measures under each of CHANGES."""
    found = {}
    for threads in (1, 2):
        # At 40 x 40, PyTorch's side needs torchvision.
        asked = {
            name: change
            for name, change in CHANGES.items()
            if side != "torch" or "size" not in change
        }
        names = [name for name, change in asked.items() if (JOB | change)["threads"] == threads]
        jobs = [JOB | CHANGES[name] for name in names]
        environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, "-c", PROBE, json.dumps([side, jobs])]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        found |= dict(zip(names, lines, strict=True))
    return found


@pytest.mark.parametrize("side", ["reszoo", pytest.param("keras", marks=pytest.mark.slow), "torch"])
def test_every_option_changes_what_is_measured(side: str) -> None:
    if side == "torch" and importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    found = measured(side)
    base = {
        "compute": "float32",
        "weights": "float32",
        "batch": 4,
        "size": 32,
        "labels": True,
        "classes": 10,
        "threads": 1,
    }
    assert len(found) >= len(CHANGES) - (side == "torch")
    for name in found:
        change = CHANGES[name]
        expected = dict(base)
        if "precision" in change:
            expected["compute"] = "bfloat16"
        expected |= {key: value for key, value in change.items() if key in base}
        assert {key: found[name][key] for key in base} == expected, name
    assert found["model"]["parameters"] > found["nothing"]["parameters"]


@pytest.mark.parametrize("side", ["reszoo", "torch"])
def test_a_gpu_that_a_library_does_not_find_is_an_error(side: str) -> None:
    """Or the record would say gpu and hold the speed of the CPU."""
    if side == "torch" and importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    job = json.dumps(JOB | {"side": side, "device": "gpu"})
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "reszoo.bench.child", job]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert (
        "does not find a GPU; expected one for --device gpu" in json.loads(done.stdout)["error"]
    ), done.stderr


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few images, and TensorFlow's threads as they are: they cannot change in a process that has computed."""
    monkeypatch.setattr(child, "IMAGE_BYTES", 32 * 32 * 32 * 3)
    monkeypatch.setattr(tf.config.threading, "set_intra_op_parallelism_threads", lambda count: None)


class Recorder:
    """Stands for `Stepper`: keeps how it was made and what it was called with."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.totals = tf.zeros(4)
        self.settings, self.images_on, self.batches = args[2], options["images_on"], []

    def __call__(self, images: tf.Tensor, labels: tf.Tensor, rate: float) -> None:
        self.batches.append(images.numpy())


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("side", "jit", "fed"),
    [
        ("reszoo", False, None),
        ("reszoo-jit", True, None),
        ("reszoo-on-host", False, "Dataset"),
        ("reszoo-on-device", False, "DeviceBatches"),
    ],
)
def test_a_variant_changes_what_is_measured(
    side: str, jit: bool, fed: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import reszoo.trainer  # noqa: F401  (keeps the real Stepper)

    made: list[Recorder] = []
    monkeypatch.setattr(
        "reszoo.training.step.Stepper",
        lambda *args, **options: made.append(Recorder(*args, **options)) or made[-1],
    )
    one = child.SIDES[side](JOB)
    batches, device = one._batches()
    if fed is None:
        assert next(batches) is next(batches)
    one.step(one.build())(3)
    (stepper,) = made
    assert stepper.settings.jit is jit and stepper.images_on == device == "CPU:0"
    first, second, third = stepper.batches
    assert first.shape == (4, 32, 32, 3) and (first == second).all() == (fed is None)
    if fed:
        from reszoo.data.device_pipeline import DevicePipeline
        from reszoo.data.pipeline import Pipeline

        kinds = {"Dataset": Pipeline, "DeviceBatches": DevicePipeline}
        seen = []
        monkeypatch.setattr(
            one,
            "_pipeline",
            lambda kind, **more: (
                seen.append((kind, more)) or type(one)._pipeline(one, kind, **more)
            ),
        )
        one._batches()
        assert seen == [(kinds[fed], {"device": "CPU:0"} if fed == "DeviceBatches" else {})]


@pytest.mark.usefixtures("small")
def test_the_pipelines_of_host_and_device_make_the_same_batches() -> None:
    host, device = (
        child.SIDES[side](JOB)._batches()[0] for side in ("reszoo-on-host", "reszoo-on-device")
    )
    for _ in range(3):
        (images, labels), (others, same) = next(host), next(device)
        assert (images.numpy() == others.numpy()).all() and (labels.numpy() == same.numpy()).all()
