"""The other side of test_equivalence.py: training by the original libraries' own code.

Runs in an environment with torch, torchvision and timm, without TensorFlow or reszoo:

    PYTHON original_training.py JOB.npz RESULT.npz

The optimizer, schedule, loss, averages, mixing and clipping of a step are the classes of PyTorch,
torchvision and timm. Their arguments are those of the publishers' commands; only the number of
epochs is the job's. The lines between them are written after the publishers' train scripts.
"""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import timm.data.mixup as timm_mixup
import torch
from originals import MixDraws
from peer import Cifar
from timm.loss import BinaryCrossEntropy
from timm.models.resnet import Bottleneck, ResNet
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel
from torchvision.ops._utils import split_normalization_params
from torchvision.transforms import v2


class Original:
    """How a publisher trains. Subclasses replace what differs.

    Args:
        model: The model.
        job: Weights, batches and draws.
        settings: Of the job. `scale` is the factor on learning rates for the small batch.
    """

    def __init__(self, model: nn.Module, job: Any, settings: dict[str, Any]) -> None:
        self.model, self.job = model, job
        self.epochs, self.steps = settings["epochs"], settings["steps_per_epoch"]
        self.classes, self.settings = settings["classes"], settings
        self.scale = settings["scale"]
        self.criterion: Any = nn.CrossEntropyLoss()
        self.averaged: nn.Module | None = None
        self.start()

    def start(self) -> None:
        """Make the optimizer and the schedule."""
        raise NotImplementedError

    def mix(self, at: int, images: torch.Tensor, labels: torch.Tensor) -> Any:
        """Return images and targets of step `at`, mixed."""
        return images, labels

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the loss of a batch."""
        return self.criterion(logits, targets)

    def before(self, at: int) -> None:
        """Set the learning rate of step `at`, if the schedule counts steps."""

    def after(self, at: int) -> None:
        """Do what follows the optimizer's step."""

    def end_epoch(self, epoch: int) -> None:
        """Do what ends an epoch."""
        self.schedule.step()


class Akamaster(Original):
    """github.com/akamaster/pytorch_resnet_cifar10, trainer.py at 159915c: 200 epochs."""

    def start(self) -> None:
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), 0.1 * self.scale, momentum=0.9, weight_decay=1e-4
        )
        ends = [self.epochs * end // 200 for end in (100, 150)]
        self.schedule = lr_scheduler.MultiStepLR(self.optimizer, milestones=ends)


class TorchvisionV1(Original):
    """pytorch/vision, references/classification/train.py with its defaults: 90 epochs."""

    def start(self) -> None:
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=0.1 * self.scale, momentum=0.9, weight_decay=1e-4
        )
        length = -(-self.epochs * 30 // 90)
        self.schedule = lr_scheduler.StepLR(self.optimizer, step_size=length, gamma=0.1)


class TorchvisionV2(Original):
    """The same script with the arguments of torchvision's new recipe: 600 epochs.

    Images are mixed by torchvision's MixUp and CutMix, which pair each image with the one before
    it. They get two images at a time here, so that the pairs are those of the job.
    """

    WARMUP = 5

    def start(self) -> None:
        groups = split_normalization_params(self.model)
        parameters = [
            {"params": each, "weight_decay": decay}
            for each, decay in zip(groups, (0.0, 2e-5), strict=True)
            if each
        ]
        self.optimizer = torch.optim.SGD(
            parameters, lr=0.5 * self.scale, momentum=0.9, weight_decay=2e-5
        )
        main = lr_scheduler.CosineAnnealingLR(
            self.optimizer, T_max=self.epochs - self.WARMUP, eta_min=0.0
        )
        warm = lr_scheduler.LinearLR(self.optimizer, start_factor=0.01, total_iters=self.WARMUP)
        self.schedule = lr_scheduler.SequentialLR(
            self.optimizer, schedulers=[warm, main], milestones=[self.WARMUP]
        )
        self.criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
        self.every = self.settings["averages_every"]
        alpha = (1.0 - 0.99998) * 1024 * 32 / 600  # as for the original's batch, steps and epochs

        def average(old: torch.Tensor, new: torch.Tensor, _: Any) -> torch.Tensor:
            return (1 - alpha) * old + alpha * new

        self.averaged = AveragedModel(self.model, avg_fn=average, use_buffers=True)

    def mix(self, at: int, images: torch.Tensor, labels: torch.Tensor) -> Any:
        share, (top, left, height, width) = float(self.job["shares"][at]), self.job["boxes"][at]
        if height * width:
            change = v2.CutMix(num_classes=self.classes)
            box = (int(left), int(top), int(left + width), int(top + height))
            params = {"box": box, "lam_adjusted": share}
        else:
            change, params = v2.MixUp(num_classes=self.classes), {"lam": share}
        change.make_params = lambda _: params
        mixed, targets = torch.empty_like(images), []
        for first in range(len(images)):
            pair = [first, len(images) - 1 - first]
            pictures, target = change(images[pair], labels[pair])
            mixed[first] = pictures[0]
            targets.append(target[0])
        return mixed, torch.stack(targets)

    def after(self, at: int) -> None:
        epoch, step = divmod(at, self.steps)
        if step % self.every == 0:
            self.averaged.update_parameters(self.model)
            if epoch < self.WARMUP:
                self.averaged.n_averaged.fill_(0)


class BagOfTricks(Original):
    """GluonCV's resnet50_v1d with mixup: 200 epochs. MXNet cannot be installed any more.

    MXNet's optimizer "nag" computes what PyTorch's SGD with Nesterov momentum does. The schedule and
    the smoothed, mixed targets are written after train_imagenet.py and its LRScheduler.
    """

    WARMUP = 5

    def start(self) -> None:
        groups = [[], []]
        for parameter in self.model.parameters():
            groups[parameter.ndim > 1].append(parameter)
        parameters = [
            {"params": each, "weight_decay": decay}
            for each, decay in zip(groups, (0.0, 1e-4), strict=True)
        ]
        self.optimizer = torch.optim.SGD(
            parameters, lr=0.4 * self.scale, momentum=0.9, nesterov=True
        )

    def before(self, at: int) -> None:
        warm, total = self.WARMUP * self.steps, self.epochs * self.steps
        done = (at - warm) / (total - warm)
        rate = 0.4 * self.scale * (at / warm if at < warm else (1 + np.cos(np.pi * done)) / 2)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def mix(self, at: int, images: torch.Tensor, labels: torch.Tensor) -> Any:
        share = float(self.job["shares"][at])
        targets = nn.functional.one_hot(labels, self.classes).float()
        targets = targets * (1 - 0.1) + 0.1 / self.classes
        mixed = (share * each + (1 - share) * each.flip(0) for each in (images, targets))
        return tuple(mixed)

    def end_epoch(self, epoch: int) -> None:
        pass


class Bit(Original):
    """github.com/google-research/big_transfer, bit_pytorch/train.py: 10,000 steps.

    The schedule and mixup are written after bit_hyperrule.py and train.py.
    """

    def start(self) -> None:
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=0.003 * self.scale, momentum=0.9
        )
        self.supports = [self.epochs * self.steps * end // 20 for end in (1, 6, 12, 18, 20)]

    def before(self, at: int) -> None:
        warm, *drops, _ = self.supports
        rate = 0.003 * self.scale
        rate = rate * at / warm if at < warm else rate / 10 ** sum(end < at for end in drops)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def mix(self, at: int, images: torch.Tensor, labels: torch.Tensor) -> Any:
        share = float(self.job["shares"][at])
        self.share, partners = share, labels.flip(0)
        return share * images + (1 - share) * images.flip(0), (labels, partners)

    def loss(self, logits: torch.Tensor, targets: Any) -> torch.Tensor:
        own, partners = (self.criterion(logits, each) for each in targets)
        return self.share * own + (1 - self.share) * partners

    def end_epoch(self, epoch: int) -> None:
        pass


class StrikesBack(Original):
    """timm's train.py with the arguments of A1, A2 and A3 (arXiv 2110.00476, table 2)."""

    RATE, DECAY, MIXUP, SMOOTHING = 5e-3, 0.01, 0.2, 0.1

    def start(self) -> None:
        self.optimizer = create_optimizer_v2(
            self.model, opt="lamb", lr=self.RATE * self.scale, weight_decay=self.DECAY, momentum=0.9
        )
        self.schedule, _ = create_scheduler_v2(
            self.optimizer,
            sched="cosine",
            num_epochs=self.epochs,
            min_lr=1e-6 * self.scale,
            warmup_lr=1e-4 * self.scale,
            warmup_epochs=5,
        )
        self.criterion = BinaryCrossEntropy(target_threshold=0.2)
        self.mixup = timm_mixup.Mixup(
            mixup_alpha=self.MIXUP,
            cutmix_alpha=1.0,
            prob=1.0,
            switch_prob=0.5,
            label_smoothing=self.SMOOTHING,
            num_classes=self.classes,
        )

    def mix(self, at: int, images: torch.Tensor, labels: torch.Tensor) -> Any:
        numpy = timm_mixup.np
        draws = MixDraws(float(self.job["mix_shares"][at]), self.job["mix_draws"][at])
        stand_in = type("numpy", (), {"random": draws})
        for name in ("sqrt", "clip"):
            setattr(stand_in, name, staticmethod(getattr(numpy, name)))
        timm_mixup.np = stand_in
        mixed: Any = self.mixup(images.clone(), labels)
        timm_mixup.np = numpy
        return mixed

    def end_epoch(self, epoch: int) -> None:
        self.schedule.step(epoch + 1)


class A2(StrikesBack):
    """A2: 300 epochs."""

    DECAY, MIXUP, SMOOTHING = 0.02, 0.1, 0.0


class A3(StrikesBack):
    """A3: 100 epochs at 160 pixels."""

    RATE, DECAY, MIXUP, SMOOTHING = 8e-3, 0.02, 0.1, 0.0


ORIGINALS = {
    "akamaster": Akamaster,
    "torchvision_v1": TorchvisionV1,
    "torchvision_v2": TorchvisionV2,
    "bag_of_tricks": BagOfTricks,
    "bit": Bit,
    "timm_a1": StrikesBack,
    "timm_a2": A2,
    "timm_a3": A3,
}


def make_model(settings: dict[str, Any]) -> nn.Module:
    """Return a small model: akamaster's, or timm's ResNet, whose bottlenecks are torchvision's."""
    if settings["original"] == "akamaster":
        return Cifar(8, tuple(settings["widths"]))
    deep = {"stem_type": "deep", "avg_down": True} if settings["deep"] else {}
    return ResNet(
        Bottleneck,
        settings["depths"],
        num_classes=settings["classes"],
        channels=settings["widths"],
        stem_width=4 if deep else 64,
        **deep,
    )


def replay_masks(model: nn.Module, masks: np.ndarray, place: list[int]) -> None:
    """Drop the branches of the examples that the other side drops: masks [steps, blocks, n]."""

    def replay(branch: torch.Tensor, block: int) -> torch.Tensor:
        mask = torch.from_numpy(masks[place[0], block]).to(branch.dtype)
        return branch * mask[:, None, None, None]

    blocks = [each for each in model.modules() if isinstance(each, Bottleneck)]
    for number, block in enumerate(blocks):
        block.drop_path = functools.partial(replay, block=number)


def state(model: nn.Module, prefix: str) -> dict[str, np.ndarray]:
    """Return the weights and statistics of a model as arrays."""
    values = model.state_dict().items()
    return {f"{prefix}/{name}": value.numpy() for name, value in values if "tracked" not in name}


def main() -> None:
    torch.set_num_threads(1)
    job = np.load(Path(sys.argv[1]))
    settings = json.loads(str(job["settings"]))
    dtype = getattr(torch, settings["dtype"])
    model = make_model(settings).to(dtype)
    weights = {name[8:]: torch.from_numpy(job[name]) for name in job if name.startswith("weights/")}
    counters = {name for name in model.state_dict() if name.endswith("tracked")}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert set(missing) <= counters and not unexpected, (missing, unexpected)
    model.train()
    place = [0]
    if "masks" in job:
        replay_masks(model, job["masks"], place)
    original = ORIGINALS[settings["original"]](model, job, settings)
    losses, rates = [], []
    for epoch in range(original.epochs):
        for step in range(original.steps):
            at = place[0] = epoch * original.steps + step
            images = torch.from_numpy(job["images"][at]).permute(0, 3, 1, 2).contiguous()
            images, targets = original.mix(at, images, torch.from_numpy(job["labels"][at]).long())
            original.before(at)
            logits = model(images.to(dtype))
            if isinstance(targets, torch.Tensor) and targets.is_floating_point():
                targets = targets.to(dtype)
            loss = original.loss(logits, targets)
            original.optimizer.zero_grad()
            loss.backward()
            rates.append(original.optimizer.param_groups[0]["lr"])
            original.optimizer.step()
            original.after(at)
            losses.append(float(loss.detach()))
        original.end_epoch(epoch)
    result = state(model, "weights")
    if original.averaged is not None:
        result |= state(original.averaged.module, "averages")
    np.savez(sys.argv[2], losses=losses, rates=rates, **result)


if __name__ == "__main__":
    main()
