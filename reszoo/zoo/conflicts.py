"""Fields of a model that contradict each other."""

from __future__ import annotations

from pydantic import BaseModel

ONLY: dict[str, object] = {
    "stem": "bare",
    "bias": "unnormed",
    "order": "bn_after_add",
    "norm": "scaled_weight",
    "initialization": "fixup",
}
"""Of these fields, a conflict is about one value only."""
CONFLICTS: tuple[tuple[str, str, tuple[object, ...], str], ...] = (
    ("zero_gamma rezero drop_path", "shortcut", ("none",),
     "a block without a shortcut would compute nothing"),
    ("shortcut_scale shortcut_dropout gate branch_scale", "shortcut", ("none",),
     "there is no shortcut"),
    ("pad_at", "shortcut", ("none", "B", "C"), "only option A pads with zero channels"),
    ("shortcut_bn shortcut_from", "shortcut", ("none", "A"),
     "the model has no projection; use 'B' or 'C'"),
    ("shortcut_bn", "order", ("pre", "bn_after_add"), "no batch norm follows a projection"),
    ("shortcut_from", "order", ("post", "bn_after_add", "relu_before_add"),
     "no activation comes before the projection"),
    ("shrink", "shortcut", ("none", "A"),
     "the model has no projection to pool for; use 'B' or 'C'"),
    ("shrink_at", "shortcut", ("A",), "option A strides and pads in one operation; use 'B'"),
    ("shrink", "shrink_at", ("last",), "the last block halves without a projection"),
    ("zero_gamma", "rezero", (True,), "every branch would be without a gradient"),
    ("branch_scale", "rezero", (True,), "ReZero learns the scale"),
    ("zero_gamma", "order", ("pre", "bn_after_add"), "no batch norm ends the branch; use rezero"),
    ("zero_gamma", "order", ("relu_before_add",),
     "zero has no gradient under a ReLU; use rezero"),
    ("gate_bias", "gate", ("none",), "the model has no gate"),
    ("stem", "order", ("post", "bn_after_add", "relu_before_add", "relu_pre"),
     "no block normalizes the stem's output; use order='pre'"),
    ("bias", "order", ("post", "relu_before_add", "relu_pre"),
     "every convolution is normalized; use 'none' or 'all'"),
    ("norm", "order", ("post", "bn_after_add", "relu_before_add", "relu_pre"),
     "it scales the input of a branch, which needs order='pre'"),
    ("order zero_gamma bias", "norm", ("none", "scaled_weight"),
     "no layer normalizes maps; use order='post', rezero or bias='all'"),
    ("shortcut_bn", "norm", ("none", "scaled_weight"), "no layer normalizes maps"),
    ("bn_epsilon", "norm", ("none",), "the model has no normalization"),
    ("norm_groups", "norm", ("batch", "none", "scaled_weight"), "only norm 'group' has groups"),
    ("initialization", "norm", ("batch", "group", "scaled_weight"),
     "Fixup replaces normalization; use norm='none'"),
    ("initialization", "shortcut", ("none",), "a branch at zero needs a shortcut"),
    ("initialization", "order", ("bn_after_add", "relu_before_add", "relu_pre", "pre"),
     "Fixup is defined for order 'post'"),
    ("activation", "norm", ("scaled_weight",), "the norm of its filters is that for ReLU"),
    ("rezero bias branch_scale", "initialization", ("fixup",),
     "Fixup has scalar biases and multipliers of its own"),
    ("expansions groups group_width", "block", ("basic",),
     "they shape a bottleneck; change widths"),
    ("stride_at", "block", ("basic",), "a basic block strides in its first convolution"),
    ("shrink shrink_at stride_at blur", "stages", (1,), "no stage halves its input"),
    ("blur", "padding", ("same",), "the blur pads both sides equally"),
)  # fmt: skip
"""Fields that must keep their defaults, another field, its values, and the reason."""


def find_conflict(spec: BaseModel) -> str:
    """Return a message on the first conflict between fields, or ""."""
    for fields, other, values, reason in CONFLICTS:
        if getattr(spec, other) in values:
            for name in fields.split():
                value, default = getattr(spec, name), type(spec).model_fields[name].default
                if value == ONLY[name] if name in ONLY else value != default:
                    condition = f"{other}={getattr(spec, other)!r}"
                    return f"{name}={value!r} is invalid with {condition}; {reason}"
    return ""
