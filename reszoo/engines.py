"""What a run computes with: `tf.distribute` around steps of our own, or on Keras' JAX backend `fit` and `DataParallel`."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from reszoo.data.device_pipeline import open_device_pipeline
from reszoo.data.pipeline import open_pipeline
from reszoo.data.resident import open_resident
from reszoo.errors import ReszooError
from reszoo.evaluation.resident import ResidentEvaluator
from reszoo.evaluation.scores import Evaluator
from reszoo.lazy import tf
from reszoo.nets.batchnorm import synchronise
from reszoo.nets.settings import fixed_settings
from reszoo.training.devices import (
    choose_gpus,
    describe,
    first_device,
    missing_gpu,
    open_strategy,
    parse_devices,
    precision,
)
from reszoo.training.fit import FitLoop, FitStepper, refuse_unfit
from reszoo.training.loop import Loop
from reszoo.training.optimizers import make_optimizer
from reszoo.training.recipe import Recipe
from reszoo.training.step import Stepper


class TensorFlowEngine:
    """One device, or a `MirroredStrategy` over several."""

    kind_of_loop = Loop

    def __init__(self, recipe: Recipe, devices: str) -> None:
        self._recipe = recipe
        self._strategy = open_strategy(devices)
        if recipe.train.deterministic:
            tf.config.experimental.enable_op_determinism()
        keras.utils.set_random_seed(recipe.train.seed)
        self.note = missing_gpu(devices)

    @property
    def devices(self) -> list[str]:
        """A line for each device."""
        return describe(self._strategy)

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Make a net and its stepper for these devices inside the block, in the recipe's precision."""
        with self._strategy.scope(), precision(self._recipe.train.precision):
            yield

    def place(self) -> contextlib.AbstractContextManager[Any]:
        """Train and score inside the block."""
        return fixed_settings()

    def open_data(self) -> Any:
        """Open the recipe's dataset, with `data.on_device` in the memory of the first device."""
        if self._recipe.data.on_device:
            return _open(open_device_pipeline, self._recipe, device=first_device(self._strategy))
        return _open(open_pipeline, self._recipe)

    def stepper(self, model: keras.Model, pipeline: Any) -> Stepper:
        """Return what trains `model`. Call in the scope."""
        recipe = self._recipe
        if recipe.train.batch_norm == "sync":
            synchronise(model)
        optimizer = make_optimizer(recipe.optimizer)
        compile_plainly(model, optimizer)
        return Stepper(
            model,
            optimizer,
            recipe.train,
            recipe.optimizer,
            self._strategy,
            recipe.finetune.stage_decay,
            images_on=first_device(self._strategy) if recipe.data.on_device else "CPU:0",
        )

    def evaluator(self, model: keras.Model, classes: int) -> Evaluator:
        """Return what scores `model`."""
        return Evaluator(model, classes=classes, strategy=self._strategy)

    def settle(self, loop: Loop) -> None:
        """Leave the model as whoever loads it expects it: compiled with its optimizer, as it is."""

    def out_of_memory(self, error: Exception) -> bool:
        """Return whether that is what `error` says."""
        return isinstance(error, tf.errors.ResourceExhaustedError)


class JaxEngine:
    """One device, or Keras' `DataParallel` over several, on Keras' JAX backend; TensorFlow is not imported.

    Normalisations take their statistics over the whole batch, whatever the devices.
    """

    kind_of_loop = FitLoop

    def __init__(self, recipe: Recipe, devices: str) -> None:
        refuse_unfit(recipe)
        self._recipe = recipe
        if recipe.train.deterministic:  # read when JAX first looks for a GPU
            os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true".strip()
        # What Keras draws its seeds from. Its own function imports TensorFlow, to seed that too.
        random.seed(recipe.train.seed)
        np.random.seed(recipe.train.seed)
        self._found = jax_devices(devices)
        self.note = missing_gpu(devices, self._found[0].platform != "cpu", "JAX", "jax[cuda12]")
        self._distribution = self._shardings = None
        if len(self._found) > 1:
            self._refuse_ragged(recipe.train.batch_size)
            self._distribution = keras.distribution.DataParallel(devices=self._found, auto_shard_dataset=False)
            self._shardings = self._layouts()

    @property
    def devices(self) -> list[str]:
        """A line for each device."""
        kinds = [(device.platform.upper(), device.id, device.device_kind) for device in self._found]
        return [f"{name}:{number} {kind}" if name != "CPU" else f"CPU:{number}" for name, number, kind in kinds]

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Make a net and its stepper for these devices inside the block, in the recipe's precision."""
        with self.place(), precision(self._recipe.train.precision):
            yield

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Train and score inside the block."""
        import jax

        on = self._distribution.scope() if self._distribution else jax.default_device(self._found[0])
        with on, fixed_settings():
            yield

    def open_data(self) -> Any:
        """Open the recipe's set, in the devices' memory."""
        pipeline = _open(open_resident, self._recipe, shardings=self._shardings)
        self._refuse_ragged(pipeline.info.examples["train"] % self._recipe.train.batch_size)
        return pipeline

    def stepper(self, model: keras.Model, pipeline: Any) -> FitStepper:
        """Return what trains `model`. Call in the scope."""
        return FitStepper(model, self._recipe, pipeline.steps_per_epoch)

    def evaluator(self, model: keras.Model, classes: int) -> ResidentEvaluator:
        """Return what scores `model`."""
        return ResidentEvaluator(model, classes=classes)

    def settle(self, loop: Loop) -> None:
        """Leave the model as whoever loads it expects it: compiled with Keras' own optimizer, which brings the slots along."""
        planned = loop.stepper.optimizer
        optimizer = make_optimizer(self._recipe.optimizer, loop.stepper.rate)
        optimizer.build(loop.model.trainable_variables)
        for own, trained in zip(optimizer.variables, planned.variables, strict=False):
            if "learning_rate" not in own.path:
                own.assign(trained.value)
        compile_plainly(loop.model, optimizer)

    def out_of_memory(self, error: Exception) -> bool:
        """Return whether that is what `error` says."""
        return "RESOURCE_EXHAUSTED" in str(error)

    def _refuse_ragged(self, images: int) -> None:
        count = len(self._found)
        if images % count:
            raise ReszooError(
                f"{count} devices cannot share a batch of {images} images alike; choose another train.batch_size, or --devices"
            )

    def _layouts(self) -> tuple[Any, Any]:
        from jax.sharding import NamedSharding, PartitionSpec

        assert self._distribution is not None
        mesh = self._distribution.device_mesh.backend_mesh
        return NamedSharding(mesh, PartitionSpec()), NamedSharding(
            mesh, PartitionSpec(self._distribution.batch_dim_name)
        )


Engine = TensorFlowEngine | JaxEngine


def open_engine(recipe: Recipe, devices: str) -> Engine:
    """Return the engine of Keras' backend over `devices`, as `reszoo train --devices`.

    Raises ReszooError for devices that are not there, another backend, or what the engine cannot do of the recipe.
    """
    backend = keras.config.backend()
    if backend == "tensorflow":
        return TensorFlowEngine(recipe, devices)
    if backend == "jax":
        return JaxEngine(recipe, devices)
    raise ReszooError(f"KERAS_BACKEND is {backend}; nets are trained with tensorflow or jax")


def jax_devices(devices: str) -> list[Any]:
    """Return JAX's devices for `devices`, as `open_strategy`. Raises ReszooError for a GPU that is not there."""
    import jax

    kind, numbers = parse_devices(devices)
    if kind == "cpu":
        count = int(numbers or 1)
        with contextlib.suppress(RuntimeError):  # JAX is running already; what it has must do
            if count > 1:
                jax.config.update("jax_num_cpu_devices", count)
        found = jax.devices("cpu")
        if len(found) < count:
            raise ReszooError(
                f"the processor is already in use undivided; ask for cpu:{count} before anything else runs"
            )
        return found[:count]
    found = jax.devices()
    if kind == "auto":
        return found if found[0].platform != "cpu" else found[:1]
    if found[0].platform != "gpu":
        raise ReszooError("JAX finds no GPU here; give --devices cpu, or install jax[cuda12] beside a driver")
    return [found[number] for number in choose_gpus(numbers, len(found), "JAX")]


def compile_plainly(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
    """Compile for callbacks, and for whoever loads the net; the engines compute and scale the loss themselves."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss=loss, metrics=["accuracy"], auto_scale_loss=False)
    # Keras makes the metrics at the first batch of its own loop; callbacks look there for the direction of a monitor.
    model._compile_metrics.build(keras.ops.zeros((1,)), keras.ops.zeros((1, model.output_shape[-1])))


def _open(opener: Callable[..., Any], recipe: Recipe, **more: Any) -> Any:
    train, transforms = recipe.train, recipe.model.transforms
    return opener(
        recipe.data, recipe.augment, batch_size=train.batch_size, seed=train.seed, transforms=transforms, **more
    )
