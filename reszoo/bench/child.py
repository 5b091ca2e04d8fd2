"""One side of a comparison, in a process of its own: `python child.py JOB`, in an environment that may lack reszoo.

JOB is JSON: side, what, model, batch, size, classes, device, precision, threads. Whoever starts the program limits it to the device
and to the threads (`run.py` does). The program prepares, prints a line of JSON on what
it is (version, parameters), and then, for each whole number on standard input, makes so many calls and prints {"seconds", "peak_mb"}.
For "first-step" it prints that once, of the first step, and ends. What cannot be is {"error": one line}.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

RATE, MOMENTUM, DECAY = 0.01, 0.9, 1e-4
MATRIX = 3000  # rows and columns of the product that the machine's peak is measured by
IMAGE_BYTES = 45_000 * 32 * 32 * 3  # of the dataset that pipelines read: as CIFAR's
Run = Callable[[int], Any]  # makes so many calls


def main(job: dict[str, Any]) -> None:
    """Answer `job` on standard output."""
    real, sys.stdout = sys.stdout, sys.stderr  # libraries that print do not answer for us
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        side = SIDES[job["side"]](job)
        if job["what"] == "first-step":
            print(json.dumps({"version": side.version, **_first_step(side)}), file=real, flush=True)
            return
        run, told = side.prepare(job["what"])
        run(1)
    except (LookupError, ImportError) as error:
        print(
            json.dumps({"error": str(error.args[0] if error.args else error)}),
            file=real,
            flush=True,
        )
        return
    print(json.dumps({"version": side.version, **told}), file=real, flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        run(int(line))
        print(
            json.dumps({"seconds": time.perf_counter() - start, "peak_mb": _peak()}),
            file=real,
            flush=True,
        )


def _first_step(side: Any) -> dict[str, float]:
    """From the imports on: seconds to build the net, and from there to the end of the first step."""
    side.warm()
    start = time.perf_counter()
    net = side.build()
    built = time.perf_counter()
    side.step(net)(1)
    return {"build": built - start, "seconds": time.perf_counter() - built, "peak_mb": _peak()}


def _repeat(call: Callable[[], Any], after: Callable[[], Any] | None = None) -> Run:
    """Return what makes n calls one after another, and waits for the last where a call does not."""

    def run(count: int) -> None:
        for _ in range(count):
            call()
        if after:
            after()

    return run


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def _require_gpu(job: dict[str, Any], library: str, find: Callable[[], Any]) -> None:
    """Raise LookupError if the job is for a GPU that `library` does not find: it would measure the CPU."""
    if job["device"] == "gpu" and not find():
        raise LookupError(
            f"{library} does not find a GPU; expected one for --device gpu. Example: --device cpu"
        )


class Tensorflow:
    """reszoo's side."""

    jit = False

    def __init__(self, job: dict[str, Any]) -> None:
        import tensorflow as tf

        import reszoo
        import reszoo.trainer  # what `reszoo train` imports

        self.job = job
        tf.config.threading.set_intra_op_parallelism_threads(job["threads"])
        self.version = f"reszoo {reszoo.__version__}, tensorflow {tf.__version__}"
        _require_gpu(job, "TensorFlow", lambda: tf.config.list_physical_devices("GPU"))

    def prepare(self, what: str) -> tuple[Run, dict[str, Any]]:
        """Return what one call is, and what to tell of it."""
        if what == "matrix":
            return self._matrix(), {}
        if what == "build":
            return _repeat(self.build), {}
        net = self.build()
        told = {"parameters": sum(math.prod(weight.shape) for weight in net.trainable_weights)}
        return (self.step(net) if what == "train" else self._forward(net)), told

    def warm(self) -> None:
        """Start TensorFlow."""
        import tensorflow as tf

        tf.constant(0.0).numpy()

    def build(self) -> Any:
        """Build the model with the job's precision, input size and classes."""
        import reszoo

        self._reset()
        shape = (self.job["size"], self.job["size"], 3)
        return reszoo.build(self.job["model"], input_shape=shape, classes=self.job["classes"])

    def _reset(self) -> None:
        """Clear Keras' session, then set the dtype policy: clearing resets the policy to float32."""
        import keras

        keras.utils.clear_session()
        keras.config.set_dtype_policy(self.job["precision"])

    def step(self, net: Any) -> Run:
        """Return a training step of reszoo on one batch."""
        import tensorflow as tf

        from reszoo.config.optimizer import SGD
        from reszoo.config.training import TrainConfig
        from reszoo.training.optimizers import make_optimizer
        from reszoo.training.step import Stepper

        config = SGD(momentum=MOMENTUM, weight_decay=DECAY)
        settings = TrainConfig(
            batch_size=self.job["batch"], steps=1, precision=self.job["precision"], jit=self.jit
        )
        batches, device = self._batches()
        stepper = Stepper(
            net,
            make_optimizer(config),
            settings,
            config,
            tf.distribute.get_strategy(),
            images_on=device,
        )

        def call() -> None:
            images, labels = next(batches)
            stepper(images, labels, RATE)
            if self.job["device"] == "cpu":
                stepper.totals.numpy()

        return _repeat(call, stepper.totals.numpy)

    def _batches(self) -> tuple[Iterator[Any], str]:
        """Return one batch again and again, and the device that its images lie on: the one that trains."""
        import tensorflow as tf

        device = self._device()
        with tf.device(device):
            batch = tuple(tf.constant(value) for value in _batch(self.job))
        return itertools.repeat(batch), device

    def _device(self) -> str:
        return "GPU:0" if self.job["device"] == "gpu" else "CPU:0"

    def _forward(self, net: Any) -> Run:
        """Return inference as in an export: batch norms folded, one graph."""
        import tensorflow as tf

        folded = self._fold(net)
        images = tf.constant(_batch(self.job)[0])
        forward = tf.function(lambda images: folded(images, training=False))
        return _repeat(lambda: forward(images).numpy())

    def _fold(self, net: Any) -> Any:
        """Return `net` with its batch norms folded. `fold` returns float32; each layer gets back the dtype policy it has in `net`."""
        import keras

        from reszoo.exporting.fold import fold

        folded = fold(net).model
        if self.job["precision"] == "float32":
            return folded

        def with_policy(layer: Any) -> Any:
            policy = net.get_layer(layer.name).dtype_policy
            return type(layer).from_config(layer.get_config() | {"dtype": policy})

        copy = keras.models.clone_model(folded, clone_function=with_policy)
        copy.set_weights(folded.get_weights())
        return copy

    def _matrix(self) -> Run:
        import tensorflow as tf

        low = self.job["precision"] != "float32"
        factor = tf.random.normal((MATRIX, MATRIX), dtype=tf.bfloat16 if low else tf.float32)
        product = tf.function(lambda x: tf.reduce_sum(tf.linalg.matmul(x, factor)[0]))
        return _repeat(lambda: product(factor).numpy())


class TensorflowJit(Tensorflow):
    """The same with `train.jit`."""

    jit = True


class TensorflowOnHost(Tensorflow):
    """Training on the batches of an in-memory dataset, which the CPU makes."""

    def _batches(self) -> tuple[Iterator[Any], str]:
        from reszoo.data.pipeline import Pipeline

        return iter(self._pipeline(Pipeline).train()), "CPU:0"

    def _pipeline(self, kind: Any, **more: Any) -> Any:
        """Return a pipeline over random images: padded, cropped, mirrored."""
        import numpy as np

        from reszoo.config.data import PadCrop
        from reszoo.data.parts import Arrays, ImageSet
        from reszoo.data.preprocessing import Preprocessing

        size, classes, batch = (self.job[key] for key in ("size", "classes", "batch"))
        random, count = np.random.default_rng(0), max(batch, IMAGE_BYTES // (3 * size * size))
        images = random.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
        part = Arrays(images, random.integers(0, classes, count, dtype=np.int32))
        names = tuple(str(number) for number in range(classes))
        dataset = ImageSet(name="random", class_names=names, parts={"train": part})
        preprocessing = Preprocessing(
            (size, size), 3, 0, np.full(3, 127.5, np.float32), np.full(3, 64, np.float32)
        )
        augment = PadCrop(pad=4, flip=True)
        return kind(dataset, preprocessing, augment, batch_size=batch, seed=0, **more)


class TensorflowOnDevice(TensorflowOnHost):
    """The same with `data.on_device`: the device makes the batches."""

    def _batches(self) -> tuple[Iterator[Any], str]:
        from reszoo.data.device_pipeline import DevicePipeline

        device = self._device()
        return iter(self._pipeline(DevicePipeline, device=device).train()), device


class Keras(Tensorflow):
    """Keras as it comes: keras.applications' net, or else the same net of Keras' own layers; `compile` and `train_on_batch`."""

    def __init__(self, job: dict[str, Any]) -> None:
        super().__init__(job)
        import keras

        self.version = f"keras {keras.__version__}, tensorflow {self.version.rpartition(' ')[2]}"

    def build(self) -> Any:
        """Build the net of stock layers."""
        import keras

        name = self.job["model"]
        if own := re.fullmatch(r"resnet(50|101|152)(_v2)?", name):
            self._reset()
            kind = getattr(keras.applications, f"ResNet{own[1]}{(own[2] or '').replace('_v', 'V')}")
            shape = (self.job["size"], self.job["size"], 3)
            return kind(
                weights=None,
                classifier_activation=None,
                input_shape=shape,
                classes=self.job["classes"],
            )
        if self.job["what"] in ("build", "first-step"):
            raise LookupError(
                f"keras.applications has no {name}, so there is no such build to time; train and infer go"
            )

        def stock(layer: Any) -> Any:
            config = layer.get_config()
            norm = isinstance(layer, keras.layers.BatchNormalization)
            return (keras.layers.BatchNormalization if norm else type(layer)).from_config(config)

        return keras.models.clone_model(super().build(), clone_function=stock)

    def step(self, net: Any) -> Run:
        """Return a call of `train_on_batch`."""
        import keras

        net.compile(
            keras.optimizers.SGD(RATE, MOMENTUM),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        images, labels = _batch(self.job)
        return _repeat(lambda: net.train_on_batch(images, labels))

    def _forward(self, net: Any) -> Run:
        images = _batch(self.job)[0]
        return _repeat(lambda: net.predict_on_batch(images))


class Torch:
    """PyTorch: torchvision's net, or the CIFAR net of He et al. with option A; channels last, SGD."""

    compiled = False

    def __init__(self, job: dict[str, Any]) -> None:
        import torch

        self.job, self.torch = job, torch
        torch.set_num_threads(job["threads"])
        _require_gpu(job, "PyTorch", torch.cuda.is_available)
        self.device = "cuda" if job["device"] == "gpu" else "cpu"
        self.version = f"torch {torch.__version__}"
        self._make()  # what there is not is told at once

    def _make(self) -> Callable[[], Any]:
        name = self.job["model"]
        if (depth := re.fullmatch(r"(resnet|plain)(\d+)", name)) and self.job["size"] == 32:
            return lambda: _cifar(
                self.torch, int(depth[2]), plain=depth[1] == "plain", classes=self.job["classes"]
            )
        import torchvision

        self.version = f"torch {self.torch.__version__}, torchvision {torchvision.__version__}"
        if name not in torchvision.models.list_models(module=torchvision.models):
            raise LookupError(f"torchvision has no {name}")
        return lambda: torchvision.models.get_model(name, num_classes=self.job["classes"])

    def prepare(self, what: str) -> tuple[Run, dict[str, Any]]:
        """Return what one call is, and what to tell of it."""
        if what == "build":
            return _repeat(self._make()), {}
        net = self.build()
        told = {"parameters": sum(weight.numel() for weight in net.parameters())}
        return (self.step(net) if what == "train" else self._forward(net)), told

    def warm(self) -> None:
        """Start the device."""
        self.torch.zeros(1, device=self.device).item()

    def build(self) -> Any:
        """Build the net on its device."""
        return self._make()().to(self.device, memory_format=self.torch.channels_last)

    def step(self, net: Any) -> Run:
        """Return a training step on one batch."""
        torch = self.torch
        net.train()
        optimizer = torch.optim.SGD(net.parameters(), RATE, momentum=MOMENTUM, weight_decay=DECAY)
        images, labels = self._batch()
        run = torch.compile(net) if self.compiled else net
        low = self.job["precision"] != "float32"

        def call() -> None:
            optimizer.zero_grad()
            with torch.autocast(self.device, torch.bfloat16, enabled=low):
                loss = torch.nn.functional.cross_entropy(run(images), labels)
            loss.backward()
            optimizer.step()
            if self.device == "cpu":
                loss.item()

        return _repeat(call, torch.cuda.synchronize if self.device == "cuda" else None)

    def _forward(self, net: Any) -> Run:
        torch = self.torch
        net.eval()
        images, _ = self._batch()
        run = torch.compile(net) if self.compiled else net
        low = self.job["precision"] != "float32"

        def call() -> Any:
            with torch.inference_mode(), torch.autocast(self.device, torch.bfloat16, enabled=low):
                return run(images).cpu()

        return _repeat(call)

    def _batch(self) -> tuple[Any, Any]:
        images, labels = (self.torch.from_numpy(value) for value in _batch(self.job))
        images = images.permute(0, 3, 1, 2).to(self.device, memory_format=self.torch.channels_last)
        return images, labels.long().to(self.device)


class TorchCompile(Torch):
    """The same under torch.compile."""

    compiled = True


class Timm(Torch):
    """timm's net of that name, in PyTorch."""

    def _make(self) -> Callable[[], Any]:
        import timm

        self.version = f"timm {timm.__version__}, torch {self.torch.__version__}"
        if self.job["model"] not in timm.list_models() or self.job["size"] == 32:
            raise LookupError(
                f"timm has no {self.job['model']} of {self.job['size']} x {self.job['size']}"
            )
        return lambda: timm.create_model(self.job["model"], num_classes=self.job["classes"])


def _cifar(torch: Any, depth: int, *, plain: bool, classes: int) -> Any:
    """The net of He et al. 2015, section 4.2: three stages of 16, 32 and 64 channels, shortcut option A."""
    from torch.nn import functional

    nn = torch.nn

    class Block(nn.Module):  # type: ignore[name-defined]
        def __init__(self, before: int, after: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(after)
            self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(after)
            self.stride, self.pad = stride, (after - before) // 2

        def forward(self, x: Any) -> Any:
            y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
            if plain:
                return functional.relu(y)
            if self.stride > 1:
                x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
            return functional.relu(x + y)

    layers = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    before = 16
    for after in (16, 32, 64):
        for index in range((depth - 2) // 6):
            layers.append(Block(before, after, 2 if index == 0 and after > 16 else 1))
            before = after
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))


def _batch(job: dict[str, Any]) -> tuple[Any, Any]:
    import numpy as np

    random = np.random.default_rng(0)
    images = random.normal(size=(job["batch"], job["size"], job["size"], 3)).astype(np.float32)
    return images, random.integers(0, job["classes"], job["batch"]).astype(np.int32)


SIDES: dict[str, Any] = {
    "reszoo": Tensorflow,
    "reszoo-jit": TensorflowJit,
    "reszoo-on-host": TensorflowOnHost,
    "reszoo-on-device": TensorflowOnDevice,
    "keras": Keras,
    "torch": Torch,
    "torch-compile": TorchCompile,
    "timm": Timm,
}

if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
