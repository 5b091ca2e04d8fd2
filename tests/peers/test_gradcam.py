"""Grad-CAM maps are those of PyTorch's own hooks, on torchvision's model with the same weights."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest

from reszoo import build
from reszoo.evaluation.gradcam import GradCam

PYTHON = os.environ.get("RESZOO_PEER", "")
pytestmark = pytest.mark.peers

PROGRAM = """
import numpy as np, torch, torchvision
from safetensors.torch import save_file

torch.manual_seed(0)
model = torchvision.models.resnet18(weights=None, num_classes=7).eval()
with torch.no_grad():
    for name, value in model.state_dict().items():
        if "running_var" in name or name.endswith("weight") and value.ndim == 1:
            value.uniform_(0.5, 1.5)
        elif value.dtype.is_floating_point and value.ndim == 1:
            value.normal_(0, 0.1)
save_file(model.state_dict(), "model.safetensors")
model.double()  # in float32 a number that rounding pushes over a ReLU's kink changes the gradient
images = torch.randn(7, 3, 97, 129).double()
found = {"images": images.permute(0, 2, 3, 1).numpy()}
for stage in (2, 4):
    kept = {}
    layer = getattr(model, f"layer{stage}")
    handles = [layer.register_forward_hook(lambda *_: kept.update(maps=_[2]))]
    handles += [layer.register_full_backward_hook(lambda *_: kept.update(slopes=_[2][0]))]
    for number in range(7):
        model.zero_grad()
        model(images[number : number + 1])[0, number].backward()
        weights = torch.nn.functional.adaptive_avg_pool2d(kept["slopes"], 1)
        found[f"stage{stage}-{number}"] = (kept["maps"] * weights).sum(1)[0].relu().detach().numpy()
    for handle in handles:
        handle.remove()
np.savez("found.npz", **found)
"""


def test_maps_equal_those_of_pytorch(tmp_path: Path) -> None:
    if not PYTHON:
        pytest.skip("RESZOO_PEER names no Python with torch, torchvision and timm")
    subprocess.run([PYTHON, "-c", PROGRAM], cwd=tmp_path, check=True, timeout=300)
    weights = tmp_path / "model.safetensors"
    keras.config.set_dtype_policy("float64")
    model = build("resnet18", classes=7, input_shape=(97, 129, 3), weights=weights)
    with np.load(tmp_path / "found.npz") as found:
        for stage in ("stage2", "stage4"):
            maps = GradCam(model, stage)(found["images"], range(7))
            theirs = np.stack([found[f"{stage}-{number}"] for number in range(7)])
            assert np.count_nonzero(theirs.max((1, 2))) > 2  # others speak for the class nowhere
            np.testing.assert_allclose(maps, theirs, atol=1e-9 * theirs.max())
        default = GradCam(model)(found["images"], range(7))
    np.testing.assert_array_equal(default, maps)
