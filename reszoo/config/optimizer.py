"""The table [optimizer]: the update rule and the weight decay."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field

from reszoo.validation.table import Table

Decay = Annotated[float, Field(ge=0, lt=1)]
Momentum = Annotated[Decay, Field(description="Momentum, as in Keras.")]
Epsilon = Annotated[float, Field(gt=0, description="Added to the denominator, as in Keras.")]


class Optimizer(Table):
    """What all optimizers share. The subclasses are Keras' optimizers by name."""

    TABLE: ClassVar[str] = "optimizer"
    CHOICE: ClassVar[str] = "name"
    DEFAULT: ClassVar[str | None] = "sgd"

    weight_decay: float = Field(0.0, ge=0, description="Coefficient of the weight decay.")
    decay: Literal["coupled", "decoupled"] = Field(
        "coupled",
        description="`coupled` adds weight_decay * w to the gradient (L2, as in the papers). "
        "`decoupled` subtracts rate * weight_decay * w from the weight.",
    )
    decay_norms: bool = Field(
        True,
        description="Decay scales and biases of batch norm and ReZero's scalars too, as in the "
        "papers.",
    )


class SGD(Optimizer):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"] = "sgd"
    momentum: Momentum = 0.9
    nesterov: bool = Field(False, description="Nesterov momentum, as in Keras.")

    def check(self) -> None:
        """Raise ReszooError for Nesterov momentum without momentum."""
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
        if self.weight_decay and self.decay == "coupled":
            expected = '"decoupled" with optimizer.name = "adamw"'
            raise self.contradiction("decay", expected, "decoupled")


class Lamb(_Adaptive):
    """Adam with a trust ratio per layer (arXiv 1904.00962)."""

    name: Literal["lamb"] = "lamb"


OptimizerConfig: TypeAlias = SGD | RMSprop | Adam | AdamW | Lamb
