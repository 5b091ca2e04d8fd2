"""One update of the weights, equal on one device and on N replicas, of one host or of several.

Under a strategy, Keras' `fit` clips before the reduction, weights a ragged last batch by replica
instead of by image, and applies a float16 overflow of one replica. Here each replica computes the
gradient of its share of the whole batch's mean loss. The shares are summed; everything after that
receives the whole gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TypeAlias

import keras

from reszoo.config.optimizer import OptimizerConfig
from reszoo.config.training import FinetuneConfig, TrainConfig
from reszoo.data.micro_batches import Part
from reszoo.errors import ReszooError
from reszoo.lazy import tf
from reszoo.training.forward import Forward
from reszoo.training.gradients import LossGradient
from reszoo.training.loss_scale import LossScale
from reszoo.training.losses import make_losses
from reszoo.training.protocols import Strategy
from reszoo.training.reduction import find_statistics
from reszoo.training.sharpness import Ascent, Sharpness
from reszoo.training.traced_call import TracedCall
from reszoo.training.weight_update import WeightUpdate
from reszoo.types import Tensor, Variable
from reszoo.weights.convert import HEAD

Wishes: TypeAlias = tuple[bool, bool]
NO_WISHES = (False, False)


class Stepper:
    """Updates a model in place, and sums the loss and the right answers.

    Make it in the strategy's scope.

    Args:
        model: A model that maps images [n, h, w, c] to logits [n, classes].
        optimizer: Its optimizer.
        train: Precision, accumulation, clipping, averages and label smoothing.
        decay: Weight decay and its kind.
        strategy: The strategy.
        finetune: Factors on the learning rate of lower stages or blocks.
        images_on: The device that holds the batches; only a replica's share leaves it.
        worker: The number of this worker, on several hosts.
        workers: How many workers there are.
        soft: Whether labels are soft targets. Then the right answer is the greatest target.
        multi_label: Whether labels are targets of several classes. Then all must be right.
        class_weights: Factors on the losses of each class; none if all count alike.

    Attributes:
        part: The part of every batch that this worker reads.
        weights: The weights that were trainable at construction. Only these have slots.
        averaged: The variables that have averages: the weights, perhaps batch norm statistics.
        averages: Their exponential moving averages; both are empty without `train.ema`.
        radius: The radius of sharpness-aware minimization in the next steps; at first 0.
        share: The share of new weights in their averages, of the next steps; at first 1 - `ema`.
        totals: [sum of the losses, right answers, images, skipped steps], a float64 variable [4].
        wishes: The wishes of all workers in the last step, added up, a float64 variable [2].

    Raises:
        ReszooError: If `train.jit` does not support the model, or `finetune` needs stages that the
            model does not have, or no weight matches a pattern of `no_decay`.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        train: TrainConfig,
        decay: OptimizerConfig,
        strategy: Strategy,
        finetune: FinetuneConfig = FinetuneConfig(),  # noqa: B008 -- immutable
        images_on: str = "CPU:0",
        worker: int = 0,
        workers: int = 1,
        soft: bool = False,
        multi_label: bool = False,
        class_weights: Sequence[float] = (),
    ) -> None:
        self.model, self.optimizer, self.strategy = model, optimizer, strategy
        replicas = strategy.num_replicas_in_sync // workers
        self.part = Part(worker, workers, replicas, train.accumulate)
        self._compiles = train.jit and replicas == workers == 1
        self._statistics = list(find_statistics(model))
        others = model.non_trainable_variables
        self._seeds = [each for each in others if each.path.endswith("seed_generator_state")]
        if train.jit and self._seeds:
            raise ReszooError(
                "train.jit: true is invalid; expected false for a model with dropout or drop_path, "
                "because XLA draws other random numbers. Example: --set train.jit=false"
            )
        self._update = WeightUpdate(
            model,
            optimizer,
            decay,
            strategy,
            train,
            finetune,
            self._statistics if train.ema_batch_norm else (),
        )
        self.weights, self.averages = self._update.weights, self._update.averages
        self.averaged, self.share = self._update.averaged, 1 - train.ema
        self._apply = self._update.apply_compiled if self._compiles else self._update.apply
        self._all = list(range(len(self.weights)))
        self.totals = tf.Variable(tf.zeros(4, tf.float64), trainable=False, name="totals")
        self.wishes = tf.Variable(tf.zeros(2, tf.float64), trainable=False, name="wishes")
        self.loss_scale = LossScale(enabled=train.precision == "mixed_float16")
        labels, rows = tf.TensorSpec([None], tf.int32), tf.TensorSpec([], tf.int32)
        if soft or multi_label:
            labels = tf.TensorSpec([None, model.output_shape[-1]], tf.float32)
        rate, wishes = tf.TensorSpec([], tf.float32), tf.TensorSpec([2], tf.float64)
        self._signature = [labels, rate, rows, wishes, tf.TensorSpec([], tf.float64)]
        self.radius = 0.0
        self._traced: dict[tuple[object, ...], TracedCall] = {}
        # A shared function would also compute the gradients of frozen parts.
        alone = strategy.num_replicas_in_sync == 1 and all(each.trainable for each in model.layers)
        # XLA compiles the whole model as one program, which shared functions would only hide.
        self._forward = Forward(
            model, shared=alone and not train.jit, checkpoint=train.checkpoint_gradients
        )
        losses = make_losses(train, model.output.dtype, class_weights)
        self._gradient = partial(
            LossGradient,
            model=model,
            forward=self._forward,
            losses=losses,
            train=train,
            part=self.part,
            images_on=images_on,
            statistics=self._statistics,
            multi_label=multi_label,
        )

    def __call__(
        self, images: Tensor, labels: Tensor, rate: float, rows: int = 0, wishes: Wishes = NO_WISHES
    ) -> None:
        """Take one step on a global batch.

        Args:
            images: float32 [n, h, w, c]: the rows of the batch that belong to `part`.
            labels: int32 [n], or soft targets, float32 [n, classes].
            rate: The learning rate.
            rows: Rows of the whole batch; by default n.
            wishes: What this worker wants all to know after the step; added up in `wishes`.
        """
        self._take(True, images, labels, rate, rows, wishes)

    def probe(
        self, images: Tensor, labels: Tensor, rate: float, rows: int = 0, wishes: Wishes = NO_WISHES
    ) -> None:
        """Take the same step of a linear probe: the classifier alone learns, as in inference."""
        self._take(False, images, labels, rate, rows, wishes)

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
        pairs = zip(self.averaged, self.averages, strict=True)
        averages = {f"average/{each.path}": average for each, average in pairs}
        scale = {"loss_scale": self.loss_scale.scale, "calm_steps": self.loss_scale.good_steps}
        return {**slots, **averages, "totals": self.totals, **scale}

    def spread_seeds(self) -> None:
        """Give each replica its own random masks. Call it when all replicas have equal seeds."""

        def spread() -> None:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            for seed in self._seeds:
                seed.value.assign(seed.value + tf.cast(tf.stack([replica, 0]), seed.value.dtype))

        if self._seeds:
            tf.function(lambda: self.strategy.run(spread), autograph=False)()

    def _take(
        self, training: bool, images: Tensor, labels: Tensor, rate: float, rows: int, wishes: Wishes
    ) -> None:
        """Take a step, or a probe's step."""
        count, wanted = tf.constant(rows or len(labels), tf.int32), tf.constant(wishes, tf.float64)
        take = self.trace(training, *images.shape[1:])
        share = tf.constant(self.share, tf.float64)
        take(images, labels, tf.constant(rate, tf.float32), count, wanted, share)

    def trace(self, training: bool, *shape: int) -> TracedCall:
        """Return the function of a step on images of a shape [h, w, c], traced once for each."""
        radius = self.radius if training else 0.0
        key = (training, radius, *shape)
        if key not in self._traced:
            indices = self._trained(training)
            weights = [self.weights[index] for index in indices]
            gradient = self._gradient(weights=weights, training=training)

            sharpness = None
            if radius:
                sharpness = Sharpness(
                    self.strategy, radius, self._statistics, self._seeds, self.loss_scale
                )

            def step(*batch: Tensor) -> None:
                self._global_step(batch, indices, gradient, sharpness)

            signature = [tf.TensorSpec([None, *shape], tf.float32), *self._signature]
            # No code here branches on a tensor, so AutoGraph would only cost time.
            traced = tf.function(step, input_signature=signature, autograph=False)
            self._traced[key] = TracedCall(traced)
        return self._traced[key]

    def _trained(self, training: bool) -> list[int]:
        """Return the indices of the weights to update: all, or in a probe the classifier's."""
        if training:
            return self._all
        own = {id(weight) for weight in self.model.get_layer(HEAD).trainable_variables}
        return [index for index in self._all if id(self.weights[index]) in own]

    def _global_step(
        self,
        batch: Sequence[Tensor],
        indices: list[int],
        gradient: LossGradient,
        sharpness: Sharpness | None,
    ) -> None:
        """Update the weights of the given indices.

        Args:
            batch: The arguments of a step as tensors.
            indices: Which weights to update.
            gradient: Computes their gradient.
            sharpness: Moves the weights before it; None where they stay.
        """
        images, labels, rate, rows, wishes, share = batch
        ascent = sharpness.climb(images, labels, rows, gradient) if sharpness else None
        arguments = (images, labels, rows, wishes, gradient, sharpness, ascent)
        gradients, sums, finite = self.strategy.run(self._replica_step, args=arguments)
        if sharpness and ascent:
            sharpness.come_back(ascent, gradient)
        self.optimizer.learning_rate = rate
        scaled = self.loss_scale.enabled
        if scaled:
            # Computed from the reduced gradient, and therefore equal on every replica.
            finite = self.strategy.experimental_local_results(finite)[0]
            apply = partial(self._apply, gradients, rate, share, indices)
            tf.cond(finite, apply, lambda: False)
            self.loss_scale.update(finite)
        else:
            self._apply(gradients, rate, share, indices)
        sums, wished = tf.split(self.strategy.reduce("SUM", sums, axis=None), [3, 2])
        sums = tf.concat([sums, [0.0]], 0)
        if scaled:  # the loss of a skipped step may not be finite; only the skip is counted
            sums = tf.where(finite, sums, [0.0, 0.0, 0.0, 1.0])
        self.totals.assign_add(sums)
        self.wishes.assign(wished)

    def _replica_step(
        self,
        images: Tensor,
        labels: Tensor,
        rows: Tensor,
        wishes: Tensor,
        gradient: LossGradient,
        sharpness: Sharpness | None,
        ascent: Ascent | None,
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Return the batch's gradient, the sums and wishes, and whether the gradient is finite."""
        gradients, sums = gradient(images, labels, rows, self.loss_scale.scale)
        gradients, finite = self.loss_scale.unscale(gradients)
        read = gradient.read
        if sharpness and ascent:
            sharpness.end_pass(ascent)
            sums = ascent.sums
            read = dict(zip(map(id, gradient.weights), ascent.values, strict=True))
        if not self._compiles:
            gradients = self._update.regularize(gradients, gradient.weights, read)
        return gradients, tf.concat([sums, wishes], 0), finite
