"""Write tests/weights/goldens: a tiny net of each PyTorch layout with random weights, images, and the logits PyTorch gives.

Run in an environment with torch, torchvision, timm and safetensors, at the root of a checkout:

    python tests/weights/write_goldens.py [NAME ...]
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))
from peer import Cifar, randomize


def torchvision_net() -> nn.Module:
    from torchvision.models.resnet import Bottleneck, ResNet

    class Tiny(ResNet):
        def _make_layer(self, block, planes, *args, **kwargs):
            return super()._make_layer(block, planes // 16, *args, **kwargs)

    net = Tiny(Bottleneck, [1, 2, 1, 1], num_classes=5, groups=2, width_per_group=32)
    net.fc = nn.Linear(128, 5)
    return net


def timm_net() -> nn.Module:
    from timm.layers import SEModule
    from timm.models.resnet import Bottleneck, ResNet

    return ResNet(
        Bottleneck,
        (1, 2, 1, 1),
        num_classes=5,
        stem_width=4,
        stem_type="deep",
        avg_down=True,
        channels=(8, 8, 16, 16),
        block_args={"attn_layer": partial(SEModule, rd_ratio=0.25)},
    )


def group_norm_net() -> nn.Module:
    from timm.models.resnet import Bottleneck, ResNet

    return ResNet(
        Bottleneck,
        (1, 1, 1, 1),
        num_classes=5,
        cardinality=8,
        base_width=32,
        channels=(8, 8, 8, 8),
        norm_layer="groupnorm",
    )


def scaled_weight_net() -> nn.Module:
    from timm.models.nfnet import NormFreeNet, model_cfgs

    return NormFreeNet(
        model_cfgs["nf_resnet50"],
        num_classes=5,
        depths=(2, 2, 2),
        channels=(32, 32, 64),
        stem_chs=8,
    )


NETS = {
    "torchvision": torchvision_net,
    "timm": timm_net,
    "timm-group": group_norm_net,
    "timm-scaled": scaled_weight_net,
    "akamaster": lambda: Cifar(8, (4, 8, 12)),
}

if __name__ == "__main__":
    folder = Path(__file__).parent / "goldens"
    folder.mkdir(exist_ok=True)
    for name in sys.argv[1:] or NETS:
        torch.manual_seed(0)
        net = NETS[name]()
        size = 19 if name == "akamaster" else 37
        randomize(net, torch.randn(8, 3, size, size))
        images = torch.randn(3, 3, size, size)
        with torch.no_grad():
            logits = net(images)
        tensors = {key: value.contiguous() for key, value in net.state_dict().items()}
        save_file(tensors, folder / f"{name}.safetensors")
        answers = {"images": images.permute(0, 2, 3, 1).contiguous(), "logits": logits}
        save_file(answers, folder / f"{name}-answers.safetensors")
        print(name, sum(value.numel() for value in tensors.values()))
