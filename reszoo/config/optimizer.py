"""The table [optimizer]: the update rule and the weight decay."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field

from reszoo.validation.messages import contradiction
from reszoo.validation.table import Table

Decay = Annotated[float, Field(ge=0, lt=1)]
Epsilon = Annotated[float, Field(gt=0)]


class Optimizer(Table):
    """What all optimizers share. The subclasses are Keras' optimizers by name."""

    TABLE: ClassVar[str] = "optimizer"
    CHOICE: ClassVar[str] = "name"
    DEFAULT: ClassVar[str | None] = "sgd"

    weight_decay: float = Field(0.0, ge=0, description="Coefficient of the weight decay.")
    decay: Literal["coupled", "decoupled"] = Field(
        "coupled",
        description="coupled adds weight_decay * w to the gradient (L2, as in the papers); decoupled subtracts "
        "rate * weight_decay * w from the weight itself.",
    )
    decay_norms: bool = Field(
        True, description="Decay scales and biases of batch normalization too, as in the papers."
    )


class SGD(Optimizer):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"] = Field("sgd", description="One of Keras' optimizers.")
    momentum: Decay = Field(0.9, description="Momentum, as in Keras.")
    nesterov: bool = Field(False, description="Nesterov momentum, as in Keras.")

    def check(self) -> None:
        """Raise ReszooError for Nesterov momentum without momentum."""
        if self.nesterov and not self.momentum:
            raise contradiction(
                "optimizer.nesterov",
                True,
                "optimizer.momentum > 0 with it",
                "optimizer.momentum=0.9",
            )


class RMSprop(Optimizer):
    """RMSprop."""

    name: Literal["rmsprop"] = Field("rmsprop", description="One of Keras' optimizers.")
    momentum: Decay = Field(0.9, description="Momentum, as in Keras.")
    epsilon: Epsilon = Field(1e-7, description="Added to the denominator, as in Keras.")


class _Adaptive(Optimizer):
    beta1: Decay = Field(0.9, description="Decay of the first moment, as beta_1 in Keras.")
    beta2: Decay = Field(0.999, description="Decay of the second moment, as beta_2 in Keras.")
    epsilon: Epsilon = Field(1e-7, description="Added to the denominator, as in Keras.")


class Adam(_Adaptive):
    """Adam (arXiv 1412.6980)."""

    name: Literal["adam"] = Field("adam", description="One of Keras' optimizers.")


class AdamW(_Adaptive):
    """Adam with decoupled weight decay (arXiv 1711.05101)."""

    name: Literal["adamw"] = Field("adamw", description="One of Keras' optimizers.")

    def check(self) -> None:
        """Raise ReszooError for coupled decay, which would make it Adam."""
        if self.weight_decay and self.decay == "coupled":
            raise contradiction(
                "optimizer.decay",
                "coupled",
                '"decoupled" with optimizer.name = "adamw"',
                "optimizer.decay=decoupled",
            )


class Lamb(_Adaptive):
    """LAMB (arXiv 1904.00962)."""

    name: Literal["lamb"] = Field("lamb", description="One of Keras' optimizers.")


OptimizerConfig: TypeAlias = SGD | RMSprop | Adam | AdamW | Lamb
