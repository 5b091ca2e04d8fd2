"""What the programs of this folder share: exports of random weights, records without the folders of this machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any


def export_random(name: str, out: Path, *, resize: int = 0, **options: Any) -> str:
    """Export a model of random weights with ImageNet's normalization; return the path of the SavedModel or file."""
    import keras
    import numpy as np

    import reszoo
    from reszoo.exporting.export import export_model
    from reszoo.exporting.samples import photographs
    from reszoo.images.preprocessing import Preprocessing

    size = reszoo.spec(name).default_input_shape[0]
    mean, std = (
        np.array([0.485, 0.456, 0.406], np.float32),
        np.array([0.229, 0.224, 0.225], np.float32),
    )
    preprocessing = Preprocessing(
        image_size=(size, size), channels=3, resize=resize or size, mean=mean, std=std
    )
    keras.utils.set_random_seed(0)
    model = reszoo.build(name)
    names = tuple(map(str, range(model.output_shape[-1])))
    images = photographs() if options.get("quantize") == "int8" else None
    export_model(
        model, out, preprocessing=preprocessing, class_names=names, calibration=images, **options
    )
    (path,) = [*out.glob("1"), *out.glob("model.*")]
    return str(path)


def trained_on(meta: dict[str, Any]) -> list[str]:
    """Return the devices of a run, from its start and all its continuations."""
    processes = [meta, *meta.get("resumed", [])]
    return list(dict.fromkeys(device for each in processes for device in each["devices"]))


def tidy(value: Any) -> Any:
    """Return JSON with the folders of this machine left out of absolute paths."""
    if isinstance(value, dict):
        return {key: tidy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [tidy(item) for item in value]
    return (
        re.sub(r"(^|(?<=[ :='\"]))/[^ ]*/(?=[^/ ])", "", value) if isinstance(value, str) else value
    )
