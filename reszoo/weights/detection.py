"""Find the layout of a file by the names of its tensors."""

from __future__ import annotations

from collections.abc import Iterable

from reszoo.errors import ReszooError
from reszoo.weights.layouts import LAYOUTS

# Parts of names that show which library wrote a file whose layout is not supported.
ORIGINS = {
    "embedder.embedder.": "Hugging Face transformers",
    "bottleneck_v1/": "TensorFlow's slim",
    "bottleneck_v2/": "TensorFlow's slim",
    "block1.unit01.": "Big Transfer (BiT)",
    "attnpool.": "CLIP, whose stem and pooling are another model's",
    "layer_with_weights-": "a TensorFlow checkpoint of Keras 2",
}


def detect_layout(names: Iterable[str]) -> str:
    """Return the layout whose names a file's tensors have. Raises ReszooError if none is known."""
    known = set(names)
    signs = {
        "stem_conv1/kernel": "reszoo",
        "conv1_conv/kernel": "keras",
        "conv_1/kernel": "kerasio",
        "linear.weight": "akamaster",
        "conv1.0.weight": "timm",
        "stem.conv.gain": "timm",
    }
    for sign, name in signs.items():
        if sign in known:
            return name
    if "layer1.0.conv1.weight" in known:
        if "fc.weight" not in known and not any(name.startswith("layer4.") for name in known):
            return "akamaster"  # without its classifier
        has_group_norm = "bn1.weight" in known and "bn1.running_mean" not in known
        squeezes = any(".se.fc1." in name for name in known)
        return "timm" if has_group_norm or squeezes else "torchvision"
    shown = ", ".join(sorted(known)[:3]) or "none at all"
    origins = (lib for sign, lib in ORIGINS.items() if any(sign in name for name in known))
    origin = next((f"; these names are of {library}" for library in origins), "")
    raise ReszooError(
        f"its tensors have names of no layout known here ({shown}); known are "
        f"{', '.join(LAYOUTS)}{origin}"
    )
