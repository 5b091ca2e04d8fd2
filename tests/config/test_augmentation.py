"""What the keys of [augment] accept that do not depend on the crop."""

from __future__ import annotations

from typing import Any

import pytest

from reszoo.config.augmentation import RandomChanges
from reszoo.errors import ReszooError


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"repeats": 0}, "augment.repeats: 0 is invalid; expected an integer >= 1"),
        (
            {"flip_mode": "alternating"},
            "augment.flip_mode: not used with augment.flip = false. Remove augment.flip_mode",
        ),
        ({"policy": "randaugment"}, 'augment.policy: "randaugment" is invalid; expected one of'),
        ({"policy": "auto_cifar10"}, "did you mean 'auto_cifar'"),
        (
            {"policy": "trivial", "rand_magnitude": 7.0},
            'augment.rand_magnitude: not used with augment.policy = "trivial"',
        ),
        (
            {"policy": "rand", "rand_magnitude": 11.0},
            "augment.rand_magnitude: 11.0 is invalid; expected a number >= 0 and <= 10",
        ),
        (
            {"color_jitter": (0.4, 0.4, 0.4)},
            "augment.color_jitter: [0.4, 0.4, 0.4] is invalid; expected a list of 4, each a number",
        ),
        ({"color_jitter": (0.4, 0.4, 0.4, 0.6)}, "expected a change of the hue of at most 0.5"),
        ({"erase": 1.5}, "augment.erase: 1.5 is invalid; expected a number >= 0 and <= 1"),
        (
            {"erase_mode": "pixel"},
            "augment.erase_mode: not used with augment.erase = 0",
        ),
        (
            {"erase": 0.5, "erase_area": (0.4, 0.1)},
            "augment.erase_area: [0.4, 0.1] is invalid; expected two numbers in rising order",
        ),
        ({"mixup": -1.0}, "augment.mixup: -1.0 is invalid; expected a number >= 0"),
        ({"mix_probability": 0.5}, "augment.mix_probability: not used with augment.mixup = 0"),
        (
            {"mixup": 0.2, "cutmix_probability": 0.3},
            "augment.cutmix_probability: not used with augment.cutmix = 0",
        ),
    ],
)
def test_impossible_changes_are_rejected_by_key(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ReszooError) as caught:
        RandomChanges(**fields)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
