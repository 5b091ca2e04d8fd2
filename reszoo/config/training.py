"""The tables [train] and [finetune]: length, batches and precision, and which part of the model learns."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from reszoo.errors import ReszooError, did_you_mean
from reszoo.validation.messages import contradiction
from reszoo.validation.table import Table

Fraction = Annotated[float, Field(ge=0, lt=1)]


class TrainConfig(Table):
    """How long, in which batches and in which precision a model is trained, and what is kept."""

    TABLE: ClassVar[str] = "train"

    batch_size: int = Field(
        ge=1, examples=[128], description="Images per update, over all replicas and micro-batches."
    )
    steps: int = Field(0, ge=0, description="Length in updates of the weights; or give epochs.")
    epochs: float = Field(0.0, ge=0, examples=[20], description="Length in epochs; or give steps.")
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of weights, order and augmentation.")
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = Field(
        "float32", description="Dtype policy of Keras; the classifier is float32 in each."
    )
    batch_norm: Literal["local", "sync"] = Field(
        "local",
        description="Batch norm statistics of each replica (local, as in the papers) or of all replicas (sync).",
    )
    accumulate: int = Field(
        1, ge=1, description="Micro-batches into which a batch is divided, to save memory."
    )
    clip_norm: float = Field(
        0.0, ge=0, description="Largest norm of the whole gradient; 0 for no limit."
    )
    ema: Fraction = Field(
        0.0,
        description="Decay per step of the averaged weights that are evaluated and exported; 0 for none.",
    )
    label_smoothing: Fraction = Field(
        0.0,
        description="Share of the target spread over all classes (arXiv 1512.00567, section 7).",
    )
    evaluate_every: int = Field(1, ge=1, description="Epochs between evaluations.")
    checkpoint_every: int = Field(
        0, ge=0, description="Steps between checkpoints; 0 for the end of each epoch."
    )
    select: Literal["last", "best"] = Field(
        "last",
        description="Weights with which the run ends: the last, or those with the best top-1 validation accuracy.",
    )
    deterministic: bool = Field(
        False, description="Run only operations that repeat to the bit, at some cost in speed."
    )
    jit: bool = Field(
        False,
        description="Compile forward pass, loss and gradients of a replica with XLA; not with batch_norm sync, "
        "dropout or drop_path.",
    )
    export: bool = Field(True, description="Write a SavedModel into the run folder.")
    grow_from: str = Field(
        "",
        description="Folder of a finished run of a shallower model of the same family, whose weights and optimizer "
        "slots training starts from (reszoo.grow); empty for new weights.",
    )

    def check(self) -> None:
        """Raise ReszooError for keys that contradict each other."""
        if self.accumulate > self.batch_size:
            raise contradiction(
                "train.accumulate",
                self.accumulate,
                f"at most train.batch_size = {self.batch_size}",
                "train.accumulate=1",
            )
        if self.jit and self.batch_norm == "sync":
            raise contradiction(
                "train.jit",
                True,
                'false with train.batch_norm = "sync", because XLA compiles each replica alone',
                "train.jit=false",
            )
        if bool(self.steps) == bool(self.epochs):
            raise ReszooError(
                f"train.steps: {self.steps} with train.epochs = {self.epochs:g} is invalid; expected exactly one of them > 0. "
                "Example: --set train.epochs=20"
            )


PLACES = ("none", "stem", "stage1", "stage2", "stage3", "stage4", "all")


class FinetuneConfig(Table):
    """Which part of a model learns, from when on and how fast. The defaults train all of it alike."""

    TABLE: ClassVar[str] = "finetune"

    freeze: str = Field(
        "none",
        examples=["stage2"],
        description='Last frozen place: "stem", "stage1", ..., or "all" for everything but the classifier. '
        "It and all places before it keep their weights for the whole run.",
    )
    batch_norm: Literal["eval", "train"] = Field(
        "eval",
        description="Frozen batch norms keep their statistics, scales and offsets (eval) or learn them (train).",
    )
    probe_epochs: float = Field(
        0.0,
        ge=0,
        examples=[1],
        description="Epochs at the start in which only the classifier learns (a linear probe). Then the optimizer "
        "starts anew, and everything above freeze learns.",
    )
    stage_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Factor of the learning rate from each stage to the one below (arXiv 1801.06146, section 3.2).",
    )

    def check(self) -> None:
        """Raise ReszooError for an unknown place, and for keys that have no effect."""
        if not re.fullmatch(r"none|stem|stage[1-9]\d*|all", self.freeze):
            near = did_you_mean(self.freeze, PLACES) or "."
            raise ReszooError(
                f'finetune.freeze: "{self.freeze}" is invalid; expected "none", "stem", a stage such as "stage2", '
                f'or "all"{near} Example: --set finetune.freeze=stage2'
            )
        for key in unused_with_freeze(self.freeze):
            if key != "batch_norm" and self.batch_norm == "train":
                continue  # frozen batch norms still learn
            self._reject_unused(key)

    def reject_alone(self) -> None:
        """Raise ReszooError for a key that has no effect where only the classifier learns."""
        if self.batch_norm == "eval":
            for key in ("probe_epochs", "stage_decay"):
                self._reject_unused(key)

    def _reject_unused(self, key: str) -> None:
        if getattr(self, key) != type(self).model_fields[key].default:
            raise ReszooError(
                f'finetune.{key}: not used with finetune.freeze = "{self.freeze}"; remove finetune.{key}, '
                "or change finetune.freeze"
            )


def unused_with_freeze(freeze: str) -> tuple[str, ...]:
    """Return the keys of [finetune] that have no effect with a value of `freeze`."""
    return {"none": ("batch_norm",), "all": ("probe_epochs", "stage_decay")}.get(freeze, ())
