"""The other side of test_updates.py: updates, averages and schedules of torch and timm.

Runs in an environment with torch and timm, without TensorFlow or reszoo:

    PYTHON original_updates.py JOB.npz RESULT.npz
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import timm
import torch
from timm.models import model_parameters
from timm.optim import create_optimizer_v2
from timm.optim._param_groups import param_groups_layer_decay
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3, dispatch_clip_grad
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn


class Small(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(2, 4, 3, bias=False)
        self.bn = torch.nn.BatchNorm2d(4)
        self.fc = torch.nn.Linear(4, 3)


def make(job: Any) -> Small:
    model = Small().double()
    assign(model, job, "start")
    return model


def tensors(job: Any, what: str) -> Iterator[torch.Tensor]:
    """Yield the arrays of Keras in PyTorch's order of axes."""
    for at in range(5):
        array = torch.from_numpy(job[f"{what}{at}"])
        yield array.permute(*reversed(range(array.ndim)[-2:]), *range(array.ndim - 2))


def assign(model: Small, job: Any, what: str) -> None:
    for parameter, array in zip(model.parameters(), tensors(job, what), strict=True):
        parameter.data = array.clone()


def update(job: Any, case: str) -> list[np.ndarray]:
    """Return the weights after all steps."""
    model = make(job)
    parameters = list(model.parameters())
    if case.startswith("lamb"):
        optimizer = create_optimizer_v2(model, "lamb", lr=0.1, weight_decay=0.1)
    else:
        norms = {id(each) for each in model.bn.parameters()}
        groups = [
            {"params": [each for each in parameters if id(each) not in norms]},
            {"params": list(model.bn.parameters()), "weight_decay": 0.0},
        ]
        optimizer = torch.optim.SGD(
            groups, lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=case == "nesterov"
        )
    for step, rate in enumerate(job["rates"]):
        for group in optimizer.param_groups:
            group["lr"] = float(rate)
        for parameter, array in zip(parameters, tensors(job, f"gradient{step}_"), strict=True):
            parameter.grad = array.clone()
        if case in ("value", "agc"):
            limited = model_parameters(model, exclude_head=case == "agc")
            dispatch_clip_grad(limited, 0.3, mode=case)
        optimizer.step()
    return [each.detach().numpy() for each in parameters]


def average(job: Any, case: str) -> list[np.ndarray]:
    """Return the averages after all steps, where the model holds other values in each."""
    model, per_epoch = make(job), int(job["per_epoch"])
    if case == "torchvision":
        ema = AveragedModel(model, avg_fn=get_ema_avg_fn(0.8), use_buffers=True)
    else:
        ema = ModelEmaV3(model, decay=0.8, use_warmup=case == "timm_warmup")
    for step in range(len(job["rates"])):
        assign(model, job, f"gradient{step}_")
        model.bn.running_mean[:] = torch.from_numpy(job[f"statistics{step}"][0])
        model.bn.running_var[:] = torch.from_numpy(job[f"statistics{step}"][1])
        if case != "torchvision":
            ema.update(model, step=step + 1)
        elif step % per_epoch % 2 == 0:  # --model-ema-steps 2 --lr-warmup-epochs 1
            ema.update_parameters(model)
            if step < per_epoch:
                ema.n_averaged.fill_(0)
    module = ema.module
    found = [*module.parameters(), module.bn.running_mean, module.bn.running_var]
    return [each.detach().numpy() for each in found]


def torchvision_rates(epochs: int, per_epoch: int) -> list[float]:
    """Learning rates of --lr-warmup-epochs 3 --lr-warmup-decay 0.01."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    parts = [
        lr_scheduler.LinearLR(optimizer, start_factor=0.01, total_iters=3),
        lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs - 3, eta_min=0.002),
    ]
    schedule, rates = lr_scheduler.SequentialLR(optimizer, parts, milestones=[3]), []
    for _ in range(epochs):
        rates += [optimizer.param_groups[0]["lr"]] * per_epoch
        optimizer.step()
        schedule.step()
    return rates


def timm_rates(epochs: int, per_epoch: int, by_epoch: bool) -> list[float]:
    """Learning rates of timm's train.py."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    schedule, _ = create_scheduler_v2(
        optimizer,
        "cosine",
        num_epochs=epochs,
        warmup_epochs=3,
        warmup_lr=0.1,
        min_lr=0.01,
        step_on_epochs=by_epoch,
        updates_per_epoch=per_epoch,
    )
    rates = []
    for epoch in range(epochs):
        for at in range(per_epoch):
            rates.append(optimizer.param_groups[0]["lr"])
            schedule.step_update(epoch * per_epoch + at + 1)
        schedule.step(epoch + 1)
    return rates


def scales(name: str) -> dict[str, float]:
    """Return the factors of --layer-decay 0.7 by the parameters' names."""
    model = timm.create_model(name)
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    groups = param_groups_layer_decay(model, layer_decay=0.7)
    return {names[id(each)]: group["lr_scale"] for group in groups for each in group["params"]}


def main(path: str, out: str) -> None:
    job = np.load(path)
    found: dict[str, np.ndarray] = {}
    for case in ("momentum", "nesterov", "lamb", "value", "agc"):
        found |= {f"{case}{at}": each for at, each in enumerate(update(job, case))}
    for case in ("torchvision", "timm", "timm_warmup"):
        found |= {f"{case}{at}": each for at, each in enumerate(average(job, case))}
    epochs, per_epoch = 12, int(job["per_epoch"])
    found["rates torchvision"] = np.array(torchvision_rates(epochs, per_epoch))
    for by_epoch in (True, False):
        found[f"rates timm {by_epoch}"] = np.array(timm_rates(epochs, per_epoch, by_epoch))
    found["scales"] = np.array(
        json.dumps({each: scales(each) for each in ("resnet18", "resnetv2_18")})
    )
    np.savez(out, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
