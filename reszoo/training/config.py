"""What a recipe says of training: its length, its optimizer, its learning rate and what stays frozen. Standard library only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from reszoo.errors import ReszooError, did_you_mean
from reszoo.training.fields import Checked


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Checked):
    """How long, in which batches and precision a net is trained, and what is kept.

    steps, epochs: the length, exactly one of them above 0; a step is one update of the weights.
    batch_size: images of one update, over all replicas and accumulated pieces.
    seed: of weights, order and augmentation.
    precision: Keras' dtype policy; the head stays float32 in each.
    batch_norm: statistics per replica ("local", as the papers) or over all replicas ("sync").
    accumulate: pieces in which a batch goes through the net, for memory.
    clip_norm: largest norm of the whole gradient, 0 for no limit.
    ema: decay per step of the averaged weights that are evaluated and exported, 0 for none.
    label_smoothing: share of the target spread over all classes (arXiv 1512.00567, section 7).
    evaluate_every: epochs between evaluations. checkpoint_every: steps between checkpoints, 0 for each epoch's end.
    select: which weights the run ends with: the "last", or the "best" by top-1 accuracy on the validation images.
    deterministic: run only operations that repeat to the bit, at some cost in speed.
    jit: compile forward pass, loss and gradients of a replica with XLA; not with batch_norm "sync", dropout or drop_path.
    export: leave a SavedModel in the run folder.
    grow_from: folder of a finished run of a shallower net of the same family; training starts from its weights, its
        optimizer's slots, and new blocks that are the identity (`reszoo.grow`). Empty: from fresh weights.
    """

    TABLE = "train"

    batch_size: int
    steps: int = 0
    epochs: float = 0.0
    seed: int = 0
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    batch_norm: Literal["local", "sync"] = "local"
    accumulate: int = 1
    clip_norm: float = 0.0
    ema: float = 0.0
    label_smoothing: float = 0.0
    evaluate_every: int = 1
    checkpoint_every: int = 0
    select: Literal["last", "best"] = "last"
    deterministic: bool = False
    jit: bool = False
    export: bool = True
    grow_from: str = ""

    def check(self) -> None:
        for name in ("batch_size", "accumulate", "evaluate_every"):
            self.refuse_unless(getattr(self, name) >= 1, name, "at least 1")
        for name in ("steps", "epochs", "clip_norm", "checkpoint_every"):
            self.refuse_unless(getattr(self, name) >= 0, name, "at least 0")
        for name in ("ema", "label_smoothing"):
            self.refuse_unless(0 <= getattr(self, name) < 1, name, "at least 0 and below 1")
        self.refuse_unless(0 <= self.seed < 2**31, "seed", "from 0 to 2147483647")
        self.refuse_unless(
            self.accumulate <= self.batch_size, "accumulate", f"at most train.batch_size ({self.batch_size})"
        )
        if self.jit and self.batch_norm == "sync":
            raise ReszooError(
                'train.jit: true is invalid; expected false with train.batch_norm = "sync", because XLA compiles one replica '
                "alone. Example: --set train.jit=false"
            )
        if bool(self.steps) == bool(self.epochs):
            both = f"train.steps is {self.steps} and train.epochs is {self.epochs:g}"
            raise ReszooError(f"{both}, but exactly one of them must be above 0")


OPTIMIZER_FIELDS = {
    "momentum": ("sgd", "rmsprop"),
    "nesterov": ("sgd",),
    "beta1": ("adam", "adamw", "lamb"),
    "beta2": ("adam", "adamw", "lamb"),
    "epsilon": ("adam", "adamw", "lamb", "rmsprop"),
}


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Checked):
    """The update rule and the decay of the weights.

    name: one of Keras' optimizers. momentum, nesterov, beta1, beta2, epsilon: as Keras names them; one that the
        optimizer has not must be left out.
    weight_decay, decay: "coupled" adds weight_decay * w to the gradient (the papers' L2); "decoupled" takes
        rate * weight_decay * w off the weight itself, which is what "adamw" stands for.
    decay_norms: decay normalisation scales and biases too, as the papers do.
    """

    TABLE = "optimizer"

    name: Literal["sgd", "adam", "adamw", "lamb", "rmsprop"] = "sgd"
    momentum: float = 0.9
    nesterov: bool = False
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-7
    weight_decay: float = 0.0
    decay: Literal["coupled", "decoupled"] = "coupled"
    decay_norms: bool = True

    def check(self) -> None:
        for name in ("momentum", "beta1", "beta2"):
            self.refuse_unless(0 <= getattr(self, name) < 1, name, "at least 0 and below 1")
        self.refuse_unless(self.epsilon > 0, "epsilon", "above 0")
        self.refuse_unless(self.weight_decay >= 0, "weight_decay", "at least 0")
        self.refuse_idle(OPTIMIZER_FIELDS, "name")
        if self.nesterov and not self.momentum:
            raise ReszooError("optimizer.nesterov is true, but optimizer.momentum is 0: give a momentum such as 0.9")
        if self.name == "adamw" and self.weight_decay and self.decay == "coupled":
            raise ReszooError('optimizer.name "adamw" decays decoupled: give decay = "decoupled", or name = "adam"')


SCHEDULE_FIELDS = {
    "boundaries": ("step",),
    "factor": ("step", "plateau"),
    "patience": ("plateau",),
    "peak": ("triangular",),
    "final_rate": ("cosine", "triangular"),
    "warmup": ("step", "cosine", "constant", "plateau"),
    "warmup_rate": ("step", "cosine", "constant", "plateau"),
}


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig(Checked):
    """The learning rate of each step; `reszoo.training.schedule.rate` computes it.

    kind: "step" (times `factor` at each boundary), "cosine", "triangular", "constant" or "plateau" (times `factor`
        after `patience` evaluations without a better accuracy).
    rate: the highest rate. rate_batch: the batch that `rate`, `warmup_rate` and `final_rate` are stated for; they are
        scaled by batch_size / rate_batch, or stand as they are with 0.
    unit: of `boundaries` and `warmup`, "steps" or "epochs".
    warmup: how long the rate starts lower: at `warmup_rate` throughout, or climbing in a line from 0 when that is left out.
    final_rate: where a cosine or triangle ends. peak: the share of training at which a triangle is at the top.
    """

    TABLE = "schedule"

    kind: Literal["step", "cosine", "triangular", "constant", "plateau"]
    rate: float
    rate_batch: int = 0
    unit: Literal["steps", "epochs"] = "steps"
    boundaries: tuple[float, ...] = ()
    factor: float = 0.1
    warmup: float = 0.0
    warmup_rate: float | None = None
    final_rate: float = 0.0
    peak: float = 0.25
    patience: int = 0

    def check(self) -> None:
        self.refuse_idle(SCHEDULE_FIELDS, "kind")
        self.refuse_unless(self.rate > 0, "rate", "above 0")
        self.refuse_unless(self.rate_batch >= 0, "rate_batch", "at least 0")
        self.refuse_unless(self.warmup >= 0, "warmup", "at least 0")
        self.refuse_unless(0 < self.factor < 1, "factor", "above 0 and below 1")
        self.refuse_unless(0 < self.peak < 1, "peak", "above 0 and below 1")
        self.refuse_unless(0 <= self.final_rate < self.rate, "final_rate", f"at least 0 and below rate ({self.rate:g})")
        if self.kind == "plateau":
            self.refuse_unless(self.patience >= 1, "patience", "at least 1 evaluation")
        if self.kind == "step" and not self.boundaries:
            raise ReszooError('schedule.boundaries is empty: kind "step" needs some, such as [32000, 48000]')
        ends = (self.warmup, *self.boundaries)
        if any(after <= before for before, after in zip(ends, ends[1:], strict=False)):
            raise ReszooError(
                f"schedule.boundaries is {list(self.boundaries)}, but must rise, all of them after the warm-up ({self.warmup:g})"
            )
        if self.warmup_rate is not None:
            self.refuse_unless(self.warmup_rate > 0, "warmup_rate", "above 0")
            if not self.warmup:
                raise ReszooError("schedule.warmup_rate does nothing while schedule.warmup is 0: give both, or neither")


# Under which places frozen each acts; where that is the last stage, `Recipe` sees it.
FINETUNE_FIELDS = {
    "batch_norm": ("stem", *(f"stage{number}" for number in range(1, 10)), "all"),
    "probe_epochs": ("none", "stem", *(f"stage{number}" for number in range(1, 10))),
    "stage_decay": ("none", "stem", *(f"stage{number}" for number in range(1, 10))),
}


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(Checked):
    """How much of a net learns, from when on and how fast; the defaults train all of it alike.

    freeze: the last frozen place, "stem", "stage1", ..., or "all" for everything but the classifier; it and all below it
        keep their weights for the whole run. "none": nothing is frozen.
    batch_norm: frozen normalisations keep their statistics, scales and offsets ("eval") or go on learning them ("train").
    probe_epochs: for so long at first the classifier learns alone, on the features that the net gives in inference; then
        the optimizer starts anew, and with it everything above `freeze` learns. 0 for no probe.
    stage_decay: the classifier learns at the schedule's rate, the last stage at `stage_decay` times it, the stage below at
        `stage_decay` squared and so on down to the stem (the idea of arXiv 1801.06146, section 3.2). 1 for one rate.
    """

    TABLE = "finetune"

    freeze: str = "none"
    batch_norm: Literal["eval", "train"] = "eval"
    probe_epochs: float = 0.0
    stage_decay: float = 1.0

    def check(self) -> None:
        if not re.fullmatch(r"none|stem|stage[1-9]\d*|all", self.freeze):
            near = did_you_mean(self.freeze, ("none", "stem", "stage1", "stage2", "stage3", "stage4", "all"))
            raise ReszooError(
                f"finetune.freeze is {self.freeze!r}, but must be 'none', 'stem', a stage such as 'stage2', or 'all'{near}"
            )
        self.refuse_unless(self.probe_epochs >= 0, "probe_epochs", "at least 0")
        self.refuse_unless(0 < self.stage_decay <= 1, "stage_decay", "above 0 and at most 1")
        if self.freeze == "none":
            self._refuse_given(("batch_norm",), "'stem', a stage such as 'stage2', or 'all'")
        if self.freeze == "all":
            self.refuse_alone()

    def refuse_alone(self) -> None:
        """Raise ReszooError for a field that has nothing to do, `freeze` leaving the classifier alone to learn."""
        if self.batch_norm == "eval":
            self._refuse_given(("probe_epochs", "stage_decay"), "a place below the last stage")

    def _refuse_given(self, names: tuple[str, ...], remedy: str) -> None:
        for name in names:
            if getattr(self, name) != type(self).__dataclass_fields__[name].default:
                raise ReszooError(
                    f"finetune.{name} does nothing with freeze = {self.freeze!r}: leave it out, or give freeze = {remedy}"
                )
