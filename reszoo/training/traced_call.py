"""Call a traced function without TensorFlow's graph optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reszoo.lazy import tf
from reszoo.types import Tensor

OPTIMIZER_OFF = "disable_meta_optimizer"


class TracedCall:
    """Calls a `tf.function` of one signature; without a GPU, as it was traced.

    On the CPU, TensorFlow's graph optimizer takes a third of a deep model's first step, and makes
    no later step faster (docs/performance.md). On a GPU it chooses layouts, so it stays on.
    TensorFlow's global option changes only while the function is traced; the functions inside it
    take the option from there.

    Args:
        function: A `tf.function` with an input signature.

    Attributes:
        function: As given.
    """

    def __init__(self, function: Any) -> None:
        self.function = function
        self._call: Callable[..., object] | None = None

    def __call__(self, *args: Tensor) -> None:
        """Call the function, for what it assigns. The first call traces it."""
        if self._call is None:
            on_gpu = tf.config.list_logical_devices("GPU")
            self._call = self.function if on_gpu else self._unoptimized()
        self._call(*args)

    def _unoptimized(self) -> Callable[..., object]:
        before = tf.config.optimizer.get_experimental_options()[OPTIMIZER_OFF]
        tf.config.optimizer.set_experimental_options({OPTIMIZER_OFF: True})
        try:
            traced = self.function.get_concrete_function()
        finally:
            tf.config.optimizer.set_experimental_options({OPTIMIZER_OFF: before})
        options = tf.compat.v1.ConfigProto(allow_soft_placement=True)
        options.graph_options.rewrite_options.disable_meta_optimizer = True
        settings = {"config": "", "config_proto": options.SerializeToString(), "executor_type": ""}
        captured = traced.captured_inputs
        # On several hosts some inputs are made for each call: the keys of its collectives.
        again = zip(captured, traced.captured_inputs, strict=True)
        fixed = all(one is other for one, other in again)

        def call(*args: Tensor) -> object:
            inputs = captured if fixed else traced.captured_inputs
            return tf.raw_ops.StatefulPartitionedCall(
                args=[*args, *inputs], Tout=[], f=traced, **settings
            )

        return call
