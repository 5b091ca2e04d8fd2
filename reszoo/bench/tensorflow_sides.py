"""reszoo's sides of a comparison, and Keras'."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from reszoo.bench.sides import (
    INPUT_IMAGES,
    LEARNING_RATE,
    MOMENTUM,
    WEIGHT_DECAY,
    Calls,
    Job,
    Side,
    repeat,
)

MATRIX = 3000  # rows and columns of the product that measures the machine's peak


class Reszoo(Side):
    """reszoo's models and training step on one batch."""

    jit = False

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        import reszoo.trainer  # noqa: F401  (what `reszoo train` imports)
        from reszoo.versions import module_versions

        tf.config.threading.set_intra_op_parallelism_threads(job.threads)
        self.versions = module_versions("reszoo", "tensorflow", "keras", "numpy")
        self.require_gpu("TensorFlow", lambda: tf.config.list_physical_devices("GPU"))
        self.device = "GPU:0" if job.device == "gpu" else "CPU:0"
        if job.what == "first-step":
            tf.constant(0.0).numpy()  # starts the device

    def prepare(self) -> tuple[Calls, int]:
        """Return what makes the calls, and the number of the model's parameters."""
        return (self.multiply(), 0) if self.job.what == "matrix" else super().prepare()

    def make(self) -> Any:
        """Make the model with the job's precision, input size and classes."""
        import reszoo

        self.reset()
        job = self.job
        return reszoo.build(job.model, input_shape=(job.size, job.size, 3), classes=job.classes)

    def reset(self) -> None:
        """Clear Keras' session, then set the dtype policy: clearing resets it to float32."""
        import keras

        keras.utils.clear_session()
        keras.config.set_dtype_policy(self.job.precision)

    def count(self, model: Any) -> int:
        """Return the number of trainable parameters."""
        return sum(math.prod(weight.shape) for weight in model.trainable_weights)

    def train(self, model: Any) -> Calls:
        """Return training steps."""
        from reszoo.config.optimizer import SGD
        from reszoo.config.training import TrainConfig
        from reszoo.training.optimizers import make_optimizer
        from reszoo.training.step import Stepper

        job, config = self.job, SGD(momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
        settings = TrainConfig(batch_size=job.batch, steps=1, precision=job.precision, jit=self.jit)
        batches, device = self.open_batches()
        optimizer, strategy = make_optimizer(config), tf.distribute.get_strategy()
        stepper = Stepper(model, optimizer, settings, config, strategy, images_on=device)

        def call() -> None:
            images, labels = next(batches)
            stepper(images, labels, LEARNING_RATE)
            if job.device == "cpu":
                stepper.totals.numpy()

        return repeat(call, stepper.totals.numpy)

    def open_batches(self) -> tuple[Iterator[Any], str]:
        """Return one batch again and again, and the device that its images lie on."""
        with tf.device(self.device):
            batch = tuple(tf.constant(value) for value in self.job.make_batch())
        return itertools.repeat(batch), self.device

    def infer(self, model: Any) -> Calls:
        """Return inference as in an export: batch norms folded, one graph."""
        from reszoo.exporting.fold import fold

        folded = fold(model, dtype=None).model
        images = tf.constant(self.job.make_batch()[0])
        forward = tf.function(lambda images: folded(images, training=False))
        return repeat(lambda: forward(images).numpy())

    def multiply(self) -> Calls:
        """Return products of two square matrices."""
        dtype = tf.bfloat16 if self.job.is_low else tf.float32
        factor = tf.random.normal((MATRIX, MATRIX), dtype=dtype)
        product = tf.function(lambda x: tf.reduce_sum(tf.linalg.matmul(x, factor)[0]))
        return repeat(lambda: product(factor).numpy())

    def open_input(self) -> Iterator[Any]:
        """Return the batches of reszoo's pipeline."""
        from reszoo.config.data import DataConfig, InceptionCrop
        from reszoo.data.pipeline import Pipeline, open_dataset

        job = self.job
        if job.model == "cifar":
            return iter(self.make_pipeline(Pipeline).train())
        config = DataConfig(
            name=f"folder:{job.folder}",
            image_size=(job.size, job.size),
            validation=0,
            normalize="channel",
        )
        crop = InceptionCrop(flip=True)
        return iter(open_dataset(config, crop, batch_size=job.batch, seed=0).train())

    def make_pipeline(self, kind: Any, **more: Any) -> Any:
        """Return a pipeline of the class `kind` over random images: padded, cropped, mirrored."""
        import numpy as np

        from reszoo.config.data import PadCrop
        from reszoo.data.dataset import ArraySplit, ImageDataset
        from reszoo.data.normalization import fit_normalization
        from reszoo.images.preprocessing import Preprocessing

        size, classes, batch = self.job.size, self.job.classes, self.job.batch
        random, count = np.random.default_rng(0), max(batch, INPUT_IMAGES * 32**2 // size**2)
        images = random.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
        part = ArraySplit(images, random.integers(0, classes, count, dtype=np.int32))
        names = tuple(str(number) for number in range(classes))
        dataset = ImageDataset(name="random", class_names=names, splits={"train": part})
        zeros, ones = np.zeros(3, np.float32), np.ones(3, np.float32)
        preprocessing = fit_normalization(
            Preprocessing((size, size), 3, 0, zeros, ones), part, "pixel_mean"
        )
        augment = PadCrop(pad=4, flip=True)
        return kind(dataset, preprocessing, augment, batch_size=batch, seed=0, **more)


class ReszooJit(Reszoo):
    """The same with `train.jit`."""

    jit = True


class ReszooOnHost(Reszoo):
    """Training on the batches of an in-memory dataset, which the CPU makes."""

    def open_batches(self) -> tuple[Iterator[Any], str]:
        """Return the batches, and the device that their images lie on."""
        from reszoo.data.pipeline import Pipeline

        return iter(self.make_pipeline(Pipeline).train()), "CPU:0"


class ReszooOnDevice(Reszoo):
    """The same with `data.on_device`: the device makes the batches."""

    def open_batches(self) -> tuple[Iterator[Any], str]:
        """Return the batches, and the device that their images lie on."""
        from reszoo.data.device_pipeline import DevicePipeline

        pipeline = self.make_pipeline(DevicePipeline, device=self.device)
        return iter(pipeline.train()), self.device


class Keras(Reszoo):
    """keras.applications' model, or else the model in Keras' own layers; `train_on_batch`."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        del self.versions["reszoo"]

    def make(self) -> Any:
        """Make the model of Keras' own layers."""
        import keras

        job = self.job
        if found := re.fullmatch(r"resnet(50|101|152)(_v2)?", job.model):
            self.reset()
            name = f"ResNet{found[1]}{'V2' if found[2] else ''}"
            return getattr(keras.applications, name)(
                weights=None,
                classifier_activation=None,
                input_shape=(job.size, job.size, 3),
                classes=job.classes,
            )
        if job.what in ("build", "first-step"):
            raise LookupError(f"keras.applications has no {job.model}; expected train or infer")

        def stock(layer: Any) -> Any:
            norm = isinstance(layer, keras.layers.BatchNormalization)
            kind = keras.layers.BatchNormalization if norm else type(layer)
            return kind.from_config(layer.get_config())

        return keras.models.clone_model(super().make(), clone_function=stock)

    def train(self, model: Any) -> Calls:
        """Return calls of `train_on_batch`."""
        import keras

        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(LEARNING_RATE, MOMENTUM), loss)
        images, labels = self.job.make_batch()
        return repeat(lambda: model.train_on_batch(images, labels))

    def infer(self, model: Any) -> Calls:
        """Return calls of `predict_on_batch`."""
        images, _ = self.job.make_batch()
        return repeat(lambda: model.predict_on_batch(images))
