"""One update of the weights, the same on one device and on N replicas.

Keras' `fit` under a strategy clips before the reduction, weighs a ragged last batch by replica instead of by image,
and lets one replica's float16 overflow through. Here each replica differentiates its share of the whole batch's mean
loss, the shares are summed, and what follows sees the whole gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import keras

from reszoo.config.optimizer import OptimizerConfig
from reszoo.config.training import TrainConfig
from reszoo.errors import ReszooError
from reszoo.lazy import tf
from reszoo.models.freeze import layers_by_place
from reszoo.training.optimizers import decays
from reszoo.training.reuse import BlockByBlock
from reszoo.weights.convert import HEAD

OPTIMIZER_OFF = "disable_meta_optimizer"
MOVING = ("moving_mean", "moving_variance")
SCALE_START = 2.0**15
SCALE_GROWTH_STEPS = 2000  # steps without overflow after which the loss scale doubles, as in PyTorch's and Keras' scalers


class Stepper:
    """Updates `model` in place, and sums what it sees: loss, right answers, images, skipped steps.

    Make it inside the strategy's scope. `totals` is [loss summed over images, right, images, skipped steps], float64.
    `weights` are those that learn, the model's trainable ones as it is made: only they have gradients, slots and averages,
    and backward passes end where they end. stage_decay: as in `FinetuneConfig`; a net must have places unless it is 1.
    images_on: the device that the batches lie on; only a replica's share leaves it.
    Raises ReszooError for a model that `train.jit` does not support.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        train: TrainConfig,
        decay: OptimizerConfig,
        strategy: tf.distribute.Strategy,
        stage_decay: float = 1.0,
        images_on: str = "CPU:0",
    ) -> None:
        self.model, self.optimizer, self.strategy = model, optimizer, strategy
        self._train, self._decay, self._images_on = train, decay, images_on
        self.weights = model.trainable_variables
        # A shared function would compute gradients that nobody asked for where parts of the net are frozen.
        alone = strategy.num_replicas_in_sync == 1 and all(
            layer.trainable for layer in model.layers
        )
        # XLA compiles the whole model as one program, which shared functions would only hide.
        self._forward = (
            BlockByBlock(model) if alone and not train.jit else partial(model, training=True)
        )
        shares = rate_shares(model, stage_decay)
        self._shares = [shares.get(id(weight), 1.0) for weight in self.weights]
        self._all = list(range(len(self.weights)))
        self._statistics = list(_moving(model))
        others = model.non_trainable_variables
        self._seeds = [
            variable for variable in others if variable.path.endswith("seed_generator_state")
        ]
        if train.jit and self._seeds:
            raise ReszooError(
                "train.jit: true is invalid; expected false for a model with dropout or drop_path, because XLA draws other "
                "random numbers. Example: --set train.jit=false"
            )
        self._classes = model.output_shape[-1]
        self._losses = keras.losses.CategoricalCrossentropy(
            from_logits=True,
            label_smoothing=train.label_smoothing,
            reduction=None,
            dtype=model.output.dtype,
        )
        # Keras would make the slots inside the traced step, which then has to be traced twice.
        optimizer.build(self.weights)
        self.totals = tf.Variable(tf.zeros(4, tf.float64), trainable=False, name="totals")
        self.averages = (
            [tf.Variable(weight.value, trainable=False) for weight in self.weights]
            if train.ema
            else []
        )
        self._scaled = train.precision == "mixed_float16"
        self.scale = tf.Variable(
            SCALE_START if self._scaled else 1.0, trainable=False, name="loss_scale"
        )
        self.calm_steps = tf.Variable(0, trainable=False, name="calm_steps")
        images = tf.TensorSpec([None, *model.input_shape[1:]], tf.float32)
        signature = [images, tf.TensorSpec([None], tf.int32), tf.TensorSpec([], tf.float32)]
        # Nothing here branches on a tensor: AutoGraph would rewrite each line of Python to find that out.
        self._step = tf.function(self._full_step, input_signature=signature, autograph=False)
        self._probe = tf.function(self._probe_step, input_signature=signature, autograph=False)
        self._take_step, self._take_probe = AsTraced(self._step), AsTraced(self._probe)
        self._compiled = (
            {training: self._compile(training) for training in (True, False)} if train.jit else {}
        )

    def __call__(self, images: tf.Tensor, labels: tf.Tensor, rate: float) -> None:
        """Take one step on a global batch: images float32 [n, h, w, c], labels int32 [n], at learning rate `rate`."""
        self._take_step(images, labels, tf.constant(rate, tf.float32))

    def probe(self, images: tf.Tensor, labels: tf.Tensor, rate: float) -> None:
        """Take a step in which only the classifier learns, on the features that the net gives in inference."""
        self._take_probe(images, labels, tf.constant(rate, tf.float32))

    @property
    def rate(self) -> float:
        """The rate of the last update."""
        return float(self.optimizer.learning_rate.numpy())

    def restart(self) -> None:
        """Empty the optimizer's slots and its count of updates, as compiling anew does in Keras' guide to fine-tuning.

        Adam and its kin correct their slots by one count for all weights: after a probe of many steps, which fill none but the
        classifier's, every other weight's first steps would be several times too long.
        """
        for variable in self.optimizer.variables:  # the rate among them, which each step sets
            variable.assign(keras.ops.zeros_like(variable.value))

    def state(self) -> dict[str, Any]:
        """Return every variable besides the model's, by a name that stays: what a checkpoint must hold."""
        slots = {
            f"optimizer/{index}": variable
            for index, variable in enumerate(self.optimizer.variables)
        }
        averages = {
            f"average/{weight.path}": mean
            for weight, mean in zip(self.weights, self.averages, strict=False)
        }
        own = {"totals": self.totals, "loss_scale": self.scale, "calm_steps": self.calm_steps}
        return {**slots, **averages, **own}

    def _full_step(self, images: tf.Tensor, labels: tf.Tensor, rate: tf.Tensor) -> None:
        self._global_step(images, labels, rate, self._all, True)

    def _probe_step(self, images: tf.Tensor, labels: tf.Tensor, rate: tf.Tensor) -> None:
        self._global_step(images, labels, rate, self._learning(False), False)

    def _learning(self, training: bool) -> list[int]:
        """Return the indices of the weights that a step updates: all, or in a probe the classifier's."""
        if training:
            return self._all
        own = {id(weight) for weight in self.model.get_layer(HEAD).trainable_variables}
        return [index for index in self._all if id(self.weights[index]) in own]

    def _global_step(
        self,
        images: tf.Tensor,
        labels: tf.Tensor,
        rate: tf.Tensor,
        learning: list[int],
        training: bool,
    ) -> None:
        """Update the weights of the indices `learning`, the net computing as in training or as in inference."""
        gradients, sums, finite = self.strategy.run(
            self._replica_step, args=(images, labels, learning, training)
        )
        self.optimizer.learning_rate = rate
        if self._scaled:
            # The same on every replica, for it was computed from the reduced gradient.
            finite = self.strategy.experimental_local_results(finite)[0]
            tf.cond(finite, lambda: self._apply(gradients, rate, learning), lambda: False)
            self._rescale(finite)
        else:
            self._apply(gradients, rate, learning)
        sums = tf.concat([self.strategy.reduce("SUM", sums, axis=None), [0.0]], 0)
        if (
            self._scaled
        ):  # a skipped step's loss may be no number; it counts as nothing but a skipped step
            sums = tf.where(finite, sums, [0.0, 0.0, 0.0, 1.0])
        self.totals.assign_add(sums)

    def _replica_step(
        self, images: tf.Tensor, labels: tf.Tensor, learning: list[int], training: bool
    ) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
        """Return the whole batch's gradient, this replica's share of the sums, and whether the gradient is finite."""
        context = tf.distribute.get_replica_context()
        rows = tf.shape(images)[0]
        weights = [self.weights[index] for index in learning]
        gradients: list[Any] = [None] * len(weights)
        sums = tf.zeros(3, tf.float64)
        for piece in range(self._train.accumulate):
            first, last, weight = self._share(rows, piece, context.replica_id_in_sync_group)
            with tf.device(self._images_on):  # only the share goes to the replica's device
                x = images[first:last]
            with tf.device("CPU:0"):
                y = labels[first:last]
            differentiate = self._run_compiled if self._compiled else self._differentiate
            new, more = differentiate(x, y, rows, weight, self.scale, training)
            gradients = [
                g if old is None else old + g for old, g in zip(gradients, new, strict=True)
            ]
            sums += more
        if self.strategy.num_replicas_in_sync > 1:
            gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
            if training:
                self._share_statistics(context)
        gradients = [gradient / self.scale for gradient in gradients] if self._scaled else gradients
        finite = (
            tf.reduce_all([tf.reduce_all(tf.math.is_finite(g)) for g in gradients])
            if self._scaled
            else tf.constant(True)
        )
        # In a deep net a second reading of the weights is a tenth of all operations.
        read = self._forward.values if training and isinstance(self._forward, BlockByBlock) else {}
        return self._regularised(gradients, weights, read), sums, finite

    def _differentiate(
        self,
        x: tf.Tensor,
        y: tf.Tensor,
        rows: tf.Tensor,
        weight: tf.Tensor,
        scale: tf.Tensor,
        training: bool,
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Return the gradients and the sums [loss, right, images] of one micro-batch on one replica.

        Args:
            x: images, float32 [n, h, w, c].
            y: labels, int32 [n].
            rows: images of the whole batch, by which the losses are divided.
            weight: 1, or 0 for images that do not count.
            scale: what the loss is multiplied by.
            training: whether the model computes as in training, and all weights learn; else the classifier learns alone.
        """
        weights = [self.weights[index] for index in self._learning(training)]
        # TensorFlow's variables know nothing of Keras' frozen layers, and a tape would follow them all to the images.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            for each in weights:
                tape.watch(each.value)
            logits = self._forward(x) if training else self.model(x, training=False)
            losses = self._losses(tf.one_hot(y, self._classes), logits) * tf.cast(
                weight, logits.dtype
            )
            mean = tf.reduce_sum(losses) / tf.cast(rows, logits.dtype)
            scaled = mean * tf.cast(scale, logits.dtype)
        gradients = tape.gradient(scaled, [variable.value for variable in weights])
        right = tf.cast(tf.argmax(logits, -1, tf.int32) == y, tf.float64) * weight
        count = tf.cast(tf.shape(x)[0], tf.float64) * weight
        return gradients, tf.stack(
            [tf.cast(tf.reduce_sum(losses), tf.float64), tf.reduce_sum(right), count]
        )

    def _compile(self, training: bool) -> Callable[..., Any]:
        """Return `_differentiate`, compiled by XLA, of the same arguments and the values of the model's variables.

        The function returns besides which variables it moved and their new values. It neither reads nor assigns a variable:
        under a strategy XLA rejects variables of another replica.
        """
        variables = self.model.variables
        moved: list[int] = []

        def differentiate(
            x: tf.Tensor,
            y: tf.Tensor,
            rows: tf.Tensor,
            weight: tf.Tensor,
            scale: tf.Tensor,
            values: list[tf.Tensor],
        ) -> Any:
            with keras.StatelessScope(
                state_mapping=list(zip(variables, values, strict=True))
            ) as scope:
                gradients, sums = self._differentiate(x, y, rows, weight, scale, training)
                now = [scope.get_current_value(variable) for variable in variables]
            moved[:] = [
                at for at, (new, old) in enumerate(zip(now, values, strict=True)) if new is not old
            ]
            return gradients, sums, [now[at] for at in moved]

        compiled = tf.function(differentiate, autograph=False, jit_compile=True)
        return lambda *args: (*compiled(*args), moved)

    def _run_compiled(
        self,
        x: tf.Tensor,
        y: tf.Tensor,
        rows: tf.Tensor,
        weight: tf.Tensor,
        scale: tf.Variable,
        training: bool,
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Do what `_differentiate` does, compiled by XLA, and move the same statistics."""
        variables = self.model.variables
        values = [tf.convert_to_tensor(variable.value) for variable in variables]
        scale = tf.convert_to_tensor(scale)
        gradients, sums, after, moved = self._compiled[training](x, y, rows, weight, scale, values)
        for at, value in zip(moved, after, strict=True):
            variables[at].value.assign(value)
        return gradients, sums

    def spread_seeds(self) -> None:
        """Give each replica random masks of its own. Call after the seeds were made or restored, alike on all."""

        def spread() -> None:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            for seed in self._seeds:
                seed.value.assign(seed.value + tf.cast(tf.stack([replica, 0]), seed.value.dtype))

        self.strategy.run(spread)

    def _share_statistics(self, context: Any) -> None:
        """Bring the moving statistics to their mean over the replicas: one net is scored and saved, not N."""
        if self._statistics:
            means = context.all_reduce(
                tf.distribute.ReduceOp.MEAN, [tf.identity(v.value) for v in self._statistics]
            )
            for variable, mean in zip(self._statistics, means, strict=True):
                variable.value.assign(mean)

    def _share(
        self, rows: tf.Tensor, piece: int, replica: Any
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Return (first row, one past the last, weight) of a replica's share of a piece of the batch.

        With fewer rows than replicas some share would be empty, and a normalisation over nothing is not a number: such a
        replica repeats a row with weight 0.
        """
        pieces, replicas = self._train.accumulate, self.strategy.num_replicas_in_sync
        start = piece * rows // pieces
        size = (piece + 1) * rows // pieces - start
        first, last = start + replica * size // replicas, start + (replica + 1) * size // replicas
        empty = first == last
        row = tf.minimum(first, rows - 1)
        return (
            tf.where(empty, row, first),
            tf.where(empty, row + 1, last),
            tf.cast(~empty, tf.float64),
        )

    def _regularised(
        self, gradients: list[tf.Tensor], weights: list[Any], read: dict[int, tf.Tensor]
    ) -> list[tf.Tensor]:
        """Add coupled decay, the gradient of weight_decay / 2 * |w|^2, then clip the norm of the whole.

        read: what was read of some weights in this step, by their id.
        """
        if self._decay.decay == "coupled":
            decay = _constants(self._decay.weight_decay, weights)
            gradients = [
                gradient + decay[weight.dtype] * read.get(id(weight), weight.value)
                if decays(weight, self._decay)
                else gradient
                for gradient, weight in zip(gradients, weights, strict=True)
            ]
        if self._train.clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, self._train.clip_norm)
        return gradients

    def _apply(self, gradients: list[Any], rate: tf.Tensor, learning: list[int]) -> bool:
        """Update each weight on every device, from the gradient that is already there; True, for `tf.cond`."""
        decoupled = self._decay.decay == "decoupled"
        step = self._updater()
        for index, gradient in zip(learning, gradients, strict=True):
            weight = self.weights[index]
            shrink = decoupled and decays(weight, self._decay)
            own = rate if self._shares[index] == 1 else rate * self._shares[index]

            def update(
                variable: Any,
                gradient: Any,
                average: Any = None,
                shrink: bool = shrink,
                own: Any = own,
            ) -> None:
                if shrink:
                    variable.assign_sub(
                        variable * tf.cast(self._decay.weight_decay * own, variable.dtype)
                    )
                step(gradient, variable, own)
                if average is not None:
                    average.assign_add((variable - average) * (1 - self._train.ema))

            average = (self.averages[index],) if self.averages else ()
            self.strategy.extended.update(
                weight.value, update, args=(gradient, *average), group=False
            )
        self.optimizer.iterations.assign_add(1)
        return True

    def _updater(self) -> Callable[[Any, Any, Any], None]:
        """Return what updates (gradient, weight, rate): the optimizer, or for momentum its formula in one kernel, to the same bits."""
        optimizer = self.optimizer
        alone = self.strategy.num_replicas_in_sync == 1
        if not (alone and type(optimizer) is keras.optimizers.SGD and optimizer.momentum):
            return optimizer.update_step
        momentum = _constants(optimizer.momentum, self.weights)

        def update(gradient: Any, variable: Any, rate: Any) -> None:
            slot = optimizer.momentums[optimizer._get_variable_index(variable)].value
            tf.raw_ops.ResourceApplyKerasMomentum(
                var=variable.handle,
                accum=slot.handle,
                lr=tf.cast(rate, variable.dtype),
                grad=gradient,
                momentum=momentum[variable.dtype.name],
                use_nesterov=optimizer.nesterov,
            )

        return update

    def _rescale(self, finite: tf.Tensor) -> None:
        """Halve the loss scale after an overflow; double it after a long calm."""
        calm = tf.where(finite, self.calm_steps + 1, 0)
        grown = calm >= SCALE_GROWTH_STEPS
        self.scale.assign(
            tf.where(
                finite, tf.where(grown, self.scale * 2, self.scale), tf.maximum(self.scale / 2, 1.0)
            )
        )
        self.calm_steps.assign(tf.where(grown, 0, calm))


def _constants(value: float, weights: list[Any]) -> dict[str, tf.Tensor]:
    """Return a number as a constant of each dtype that the weights have: one node, and not one a weight."""
    return {
        dtype: tf.constant(value, dtype) for dtype in sorted({weight.dtype for weight in weights})
    }


class AsTraced:
    """Calls a `tf.function` of one signature as it was traced, where there is no GPU.

    TensorFlow's graph optimizer takes a third of a deep net's first step there, and its rewrites make no later step faster
    (docs/performance.md). On a GPU it chooses layouts, and the function is called as any other. The option goes with each
    call. TensorFlow's global option changes only while the function is traced, from which the functions inside take it.
    """

    def __init__(self, function: Any) -> None:
        self._function = function
        self._call: Callable[..., Any] | None = None

    def __call__(self, *args: tf.Tensor) -> None:
        """Call the function, for what it assigns."""
        if self._call is None:  # tracing waits for the first call
            self._call = (
                self._function if tf.config.list_logical_devices("GPU") else self._unoptimized()
            )
        self._call(*args)

    def _unoptimized(self) -> Callable[..., Any]:
        before = tf.config.optimizer.get_experimental_options()[OPTIMIZER_OFF]
        tf.config.optimizer.set_experimental_options({OPTIMIZER_OFF: True})
        try:
            traced = self._function.get_concrete_function()
        finally:
            tf.config.optimizer.set_experimental_options({OPTIMIZER_OFF: before})
        options = tf.compat.v1.ConfigProto(allow_soft_placement=True)
        options.graph_options.rewrite_options.disable_meta_optimizer = True
        settings = {"config": "", "config_proto": options.SerializeToString(), "executor_type": ""}
        captured = traced.captured_inputs
        return lambda *args: tf.raw_ops.StatefulPartitionedCall(
            args=[*args, *captured], Tout=[], f=traced, **settings
        )


def rate_shares(model: keras.Model, stage_decay: float) -> dict[int, float]:
    """Return by a variable's id what share of the schedule's rate it learns at: 1 at the top, less by each place below.

    Nothing, which is 1 for all, when stage_decay is 1. Raises ReszooError for a net without places.
    """
    if stage_decay == 1:
        return {}
    placed = layers_by_place(model)
    top = len(placed) - 1
    return {
        id(variable): stage_decay ** (top - height)
        for height, layers in enumerate(placed.values())
        for layer in layers
        for variable in layer.variables
    }


def _moving(layer: Any) -> Iterator[Any]:
    """Give the statistics that training moves, of a layer or of all layers of a model; those of frozen layers stand still."""
    if not layer.trainable:
        return
    if inner := getattr(layer, "layers", ()):
        for each in inner:
            yield from _moving(each)
    else:
        yield from (
            variable for variable in layer.non_trainable_variables if variable.path.endswith(MOVING)
        )
