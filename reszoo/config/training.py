"""The tables [train] and [finetune]: length, batches and precision, and which layers learn."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from reszoo.validation.table import Reference, References, Table

Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]


class TrainConfig(Table):
    """How long, in which batches and in which precision a model is trained, and what is kept."""

    TABLE: ClassVar[str] = "train"

    batch_size: int = Field(
        ge=1, examples=[128], description="Images per update, over all replicas and micro-batches."
    )
    steps: int = Field(
        0,
        ge=0,
        description="Length in updates of the weights. Give exactly one of steps and epochs.",
    )
    epochs: float = Field(
        0.0, ge=0, examples=[20], description="Length in epochs, rounded to whole steps."
    )
    seed: int = Field(
        0, ge=0, lt=2**31, description="Seed of initial weights, order of images and augmentation."
    )
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = Field(
        "float32",
        description="Keras' dtype policy. Global pooling and classifier compute in float32 in "
        "each.",
    )
    batch_norm: Literal["local", "sync"] = Field(
        "local",
        description="Batch norm statistics of each replica (`local`, as in the papers) or of the "
        "whole batch (`sync`).",
    )
    reduction: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="Dtype in which the gradients of several replicas are added up. `bfloat16` "
        "halves what slow links between hosts carry, and rounds.",
    )
    accumulate: int = Field(
        1,
        ge=1,
        description="Number of micro-batches per batch, to save memory. Batch norm statistics are "
        "those of a micro-batch.",
    )
    clip_norm: float = Field(
        0.0, ge=0, description="Largest norm of the whole gradient. 0: no limit."
    )
    clip_value: float = Field(
        0.0, ge=0, description="Largest magnitude of each number of the gradient. 0: no limit."
    )
    clip_adaptive: float = Field(
        0.0,
        ge=0,
        examples=[0.01],
        description="Largest norm of a filter's gradient as a share of the filter's norm, except "
        "of the classifier (adaptive clipping, arXiv 2102.06171, section 4.1). 0: no limit.",
    )
    ema: Fraction = Field(
        0.0,
        description="Decay per step of averaged weights, which are then evaluated, saved and "
        "exported. 0: none.",
    )
    ema_batch_norm: bool = Field(
        False,
        description="Average batch norm statistics like weights, as in torchvision and timm. By "
        "default the present ones are used.",
    )
    ema_every: int = Field(
        1, ge=1, description="Steps of an epoch between updates of the averages; the first has one."
    )
    ema_start: float | None = Field(
        None,
        ge=0,
        examples=[5.0],
        description="Epochs at whose end averaging starts. Until then, and at the first step after "
        "them, each update copies the weights. By default averages start at the initial weights.",
    )
    ema_warmup: float = Field(
        0.0,
        ge=0,
        le=1,
        examples=[0.6667],
        description="Power p of a smaller decay at the start: 1 - (1 + t)^-p at step t of "
        "averaging, as in timm. 0: the decay is constant.",
    )
    label_smoothing: Fraction = Field(
        0.0,
        description="Share of the target that is spread over all classes (arXiv 1512.00567, "
        "section 7). With `bce`, half of it is the target of an absent class.",
    )
    loss: Literal["categorical", "binary", "binary_sum", "bce"] | Reference = Field(
        "categorical",
        description="Cross-entropy of the softmax, or of one sigmoid per class: the mean over the "
        "classes (`binary`, arXiv 2110.00476, section 3.1) or their sum. Evaluation reports the "
        "categorical one. `bce`: the mean over the classes for images with [several "
        "labels](data.md#several-labels-per-image); evaluation reports it. Or your own function "
        "of targets and logits, [n, classes], that returns one loss per image, [n], or a class of "
        "`keras.losses`.",
    )
    class_weights: Literal["none", "balanced"] | dict[str, Positive] = Field(
        "none",
        examples=["balanced"],
        description="Factors on the losses of the images of each class. `balanced`: images / "
        "(classes x images of the class), as in scikit-learn. Or a table of class names; the "
        "others count 1. An image with a soft target has the mean of its classes' weights. With "
        "`bce`: factors on the losses of images that have the class; `balanced`: images without "
        "the class / images with it.",
    )
    target_threshold: Fraction = Field(
        0.0,
        examples=[0.2],
        description="`binary`: targets above it become 1, all others 0. 0: targets stay as they "
        "are.",
    )
    evaluate_every: int = Field(
        1, ge=1, description="Epochs between evaluations. The last step is always evaluated."
    )
    checkpoint_every: int = Field(
        0, ge=0, description="Steps between checkpoints. 0: at the end of each epoch."
    )
    select: Literal["last", "best"] = Field(
        "last",
        description="Final weights of the run: the last ones, or those of the best validation "
        "accuracy; of the best mean average precision if an image may have several classes.",
    )
    patience: int = Field(
        0,
        ge=0,
        examples=[10],
        description="Evaluations without a better validation score after which training ends. 0: "
        "it never ends early.",
    )
    patience_on: Literal["accuracy", "loss"] = Field(
        "accuracy", description="The validation score that `patience` compares."
    )
    checkpoint_gradients: bool = Field(
        False,
        description="Keep only the input of each block for the backward pass, which computes the "
        "block again: less memory, more time, and the same gradients. Not with `jit`, nor "
        "`batch_norm` `sync`.",
    )
    deterministic: bool = Field(
        False, description="Use only operations that repeat to the bit, at some cost in speed."
    )
    jit: bool = Field(
        False,
        description="Compile forward pass, loss and gradients of each replica with XLA. Not with "
        "`batch_norm` `sync`, dropout or drop_path.",
    )
    worker_timeout: int = Field(
        600,
        ge=1,
        description="On several hosts: seconds of a step after which a worker that stands still "
        "counts as lost; ten times as long for a first step.",
    )
    callbacks: References = Field(
        (),
        examples=[["mine:callback"]],
        description="Your own functions, of `run_dir` or without arguments, that return a Keras "
        "callback, or its class.",
    )
    export: bool = Field(True, description="Write a SavedModel into the run folder.")
    grow_from: str = Field(
        "",
        description="Folder of a finished run of a shallower model of the same family. Training "
        "starts from its weights and optimizer slots; new blocks start as the identity.",
    )

    def check(self) -> None:
        """Raise ReszooError for keys that contradict each other."""
        if self.accumulate > self.batch_size:
            expected = f"at most train.batch_size = {self.batch_size}"
            raise self.contradiction("accumulate", expected, 1)
        if self.jit and self.batch_norm == "sync":
            expected = (
                'false with train.batch_norm = "sync", because XLA compiles each replica alone'
            )
            raise self.contradiction("jit", expected, False)
        for key, used in (("jit", self.jit), ('batch_norm = "sync"', self.batch_norm == "sync")):
            if self.checkpoint_gradients and used:
                expected = f"false with train.{key}, whose blocks cannot be computed twice"
                raise self.contradiction("checkpoint_gradients", expected, False)
        if not self.patience:
            self.reject_unused("patience_on", "patience")
        limits = [key for key in ("clip_norm", "clip_value", "clip_adaptive") if getattr(self, key)]
        if len(limits) > 1:
            expected = f"0 with train.{limits[0]} = {getattr(self, limits[0]):g}; give one of them"
            raise self.contradiction(limits[1], expected, 0)
        if not self.ema:
            for key in ("ema_batch_norm", "ema_every", "ema_start", "ema_warmup"):
                self.reject_unused(key, "ema")
        if not self.loss.startswith("binary"):
            self.reject_unused("target_threshold", "loss")
        if bool(self.steps) == bool(self.epochs):
            expected = f"exactly one > 0 of train.steps and train.epochs = {self.epochs:g}"
            raise self.contradiction("steps", expected, "train.epochs=20")

    def ema_share(self, step: int, steps_per_epoch: int) -> float:
        """Return the share of an update's weights in their averages: 1 to copy, 0 for no update.

        Args:
            step: Number of the update, from 0.
            steps_per_epoch: Updates in one epoch.
        """
        if step % steps_per_epoch % self.ema_every:
            return 0.0
        start = -1 if self.ema_start is None else round(self.ema_start * steps_per_epoch)
        count = max(0, step - start)
        warming = (1 + count) ** -self.ema_warmup if self.ema_warmup or not count else 0.0
        return max(1 - self.ema, warming)


class FinetuneConfig(Table):
    """Which layers of a model learn, from when on and how fast. By default all learn alike."""

    TABLE: ClassVar[str] = "finetune"

    freeze: str = Field(
        "none",
        pattern=r"^(none|stem|stage[1-9]\d*|all)$",
        examples=["stage2"],
        description='Last frozen layer group: `"none"`, `"stem"`, `"stage1"`, ..., or `"all"` for '
        "everything but "
        "the classifier. It and all groups before it keep their weights for the whole run.",
    )
    batch_norm: Literal["eval", "train"] = Field(
        "eval",
        description="Frozen batch norms keep their statistics, scales and offsets (`eval`) or "
        "learn them (`train`).",
    )
    probe_epochs: float = Field(
        0.0,
        ge=0,
        examples=[1],
        description="Epochs at the start in which only the classifier learns (a linear probe). "
        "Then the optimizer starts anew, and every layer above `freeze` learns.",
    )
    stage_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Factor of the learning rate from each stage to the one below (arXiv "
        "1801.06146, section 3.2).",
    )
    block_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Factor of the learning rate from each residual block to the one below, from "
        "the classifier to the stem, as timm's `--layer-decay`. Instead of stage_decay.",
    )

    def check(self) -> None:
        """Raise ReszooError for keys that have no effect."""
        for key in unused_with_freeze(self.freeze):
            if key == "batch_norm" or self.batch_norm == "eval":  # else frozen batch norms learn
                self.reject_unused(key, "freeze")
        if self.block_decay != 1 and self.stage_decay != 1:
            expected = f"1 with finetune.stage_decay = {self.stage_decay:g}; give one of them"
            raise self.contradiction("block_decay", expected, "finetune.stage_decay=1")

    def reject_alone(self) -> None:
        """Raise ReszooError for a key that has no effect where only the classifier learns."""
        if self.batch_norm == "eval":
            for key in unused_with_freeze("all"):
                self.reject_unused(key, "freeze")


def unused_with_freeze(freeze: str) -> tuple[str, ...]:
    """Return the keys of [finetune] that have no effect with a value of `freeze`."""
    return {"none": ("batch_norm",), "all": ("probe_epochs", "stage_decay", "block_decay")}.get(
        freeze, ()
    )
