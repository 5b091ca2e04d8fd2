"""Every option of a job changes what a side measures."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from reszoo.bench import child, tensorflow_sides
from reszoo.bench.sides import Job

WITH_TORCH = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed"
)
JOB = {"side": "reszoo", "what": "train", "model": "resnet8", "batch": 4, "size": 32, "classes": 10}
CHANGES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "precision": {"precision": "mixed_bfloat16"},
    "inference, precision": {"what": "infer", "precision": "mixed_bfloat16"},
    "all": {"model": "plain14", "batch": 3, "size": 40, "classes": 7, "threads": 2},
}
"""What differs from JOB; a process cannot change its threads once it has computed."""

PROBE = """
import json, sys
from reszoo.bench.child import open_side
from reszoo.bench.sides import Job

for values in json.loads(sys.argv[1]):
    job = Job(**values)
    side = open_side(job)
    # Outputs of convolutions, and the images and labels: what the measured call computes, and of what.
    images, labels = job.make_batch()
    seen = {"batch": len(images), "size": images.shape[1], "labels": int(labels.max()) < job.classes}
    if job.side == "torch":
        import torch

        model = side.build()
        def spy(part, given, out):
            if isinstance(part, torch.nn.Conv2d):
                seen.update(compute=str(out.dtype).removeprefix("torch."), batch=given[0].shape[0])
            elif isinstance(part, torch.nn.Linear):
                seen.update(classes=out.shape[1])
        for part in model.modules():
            part.register_forward_hook(spy)
        seen["size"] = side.make_batch()[0].shape[-1]
        seen["weights"] = str(next(model.parameters()).dtype).removeprefix("torch.")
        (side.train if job.what == "train" else side.infer)(model)(1)
        seen["threads"] = torch.get_num_threads()
    else:
        import keras, tensorflow as tf

        call = keras.layers.Conv2D.call
        def spy(layer, inputs, *args, **kwargs):
            outputs = call(layer, inputs, *args, **kwargs)
            seen["compute"] = keras.backend.standardize_dtype(outputs.dtype)
            if layer.name == "stem_conv1":
                seen["size"] = inputs.shape[1]
            return outputs

        model = side.build()
        keras.layers.Conv2D.call = spy
        (side.train if job.what == "train" else side.infer)(model)(1)
        keras.layers.Conv2D.call = call
        seen["classes"] = model.output_shape[1]
        seen["weights"] = model.weights[0].dtype
        seen["threads"] = tf.config.threading.get_intra_op_parallelism_threads()
    print(json.dumps(seen | {"parameters": side.count(model)}), flush=True)
"""


def run_python(*words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, *words], env=environment, input="1\n", capture_output=True, text=True
    )


@pytest.mark.parametrize(
    "side",
    [
        "reszoo",
        pytest.param("keras", marks=pytest.mark.slow),
        pytest.param("torch", marks=WITH_TORCH),
    ],
)
def test_every_option_changes_what_is_measured(side: str) -> None:
    base = {"compute": "float32", "weights": "float32", "batch": 4, "size": 32, "labels": True}
    base |= {"classes": 10, "threads": 1}
    parameters = {}
    for names in (list(CHANGES)[:-1], ["all"]):
        changes = [dict(CHANGES[name]) for name in names]
        if side == "torch":  # at 40 x 40 it needs torchvision
            changes[-1].pop("size", None)
        done = run_python("-c", PROBE, json.dumps([JOB | one | {"side": side} for one in changes]))
        assert done.returncode == 0, done.stderr[-3000:]
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        for name, change, seen in zip(names, changes, lines, strict=True):
            expected = base | {key: value for key, value in change.items() if key in base}
            expected |= {"compute": "bfloat16"} if "precision" in change else {}
            assert {key: seen[key] for key in base} == expected, name
            parameters[name] = seen["parameters"]
    assert parameters["all"] > parameters["nothing"] == parameters["precision"]


@pytest.mark.parametrize(
    ("side", "words"),
    [
        ("reszoo", ["-m", "reszoo.bench.child"]),
        pytest.param("torch", [str(child.__file__)], marks=WITH_TORCH),
    ],
)
def test_a_gpu_that_a_library_does_not_find_is_an_error(side: str, words: list[str]) -> None:
    """Or the record would say gpu and hold the speed of the CPU."""
    done = run_python(*words, json.dumps(JOB | {"side": side, "device": "gpu"}))
    error = json.loads(done.stdout)["error"]
    assert "does not find a GPU; expected one for --device gpu" in error, done.stderr


@WITH_TORCH
def test_a_peer_needs_neither_reszoo_nor_keras(tmp_path: Path) -> None:
    """The program alone, outside of the checkout, where they cannot be imported."""
    code = f"""
import runpy, sys
sys.modules.update(dict.fromkeys(("keras", "tensorflow", "pydantic")))
sys.path = [path for path in sys.path if path != {str(Path(child.__file__).parents[2])!r}]
sys.argv = ["child.py", {json.dumps(JOB | {"side": "torch"})!r}]
runpy.run_path({child.__file__!r}, run_name="__main__")
"""
    done = run_python("-I", "-c", code)
    ready, turn = map(json.loads, done.stdout.splitlines())
    assert list(ready["versions"]) == ["torch"] and ready["parameters"] == 75_290
    assert turn["seconds"] > 0 and turn["peak_mb"] > 50


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few images, and TensorFlow's threads as they are: a process that has computed cannot change them."""
    monkeypatch.setattr(tensorflow_sides, "INPUT_IMAGES", 32)
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
    ("side", "jit", "pipeline"),
    [
        ("reszoo", False, None),
        ("reszoo-jit", True, None),
        ("reszoo-on-host", False, "Pipeline"),
        ("reszoo-on-device", False, "DevicePipeline"),
    ],
)
def test_a_variant_changes_what_is_measured(
    side: str, jit: bool, pipeline: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Recorder] = []
    kinds: list[str] = []
    make_pipeline = tensorflow_sides.Reszoo.make_pipeline
    monkeypatch.setattr(
        tensorflow_sides.Reszoo,
        "make_pipeline",
        lambda self, kind, **more: kinds.append(kind.__name__) or make_pipeline(self, kind, **more),
    )
    one = child.open_side(Job(**JOB | {"side": side}))
    model = one.build()
    monkeypatch.setattr(
        "reszoo.training.step.Stepper",
        lambda *args, **options: made.append(Recorder(*args, **options)) or made[-1],
    )
    one.train(model)(3)
    (stepper,) = made
    assert stepper.settings.jit is jit and stepper.images_on == "CPU:0"
    assert kinds == [pipeline] * (pipeline is not None)
    first, second, _ = stepper.batches
    assert first.shape == (4, 32, 32, 3) and (first == second).all() == (pipeline is None)


@pytest.mark.usefixtures("small")
def test_the_pipelines_of_host_and_device_make_the_same_batches() -> None:
    host, device = (
        child.open_side(Job(**JOB | {"side": side})).open_batches()[0]
        for side in ("reszoo-on-host", "reszoo-on-device")
    )
    for _ in range(3):
        (images, labels), (others, same) = next(host), next(device)
        assert (images.numpy() == others.numpy()).all() and (labels.numpy() == same.numpy()).all()
