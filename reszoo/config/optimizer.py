"""The table [optimizer]: the update rule and the weight decay."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field

from reszoo.validation.table import AS_TUPLE, Reference, Table

Decay = Annotated[float, Field(ge=0, lt=1)]
Momentum = Annotated[Decay, Field(description="Momentum, as in Keras.")]
Epsilon = Annotated[float, Field(gt=0, description="Added to the denominator, as in Keras.")]


class Optimizer(Table):
    """What all optimizers share. The subclasses are Keras' optimizers by name."""

    TABLE: ClassVar[str] = "optimizer"
    CHOICE: ClassVar[str] = "name"
    DEFAULT: ClassVar[str | None] = "sgd"

    weight_decay: float = Field(0.0, ge=0, description="Coefficient of the weight decay.")
    decay: Literal["coupled", "decoupled", "update"] = Field(
        "coupled",
        description="`coupled` adds weight_decay * w to the gradient (L2, as in the papers). "
        "`decoupled` subtracts rate * weight_decay * w from the weight. `update` adds "
        "weight_decay * w to LAMB's update before its trust ratio (arXiv 1904.00962, algorithm 2); "
        "weights that do not decay have a ratio of 1, as in timm.",
    )
    decay_norms: bool = Field(
        True,
        description="Decay scales and biases of batch norm and ReZero's scalars too, as in the "
        "papers.",
    )
    no_decay: Annotated[tuple[str, ...], AS_TUPLE] = Field(
        (),
        examples=[["*/gamma", "*/beta"]],
        description="Patterns of the paths of weights that do not decay, such as `*/gamma`, "
        "`*/beta`, `*/bias` or `head_*`.",
    )

    sam_radius: float = Field(
        0.0,
        ge=0,
        examples=[0.05],
        description="Sharpness-aware minimization (arXiv 2010.01412): the gradient is computed "
        "after a move of this length up the gradient of the whole batch. 0: none. It doubles the "
        "time of a step.",
    )
    sam_interval: int = Field(
        1, ge=1, examples=[10], description="Every how many steps `sam_radius` applies."
    )

    def sam_radius_at(self, step: int) -> float:
        """Return the radius of sharpness-aware minimization in a step, numbered from 0."""
        return 0.0 if step % self.sam_interval else self.sam_radius

    def check(self) -> None:
        """Raise ReszooError for a decay that only LAMB has, and for an interval without effect."""
        if not self.sam_radius:
            self.reject_unused("sam_interval", "sam_radius")
        if self.decay == "update" and not isinstance(self, Lamb):
            expected = '"coupled" or "decoupled" without optimizer.name = "lamb"'
            raise self.contradiction("decay", expected, "decoupled")


class SGD(Optimizer):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"] = "sgd"
    momentum: Momentum = 0.9
    nesterov: bool = Field(False, description="Nesterov momentum, as in Keras.")
    velocity: Literal["updates", "gradients"] = Field(
        "updates",
        description="What momentum adds up: updates, each with the learning rate of its step "
        "(Keras, Caffe), or gradients, whose sum takes the present learning rate (PyTorch, optax).",
    )

    def check(self) -> None:
        """Raise ReszooError for keys that need momentum."""
        super().check()
        if not self.momentum:
            self.reject_unused("velocity", "momentum")
        if self.nesterov and not self.momentum:
            expected = "optimizer.momentum > 0 with it"
            raise self.contradiction("nesterov", expected, "optimizer.momentum=0.9")


class RMSprop(Optimizer):
    """Gradients divided by a running root mean square."""

    name: Literal["rmsprop"] = "rmsprop"
    momentum: Momentum = 0.9
    epsilon: Epsilon = 1e-7


class _Adaptive(Optimizer):
    beta1: Decay = Field(0.9, description="Decay of the first moment, as beta_1 in Keras.")
    beta2: Decay = Field(0.999, description="Decay of the second moment, as beta_2 in Keras.")
    epsilon: Epsilon = 1e-7


class Adam(_Adaptive):
    """Adaptive moments (arXiv 1412.6980)."""

    name: Literal["adam"] = "adam"


class AdamW(_Adaptive):
    """Adam with decoupled weight decay (arXiv 1711.05101)."""

    name: Literal["adamw"] = "adamw"

    def check(self) -> None:
        """Raise ReszooError for coupled decay, which would make it Adam."""
        super().check()
        if self.weight_decay and self.decay == "coupled":
            expected = '"decoupled" with optimizer.name = "adamw"'
            raise self.contradiction("decay", expected, "decoupled")


class Lamb(_Adaptive):
    """Adam with a trust ratio per layer (arXiv 1904.00962)."""

    name: Literal["lamb"] = "lamb"


class CustomOptimizer(Optimizer):
    """Your own: a function of `learning_rate` that returns a Keras optimizer, or its class."""

    name: Reference


OptimizerConfig: TypeAlias = SGD | RMSprop | Adam | AdamW | Lamb | CustomOptimizer
