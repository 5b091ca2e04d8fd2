"""The other side of the parity tests: PyTorch's nets with random weights, asked by lines of JSON on standard input.

Runs in an environment with torch, torchvision, timm and safetensors, without TensorFlow or reszoo. For each request
{"do": "make" | "load", "family": ..., "name": ..., "folder": ..., "sizes": [...]} it answers one line of JSON.

make: a net with every weight, scale and moving statistic random; folder/net.safetensors, and for each size folder/SIZE.npz with
    images [n, h, w, 3], logits, and at the last, odd size the gradient, in float64,
    of a random sum of the logits by the images.
resave: write the tensors of PyTorch's own file `weights`, read by weights_only, as folder/net.safetensors.
score: load the weights file `weights` (PyTorch's own by weights_only, or safetensors), prepare each of `files` by PIL and
    torchvision as `transforms` (a record of reszoo's) says, and write folder/scores.npz with inputs [n, h, w, 3] and logits.
load: put folder/ours.safetensors into the net, strictly, and answer with its logits in float64 for the odd size's images.

Gradients are compared in float64: in float32 a pre-activation that rounding pushes over its ReLU's kink changes them by percents.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """A basic block of arXiv 1512.03385, section 4.2, shortcut A; tensors named as akamaster/pytorch_resnet_cifar10 names them."""

    def __init__(self, entering: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(entering, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride, self.new = stride, channels - entering

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        kept = x[:, :, :: self.stride, :: self.stride]
        return F.relu(out + F.pad(kept, (0, 0, 0, 0, self.new // 2, self.new - self.new // 2)))


class Cifar(nn.Module):
    """The CIFAR net of depth 6n+2."""

    def __init__(self, depth: int, widths: tuple[int, ...] = (16, 32, 64)) -> None:
        super().__init__()
        entering = widths[0]
        self.conv1, self.bn1 = nn.Conv2d(3, entering, 3, 1, 1, bias=False), nn.BatchNorm2d(entering)
        for stage, channels in enumerate(widths, 1):
            blocks = []
            for index in range((depth - 2) // 6):
                blocks.append(Block(entering, channels, 2 if stage > 1 and not index else 1))
                entering = channels
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.linear = nn.Linear(widths[-1], 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def create(family: str, name: str) -> nn.Module:
    if family == "torchvision":
        import torchvision

        return torchvision.models.get_model(name, weights=None)
    if family == "timm":
        import timm

        return timm.create_model(name, pretrained=False)
    return Cifar(int(name))


@torch.no_grad()
def randomize(net: nn.Module, images: torch.Tensor) -> None:
    """Make nothing in the net neutral: statistics near those of real activations but not equal to them, scales about 1."""
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            module.bias.normal_(0, 0.1)
        if hasattr(module, "gain"):  # timm's ScaledStdConv2d
            module.gain.uniform_(0.5, 1.5)
        if isinstance(module, nn.GroupNorm):
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0, 0.1)
    ends = {
        id(getattr(block, "bn3", None) or block.bn2)
        for block in net.modules()
        if hasattr(block, "bn2") and hasattr(block, "conv2")
    }
    for norm in norms:
        # The end of a branch small, or a thousand layers would multiply beyond what float32 holds.
        scale = 0.3 if id(norm) in ends else 1.0
        norm.weight.uniform_(0.5 * scale, 1.5 * scale)
        norm.bias.normal_(0, 0.1)
        norm.momentum = 1.0
    net.train()
    net(images)
    for norm in norms:
        norm.running_mean += 0.2 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean)
        norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.7, 1.4)
    net.eval()


def make(net: nn.Module, folder: Path, sizes: list[int]) -> dict:
    torch.manual_seed(0)
    randomize(net, torch.randn(4, 3, sizes[0], sizes[0]))
    save_file(
        {key: value.contiguous() for key, value in net.state_dict().items()},
        folder / "net.safetensors",
    )
    for size in sizes:
        images = torch.randn(1, 3, size, size)
        with torch.no_grad():
            logits = net(images)
        weights = torch.randn_like(logits)
        arrays = {"images": images}
        if size == sizes[-1]:
            exact = images.double().requires_grad_()
            (arrays["gradient"],) = torch.autograd.grad(
                (net.double()(exact) * weights).sum(), exact
            )
        saved = {key: value.detach().permute(0, 2, 3, 1).numpy() for key, value in arrays.items()}
        np.savez(
            folder / f"{size}.npz", **saved, logits=logits.detach().numpy(), weights=weights.numpy()
        )
    return {"parameters": sum(parameter.numel() for parameter in net.parameters())}


@torch.no_grad()
def load(net: nn.Module, folder: Path, sizes: list[int]) -> dict:
    net.load_state_dict(load_file(folder / "ours.safetensors"), strict=True)
    net.double().eval()
    images = torch.from_numpy(np.load(folder / f"{sizes[-1]}.npz")["images"]).permute(0, 3, 1, 2)
    return {"logits": net(images.double()).tolist()}


def read(weights: str) -> dict[str, torch.Tensor]:
    state = torch.load(weights, map_location="cpu", weights_only=True)["state_dict"]
    return {name.removeprefix("module."): value for name, value in state.items()}


def resave(net: nn.Module, folder: Path, sizes: list[int], weights: str) -> dict:
    save_file(
        {name: value.contiguous() for name, value in read(weights).items()},
        folder / "net.safetensors",
    )
    return {}


def score(
    net: nn.Module, folder: Path, sizes: list[int], weights: str, files: list[str], transforms: dict
) -> dict:
    from PIL import Image
    from torchvision import transforms as tv

    net.load_state_dict(
        load_file(weights) if weights.endswith(".safetensors") else read(weights), strict=True
    )
    net.eval()
    mode = tv.InterpolationMode(transforms["interpolation"])
    sized = (
        [tv.Resize(transforms["resize"], mode), tv.CenterCrop(transforms["image_size"])]
        if transforms["resize"]
        else []
    )
    prepare = tv.Compose(
        [*sized, tv.ToTensor(), tv.Normalize(transforms["mean"], transforms["std"])]
    )
    inputs, logits = [], []
    with torch.no_grad():
        for start in range(0, len(files), 100):
            batch = torch.stack(
                [prepare(Image.open(file).convert("RGB")) for file in files[start : start + 100]]
            )
            logits.append(net(batch))
            inputs.append(batch.permute(0, 2, 3, 1))
    np.savez(
        folder / "scores.npz", inputs=torch.cat(inputs).numpy(), logits=torch.cat(logits).numpy()
    )
    return {"files": len(files)}


def main() -> None:
    torch.set_num_threads(2)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            net = create(asked["family"], asked["name"])
            act = {"make": make, "load": load, "score": score, "resave": resave}[asked["do"]]
            answer = act(net, Path(asked["folder"]), asked["sizes"], **asked.get("more", {}))
        except Exception as error:  # told to the test, which fails with it
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
