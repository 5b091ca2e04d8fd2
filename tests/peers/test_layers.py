"""Layers against timm's: convolutions with scaled weights, and blur."""

from __future__ import annotations

import json
import os
import subprocess

import numpy as np
import pytest

from reszoo.models.layers import Blur, ScaledConv2D

PYTHON = os.environ.get("RESZOO_PEER", "")
pytestmark = pytest.mark.peers
PROGRAM = """
import json, sys, torch
from timm.layers import ScaledStdConv2d
given = {key: torch.tensor(value) for key, value in json.load(sys.stdin).items()}
conv = ScaledStdConv2d(6, 8, 3, padding=1, groups=2, gamma=(2 / (1 - 1 / 3.141592653589793)) ** 0.5, eps=1e-5)
with torch.no_grad():
    conv.weight.copy_(given["kernel"].permute(3, 2, 0, 1))
    conv.gain.copy_(given["gain"].reshape(8, 1, 1, 1))
    conv.bias.copy_(given["bias"])
    print(json.dumps(conv(given["x"].permute(0, 3, 1, 2)).permute(0, 2, 3, 1).tolist()))
"""


@pytest.mark.skipif(not PYTHON, reason="needs RESZOO_PEER, a Python with timm")
def test_scaled_convolution_equals_timm() -> None:
    random = np.random.default_rng(0)
    shapes = {"x": (2, 7, 5, 6), "kernel": (3, 3, 3, 8), "gain": (8,), "bias": (8,)}
    given = {name: random.normal(size=shape).astype("float32") for name, shape in shapes.items()}
    layer = ScaledConv2D(8, 3, padding="same", groups=2)
    layer.build(given["x"].shape)
    for name in ("kernel", "gain", "bias"):
        getattr(layer, name).assign(given[name])
    text = json.dumps({name: value.tolist() for name, value in given.items()})
    found = subprocess.run(
        [PYTHON, "-c", PROGRAM], input=text, capture_output=True, text=True, check=True, timeout=120
    )
    np.testing.assert_allclose(layer(given["x"]), json.loads(found.stdout), atol=1e-5)


BLUR = """
import json, sys, torch
from timm.layers import BlurPool2d
given = json.load(sys.stdin)
x = torch.tensor(given["x"]).permute(0, 3, 1, 2)
blur = BlurPool2d(x.shape[1], stride=given["stride"], pad_mode="constant")
print(json.dumps(blur(x).permute(0, 2, 3, 1).tolist()))
"""


@pytest.mark.skipif(not PYTHON, reason="needs RESZOO_PEER, a Python with timm")
@pytest.mark.parametrize("stride", [1, 2])
def test_blur_equals_timm(stride: int) -> None:
    x = np.random.default_rng(0).normal(size=(2, 7, 6, 3)).astype("float32")
    text = json.dumps({"x": x.tolist(), "stride": stride})
    found = subprocess.run(
        [PYTHON, "-c", BLUR], input=text, capture_output=True, text=True, check=True, timeout=120
    )
    np.testing.assert_allclose(Blur(stride)(x), json.loads(found.stdout), atol=1e-6)
