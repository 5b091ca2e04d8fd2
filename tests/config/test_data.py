"""What `[data]` and `[augment]` accept, and the line a person reads when they do not."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reszoo.config.data import Augmentation, DataConfig, InceptionCrop
from reszoo.errors import ReszooError


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": ""}, 'data.name: "" is invalid; expected a dataset, or folder:PATH'),
        ({"name": "folder:"}, 'data.name: "folder:" is invalid'),
        ({"name": 3}, "data.name: 3 is invalid; expected text"),
        (
            {"name": "cifar10", "validation": -1},
            "data.validation: -1 is invalid; expected an integer >= 0",
        ),
        (
            {"name": "cifar10", "validation": True},
            "data.validation: true is invalid; expected an integer",
        ),
        ({"name": "cifar10", "validation": 1.0}, "or a number > 0 and < 1. Example: --set data"),
        (
            {"name": "cifar10", "image_size": 32},
            "data.image_size: 32 is invalid; expected a list of 2, each an integer >= 1",
        ),
        ({"name": "cifar10", "image_size": (32, 0)}, "data.image_size: [32, 0] is invalid"),
        ({"name": "cifar10", "image_size": (32, 1.5)}, "data.image_size: [32, 1.5] is invalid"),
        ({"name": "cifar10", "channels": 2}, "data.channels: 2 is invalid; expected one of 1, 3"),
        ({"name": "cifar10", "channels": True}, "data.channels: true is invalid"),
        ({"name": "cifar10", "normalize": "pixelmean"}, "did you mean 'pixel_mean'"),
        ({"name": "folder:x", "on_corrupt": "skpi"}, "did you mean 'skip'"),
        (
            {"name": "cifar10", "on_corrupt": "skip"},
            'data.on_corrupt: not used with data.name = "cifar10"',
        ),
        (
            {"name": "cifar10", "labels": "a.csv"},
            'data.name: "cifar10" is invalid; expected an existing folder with data.labels = a.csv',
        ),
        (
            {"name": "folder:x", "labels": "y", "multi_label": True, "sampler": "balanced"},
            'data.sampler: "balanced" is invalid; expected "shuffle" with data.multi_label = true',
        ),
        ({"name": "digits", "dir": "/x"}, 'data.dir: not used with data.name = "digits"'),
        ({"name": "folder:x", "lanes": 2}, 'data.lanes: not used with data.name = "folder:x"'),
        ({"name": "x", "on_device": True, "lanes": 2}, "not used with data.on_device = true"),
        ({"name": "x", "lanes": 0}, "data.lanes: 0 is invalid"),
        ({"name": "folder:x", "dir": "/x"}, 'data.dir: not used with data.name = "folder:x"'),
        (
            {"name": "cifar10", "resize": 40},
            "data.resize: 40 is invalid; expected data.image_size too",
        ),
        (
            {"name": "cifar10", "resize": 40, "image_size": (48, 32)},
            "data.resize: 40 is invalid; expected at least data.image_size = [48, 32]",
        ),
        (
            {"name": "synthetic", "resize": 40, "image_size": (32, 32)},
            "data.resize: not used with data.name",
        ),
        (
            {"name": "x", "train_sizes": [[0.5, 8], [0.2, 9]]},
            "data.train_sizes: [[0.5, 8], [0.2, 9]] is invalid; expected points of rising shares, "
            "the first of share 0. Example: --set data.train_sizes=[[0, 112], [0.8, 224]]",
        ),
        ({"name": "x", "train_sizes": [[0, 8], [0.7, 9], [0.2, 9]]}, "points of rising shares"),
        ({"name": "x", "train_sizes": [[0.1, 8]]}, "the first of share 0"),
        (
            {"name": "x", "train_sizes": [8]},
            "data.train_sizes: [8] is invalid; expected a list, each a list of a number >= 0 and "
            "< 1, then an integer >= 1. Example: --set data.train_sizes=[[0, 112]",
        ),
        (
            {"name": "x", "train_sizes": [[0, 8]], "on_device": True},
            "data.train_sizes: not used with data.on_device = true",
        ),
        ({"name": "x", "size_multiple": 8}, "not used with data.train_sizes = []"),
        (
            {"name": "digits", "on_device": 1},
            "data.on_device: 1 is invalid; expected true or false. Example: --set",
        ),
    ],
)
def test_impossible_data_is_rejected_by_key(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ReszooError) as caught:
        DataConfig(**fields)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_training_sizes_grow_as_in_composer() -> None:
    """Half of the size for half of the training, then evenly to the whole size at 80 %."""
    data = DataConfig(name="x", train_sizes=((0, 112), (0.5, 112), (0.8, 224)))
    for share in np.linspace(0, 0.99, 100):
        grown = min(max((share - 0.5) / 0.3, 0), 1)
        side = 224 * (0.5 + 0.5 * grown)
        height, width = data.train_size(share, (224, 448))
        assert height % 4 == width % 4 == 0
        assert abs(height - side) <= 2 and abs(width - 2 * side) <= 2
    assert data.train_size(0.99, (224, 448)) == (224, 448)
    jump = DataConfig(name="x", train_sizes=((0, 8), (0.5, 8), (0.5, 31)), size_multiple=8)
    assert [jump.train_size(share, (31, 31)) for share in (0, 0.49, 0.5)] == [
        (8, 8),
        (8, 8),
        (31, 31),
    ]
    assert DataConfig(name="x").train_size(0.5, (31, 30)) == (31, 30)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"crop": "inceptoin"}, "did you mean 'inception'"),
        ({"crop": "pad", "pad": 0}, "augment.pad: 0 is invalid; expected an integer >= 1"),
        ({"flip": 1}, "augment.flip: 1 is invalid; expected true or false"),
        ({"color": "hsv"}, 'augment.color: "hsv" is invalid; expected one of "none", "pca"'),
        ({"pad": 2}, 'augment.pad: not used with augment.crop = "none"; expected only with "pad"'),
        ({"crop": "pad", "scale": (32, 40)}, 'augment.scale: not used with augment.crop = "pad"'),
        (
            {"crop": "scale", "area": (0.5, 1.0)},
            'augment.area: not used with augment.crop = "scale"',
        ),
        (
            {"crop": "scale", "scale": (480, 256)},
            "augment.scale: [480, 256] is invalid; expected two integers in rising",
        ),
        (
            {"crop": "inception", "area": (0.5, 2.0)},
            "augment.area: [0.5, 2.0] is invalid; expected a list of 2",
        ),
        (
            {"crop": "inception", "area": (0.5, 0.2)},
            "augment.area: [0.5, 0.2] is invalid; expected two numbers in rising",
        ),
        ({"crop": "inception", "area": (float("nan"), 1.0)}, "augment.area: [NaN, 1.0] is invalid"),
    ],
)
def test_impossible_augmentation_is_rejected_by_key(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ReszooError) as caught:
        Augmentation.of(**fields)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_lists_from_toml_become_tuples() -> None:
    assert DataConfig(name="cifar10", image_size=[24, 32]).image_size == (24, 32)  # type: ignore[arg-type]
    assert InceptionCrop(area=[0.5, 1]).area == (0.5, 1.0)  # type: ignore[arg-type]


anything = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.lists(st.integers() | st.floats(), max_size=3)
)


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            ["dir", "validation", "image_size", "resize", "channels", "normalize", "examples"]
        ),
        anything,
    )
)
def test_any_value_is_taken_or_rejected_in_one_line(fields: dict[str, Any]) -> None:
    try:
        config = DataConfig(name="cifar10", **fields)
    except ReszooError as error:
        assert str(error).startswith("data.")
        assert "\n" not in str(error)
    else:
        assert config.image_size is None or all(
            type(side) is int and side > 0 for side in config.image_size
        )


def test_config_does_not_import_tensorflow() -> None:
    code = "import sys, reszoo.config.recipe; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
