"""The sums over all replicas in a step: of gradients, and of moving statistics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import keras

from reszoo.lazy import tf
from reszoo.types import Tensor, Variable

STATISTICS = ("moving_mean", "moving_variance")


def find_statistics(layer: keras.layers.Layer) -> Iterator[Variable]:
    """Yield the moving statistics that training changes; those of frozen layers do not change."""
    if not layer.trainable:
        return
    if inner := getattr(layer, "layers", ()):
        for each in inner:
            yield from find_statistics(each)
    else:
        yield from (
            each for each in layer.non_trainable_variables if each.path.endswith(STATISTICS)
        )


def reduce_sums(
    context: tf.distribute.ReplicaContext,
    gradients: Sequence[Tensor],
    statistics: Sequence[Variable],
    dtype: str = "float32",
) -> list[Tensor]:
    """Return the gradients added up over the replicas, and set the statistics to their means.

    All values of a dtype are reduced together, because a collective takes over a millisecond.

    Args:
        context: The context of the replica.
        gradients: The gradients of this replica's share of the batch.
        statistics: The moving statistics; none where the model computes as in inference.
        dtype: In which the gradients are added up: "bfloat16" or, for their own, "float32".
    """
    own = [gradient.dtype for gradient in gradients]
    if dtype == "bfloat16":
        gradients = [tf.cast(gradient, tf.bfloat16) for gradient in gradients]
    values = [*gradients, *(tf.identity(variable.value) for variable in statistics)]
    sums: list[Tensor] = list(values)
    for each in dict.fromkeys(value.dtype for value in values):
        same = [index for index, value in enumerate(values) if value.dtype == each]
        found = context.all_reduce(tf.distribute.ReduceOp.SUM, [values[at] for at in same])
        for index, total in zip(same, found, strict=True):
            sums[index] = total
    for variable, total in zip(statistics, sums[len(gradients) :], strict=True):
        variable.value.assign(total / context.num_replicas_in_sync)
    return [tf.cast(total, each) for total, each in zip(sums, own, strict=False)]
