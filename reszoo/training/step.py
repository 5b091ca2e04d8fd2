"""One update of the weights, equal on one device and on N replicas.

Under a strategy, Keras' `fit` clips before the reduction, weights a ragged last batch by replica
instead of by image, and applies a float16 overflow of one replica. Here each replica computes the
gradient of its share of the whole batch's mean loss. The shares are summed; everything after that
receives the whole gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeAlias

import keras

from reszoo.config.optimizer import OptimizerConfig
from reszoo.config.training import TrainConfig
from reszoo.data.micro_batches import share_of_micro_batch
from reszoo.errors import ReszooError
from reszoo.lazy import tf
from reszoo.training.block_functions import BlockByBlock
from reszoo.training.compiled import Compiled
from reszoo.training.loss_scale import LossScale
from reszoo.training.protocols import Strategy
from reszoo.training.traced_call import TracedCall
from reszoo.training.weight_update import WeightUpdate
from reszoo.types import Tensor, Variable
from reszoo.weights.convert import HEAD

STATISTICS = ("moving_mean", "moving_variance")
Gradients: TypeAlias = "tuple[list[Tensor], Tensor]"
"""Gradients of one micro-batch, and its sums [loss, right answers, images] (float64)."""


class Stepper:
    """Updates a model in place, and sums the loss and the right answers.

    Make it in the strategy's scope.

    Args:
        model: A model that maps images [n, h, w, c] to logits [n, classes].
        optimizer: Its optimizer.
        train: Precision, accumulation, clipping, averages and label smoothing.
        decay: Weight decay and its kind.
        strategy: The strategy.
        stage_decay: Factor on the learning rate from each stage to the one below it.
        images_on: The device that holds the batches; only a replica's share leaves it.

    Attributes:
        weights: The weights that were trainable at construction. Only these have slots.
        averages: Their exponential moving averages; empty without `train.ema`.
        totals: [sum of the losses, right answers, images, skipped steps], a float64 variable [4].

    Raises:
        ReszooError: If `train.jit` does not support the model, or `stage_decay` needs stages that
            the model does not have.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        train: TrainConfig,
        decay: OptimizerConfig,
        strategy: Strategy,
        stage_decay: float = 1.0,
        images_on: str = "CPU:0",
    ) -> None:
        self.model, self.optimizer, self.strategy = model, optimizer, strategy
        self._accumulate, self._images_on = train.accumulate, images_on
        # A shared function would also compute the gradients of frozen parts.
        alone = strategy.num_replicas_in_sync == 1 and all(each.trainable for each in model.layers)
        # XLA compiles the whole model as one program, which shared functions would only hide.
        shared = alone and not train.jit
        self._forward = BlockByBlock(model) if shared else partial(model, training=True)
        self._statistics = list(_statistics(model))
        others = model.non_trainable_variables
        self._seeds = [each for each in others if each.path.endswith("seed_generator_state")]
        if train.jit and self._seeds:
            raise ReszooError(
                "train.jit: true is invalid; expected false for a model with dropout or drop_path, "
                "because XLA draws other random numbers. Example: --set train.jit=false"
            )
        self._classes = model.output_shape[-1]
        self._losses = keras.losses.CategoricalCrossentropy(
            from_logits=True,
            label_smoothing=train.label_smoothing,
            reduction=None,
            dtype=model.output.dtype,
        )
        self._update = WeightUpdate(
            model,
            optimizer,
            decay,
            strategy,
            clip_norm=train.clip_norm,
            ema=train.ema,
            stage_decay=stage_decay,
        )
        self.weights, self.averages = self._update.weights, self._update.averages
        self._all = list(range(len(self.weights)))
        self.totals = tf.Variable(tf.zeros(4, tf.float64), trainable=False, name="totals")
        self.loss_scale = LossScale(enabled=train.precision == "mixed_float16")
        images = tf.TensorSpec([None, *model.input_shape[1:]], tf.float32)
        signature = [images, tf.TensorSpec([None], tf.int32), tf.TensorSpec([], tf.float32)]
        # No code here branches on a tensor, so AutoGraph would only cost time.
        traced = partial(tf.function, input_signature=signature, autograph=False)
        self._step, self._probe = traced(self._full_step), traced(self._probe_step)
        self._take_step, self._take_probe = TracedCall(self._step), TracedCall(self._probe)
        self._gradients: dict[bool, Callable[..., Gradients]] = {}
        for training in (True, False):
            gradients = partial(self._differentiate, training)
            self._gradients[training] = Compiled(model, gradients) if train.jit else gradients

    def __call__(self, images: Tensor, labels: Tensor, rate: float) -> None:
        """Take one step on a global batch.

        Args:
            images: float32 [n, h, w, c].
            labels: int32 [n].
            rate: The learning rate.
        """
        self._take_step(images, labels, tf.constant(rate, tf.float32))

    def probe(self, images: Tensor, labels: Tensor, rate: float) -> None:
        """Take one step of a linear probe: only the classifier learns, on features of inference.

        The arguments are those of a step.
        """
        self._take_probe(images, labels, tf.constant(rate, tf.float32))

    @property
    def rate(self) -> float:
        """The learning rate of the last update."""
        return float(self.optimizer.learning_rate.numpy())

    def restart(self) -> None:
        """Reset the optimizer's slots and its count of updates, as after compiling a model again.

        Adam corrects all slots by one count. After a linear probe, which fills only the
        classifier's slots, the first steps of other weights would be several times too long.
        """
        for variable in self.optimizer.variables:  # includes the learning rate; each step sets it
            variable.assign(keras.ops.zeros_like(variable.value))

    def state(self) -> dict[str, Variable]:
        """Return every variable besides the model's by a stable name, for checkpoints."""
        slots = {f"optimizer/{at}": each for at, each in enumerate(self.optimizer.variables)}
        pairs = zip(self.weights, self.averages, strict=False)
        averages = {f"average/{weight.path}": average for weight, average in pairs}
        scale = {"loss_scale": self.loss_scale.scale, "calm_steps": self.loss_scale.good_steps}
        return {**slots, **averages, "totals": self.totals, **scale}

    def spread_seeds(self) -> None:
        """Give each replica its own random masks. Call it when all replicas have equal seeds."""

        def spread() -> None:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            for seed in self._seeds:
                seed.value.assign(seed.value + tf.cast(tf.stack([replica, 0]), seed.value.dtype))

        self.strategy.run(spread)

    def _full_step(self, images: Tensor, labels: Tensor, rate: Tensor) -> None:
        self._global_step(images, labels, rate, self._all, True)

    def _probe_step(self, images: Tensor, labels: Tensor, rate: Tensor) -> None:
        self._global_step(images, labels, rate, self._trained(False), False)

    def _trained(self, training: bool) -> list[int]:
        """Return the indices of the weights to update: all, or in a probe the classifier's."""
        if training:
            return self._all
        own = {id(weight) for weight in self.model.get_layer(HEAD).trainable_variables}
        return [index for index in self._all if id(self.weights[index]) in own]

    def _global_step(
        self, images: Tensor, labels: Tensor, rate: Tensor, indices: list[int], training: bool
    ) -> None:
        """Update the weights of the given indices.

        Args:
            images: float32 [n, h, w, c].
            labels: int32 [n].
            rate: The learning rate, float32 [].
            indices: Which weights to update.
            training: Whether the model computes as in training.
        """
        arguments = (images, labels, indices, training)
        gradients, sums, finite = self.strategy.run(self._replica_step, args=arguments)
        self.optimizer.learning_rate = rate
        scaled = self.loss_scale.enabled
        if scaled:
            # Computed from the reduced gradient, and therefore equal on every replica.
            finite = self.strategy.experimental_local_results(finite)[0]
            apply = partial(self._update.apply, gradients, rate, indices)
            tf.cond(finite, apply, lambda: False)
            self.loss_scale.update(finite)
        else:
            self._update.apply(gradients, rate, indices)
        sums = tf.concat([self.strategy.reduce("SUM", sums, axis=None), [0.0]], 0)
        if scaled:  # the loss of a skipped step may not be finite; only the skip is counted
            sums = tf.where(finite, sums, [0.0, 0.0, 0.0, 1.0])
        self.totals.assign_add(sums)

    def _replica_step(
        self, images: Tensor, labels: Tensor, indices: list[int], training: bool
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Return the batch's gradient, this replica's sums, and whether the gradient is finite."""
        context = tf.distribute.get_replica_context()
        rows = tf.shape(images)[0]
        weights = [self.weights[index] for index in indices]
        gradients: list[Tensor | None] = [None] * len(weights)
        sums = tf.zeros(3, tf.float64)
        for micro_batch in range(self._accumulate):
            replica, replicas = context.replica_id_in_sync_group, context.num_replicas_in_sync
            first, last, weight = share_of_micro_batch(
                rows, replica, replicas, micro_batch, self._accumulate
            )
            with tf.device(self._images_on):  # only the share goes to the replica's device
                x = images[first:last]
            with tf.device("CPU:0"):
                y = labels[first:last]
            new, more = self._gradients[training](x, y, rows, weight, self.loss_scale.scale)
            pairs = zip(gradients, new, strict=True)
            gradients = [added if known is None else known + added for known, added in pairs]
            sums += more
        if self.strategy.num_replicas_in_sync > 1:
            gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
            if training:
                self._average_statistics(context)
        gradients, finite = self.loss_scale.unscale(gradients)
        # In a deep model, reading the weights a second time is a tenth of all operations.
        forward = self._forward if training else None
        read = forward.values if isinstance(forward, BlockByBlock) else {}
        return self._update.regularize(gradients, weights, read), sums, finite

    def _differentiate(
        self, training: bool, x: Tensor, y: Tensor, rows: Tensor, weight: Tensor, scale: Tensor
    ) -> Gradients:
        """Return the gradients and the sums of one micro-batch on one replica.

        Args:
            training: True in a full step; False in a linear probe.
            x: Images, float32 [n, h, w, c].
            y: Labels, int32 [n].
            rows: Images in the whole batch, which divide the losses.
            weight: 1, or 0 for images that do not count.
            scale: The factor on the loss.
        """
        weights = [self.weights[index] for index in self._trained(training)]
        # TensorFlow's variables ignore Keras' frozen layers; a tape would watch all of them.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            for each in weights:
                tape.watch(each.value)
            logits = self._forward(x) if training else self.model(x, training=False)
            losses = self._losses(tf.one_hot(y, self._classes), logits)
            losses *= tf.cast(weight, logits.dtype)
            mean = tf.reduce_sum(losses) / tf.cast(rows, logits.dtype)
            scaled = mean * tf.cast(scale, logits.dtype)
        gradients = tape.gradient(scaled, [variable.value for variable in weights])
        right = tf.cast(tf.argmax(logits, -1, tf.int32) == y, tf.float64) * weight
        count = tf.cast(tf.shape(x)[0], tf.float64) * weight
        loss = tf.cast(tf.reduce_sum(losses), tf.float64)
        return gradients, tf.stack([loss, tf.reduce_sum(right), count])

    def _average_statistics(self, context: tf.distribute.ReplicaContext) -> None:
        """Set the moving statistics of all replicas to their mean."""
        if self._statistics:
            own = [tf.identity(variable.value) for variable in self._statistics]
            means = context.all_reduce(tf.distribute.ReduceOp.MEAN, own)
            for variable, mean in zip(self._statistics, means, strict=True):
                variable.value.assign(mean)


def _statistics(layer: keras.layers.Layer) -> Iterator[Variable]:
    """Yield the moving statistics that training changes; those of frozen layers do not change."""
    if not layer.trainable:
        return
    if inner := getattr(layer, "layers", ()):
        for each in inner:
            yield from _statistics(each)
    else:
        yield from (
            each for each in layer.non_trainable_variables if each.path.endswith(STATISTICS)
        )
