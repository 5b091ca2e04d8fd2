"""What `[data]` and `[augment]` accept, and the line a person reads when they do not."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reszoo.data.config import AugmentConfig, DataConfig
from reszoo.errors import ReszooError


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": ""}, "data.name is empty"),
        ({"name": "folder:"}, "data.name is empty"),
        ({"name": 3}, "data.name must be text"),
        ({"name": "cifar10", "validation": -1}, "data.validation must be a whole number of at least 0"),
        ({"name": "cifar10", "validation": True}, "data.validation must be a whole number"),
        ({"name": "cifar10", "image_size": 32}, "data.image_size must be two positive whole numbers, [height, width]"),
        ({"name": "cifar10", "image_size": (32, 0)}, "data.image_size must be two positive"),
        ({"name": "cifar10", "image_size": (32, 1.5)}, "data.image_size must be two positive whole"),
        ({"name": "cifar10", "channels": 2}, "data.channels must be 1 or 3, got 2"),
        ({"name": "cifar10", "channels": True}, "data.channels must be 1 or 3, got True"),
        ({"name": "cifar10", "normalize": "pixelmean"}, "did you mean 'pixel_mean'"),
        ({"name": "folder:x", "on_corrupt": "skpi"}, "did you mean 'skip'"),
        ({"name": "cifar10", "on_corrupt": "skip"}, "data.on_corrupt = 'skip' has no effect"),
        ({"name": "digits", "dir": "/x"}, "data.dir = '/x' has no effect"),
        ({"name": "folder:x", "dir": "/x"}, "data.dir = '/x' has no effect"),
        ({"name": "cifar10", "resize": 40}, "data.resize = 40 needs data.image_size"),
        (
            {"name": "cifar10", "resize": 40, "image_size": (48, 32)},
            "data.resize = 40 is smaller than data.image_size = [48, 32]",
        ),
        ({"name": "synthetic", "resize": 40, "image_size": (32, 32)}, "data.resize = 40 has no effect"),
        ({"name": "digits", "on_device": 1}, "data.on_device: 1 is invalid; expected true or false. Example: --set"),
    ],
)
def test_impossible_data_is_refused_by_key(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ReszooError) as caught:
        DataConfig(**fields)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"crop": "inceptoin"}, "did you mean 'inception'"),
        ({"crop": "pad", "pad": 0}, "augment.pad must be a whole number of at least 1"),
        ({"flip": 1}, "augment.flip must be true or false, got 1"),
        ({"color": "hsv"}, "augment.color must be one of none, pca"),
        ({"pad": 2}, "augment.pad = 2 has no effect: augment.crop is 'none', not 'pad'"),
        ({"crop": "pad", "scale": (32, 40)}, "augment.scale = (32, 40) has no effect"),
        ({"crop": "scale", "area": (0.5, 1.0)}, "augment.area = (0.5, 1.0) has no effect"),
        ({"crop": "scale", "scale": (480, 256)}, "augment.scale = [480, 256] must stand in rising order"),
        ({"crop": "inception", "area": (0.5, 2.0)}, "augment.area = [0.5, 2.0] must be two rising shares"),
        ({"crop": "inception", "area": (float("nan"), 1.0)}, "augment.area must be two positive numbers"),
    ],
)
def test_impossible_augmentation_is_refused_by_key(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ReszooError) as caught:
        AugmentConfig(**fields)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_lists_from_toml_become_tuples() -> None:
    assert DataConfig(name="cifar10", image_size=[24, 32]).image_size == (24, 32)  # type: ignore[arg-type]
    assert AugmentConfig(crop="inception", area=[0.5, 1]).area == (0.5, 1.0)  # type: ignore[arg-type]


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
        st.sampled_from(["dir", "validation", "image_size", "resize", "channels", "normalize", "examples"]), anything
    )
)
def test_any_value_is_taken_or_refused_in_one_line(fields: dict[str, Any]) -> None:
    try:
        config = DataConfig(name="cifar10", **fields)
    except ReszooError as error:
        assert str(error).startswith("data.")
        assert "\n" not in str(error)
    else:
        assert config.image_size is None or all(type(side) is int and side > 0 for side in config.image_size)


def test_config_does_not_import_tensorflow() -> None:
    code = "import sys, reszoo.data.config; sys.exit('tensorflow' in sys.modules or 'numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
