"""PyTorch's sides of a comparison. Their environment may lack reszoo."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from typing import Any

from reszoo.bench.sides import (
    INPUT_IMAGES,
    LEARNING_RATE,
    MOMENTUM,
    WEIGHT_DECAY,
    Calls,
    Job,
    Side,
    repeat,
)

WORKERS = 2  # processes of torch's loader


class Torch(Side):
    """torchvision's model, or the CIFAR model of He et al. with option A; channels last, SGD."""

    compiled = False

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        import torch

        self.torch = torch
        torch.set_num_threads(job.threads)
        self.require_gpu("PyTorch", torch.cuda.is_available)
        self.device = "cuda" if job.device == "gpu" else "cpu"
        self.versions = {"torch": torch.__version__}
        if job.what != "input":
            self.make_model = self.find_model()
        if job.what == "first-step":
            torch.zeros(1, device=self.device).item()  # starts the device

    def find_model(self) -> Callable[[], Any]:
        """Return what makes the job's model."""
        name, classes = self.job.model, self.job.classes
        if (found := re.fullmatch(r"(resnet|plain)(\d+)", name)) and self.job.size == 32:
            plain, depth = found[1] == "plain", int(found[2])
            return lambda: make_cifar(self.torch, depth, plain=plain, classes=classes)
        import torchvision

        self.versions["torchvision"] = torchvision.__version__
        if name not in torchvision.models.list_models(module=torchvision.models):
            raise LookupError(f"torchvision has no {name}")
        return lambda: torchvision.models.get_model(name, num_classes=classes)

    def make(self) -> Any:
        """Make the job's model."""
        return self.make_model()

    def build(self) -> Any:
        """Make the model on its device."""
        return self.make().to(self.device, memory_format=self.torch.channels_last)

    def count(self, model: Any) -> int:
        """Return the number of parameters."""
        return sum(weight.numel() for weight in model.parameters())

    def train(self, model: Any) -> Calls:
        """Return training steps on one batch."""
        torch = self.torch
        model.train()
        optimizer = torch.optim.SGD(
            model.parameters(), LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
        )
        images, labels = self.make_batch()
        run = torch.compile(model) if self.compiled else model

        def call() -> None:
            optimizer.zero_grad()
            with torch.autocast(self.device, torch.bfloat16, enabled=self.job.is_low):
                loss = torch.nn.functional.cross_entropy(run(images), labels)
            loss.backward()
            optimizer.step()
            if self.device == "cpu":
                loss.item()

        return repeat(call, torch.cuda.synchronize if self.device == "cuda" else None)

    def infer(self, model: Any) -> Calls:
        """Return inference on one batch."""
        torch = self.torch
        model.eval()
        images, _ = self.make_batch()
        run = torch.compile(model) if self.compiled else model

        def call() -> None:
            low = torch.autocast(self.device, torch.bfloat16, enabled=self.job.is_low)
            with torch.inference_mode(), low:
                run(images).cpu()

        return repeat(call)

    def make_batch(self) -> tuple[Any, Any]:
        """Return the job's batch on the device."""
        images, labels = (self.torch.from_numpy(value) for value in self.job.make_batch())
        images = images.permute(0, 3, 1, 2).to(self.device, memory_format=self.torch.channels_last)
        return images, labels.long().to(self.device)

    def open_input(self) -> Iterator[Any]:
        """Return batches of torchvision's transforms, made by two processes."""
        import numpy
        import torchvision
        from PIL import Image
        from torchvision import transforms

        self.versions |= {"torchvision": torchvision.__version__, "workers": str(WORKERS)}
        end = [
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.5,) * 3, (0.25,) * 3),
        ]

        class Cifar(self.torch.utils.data.Dataset):  # type: ignore[misc, name-defined]
            images = numpy.random.default_rng(0).integers(
                0, 256, (INPUT_IMAGES, 32, 32, 3), dtype=numpy.uint8
            )
            augment = transforms.Compose([transforms.RandomCrop(32, 4), *end])

            def __len__(self) -> int:
                return len(self.images)

            def __getitem__(self, index: int) -> Any:
                return self.augment(Image.fromarray(self.images[index])), index % 10

        augment = transforms.Compose([transforms.RandomResizedCrop(224), *end])
        loader = self.torch.utils.data.DataLoader(
            Cifar()
            if self.job.model == "cifar"
            else torchvision.datasets.ImageFolder(os.path.join(self.job.folder, "train"), augment),
            self.job.batch,
            shuffle=True,
            num_workers=WORKERS,
            persistent_workers=True,
            drop_last=True,
        )

        def batches() -> Iterator[Any]:
            while True:
                yield from loader

        return batches()


class TorchCompile(Torch):
    """The same under torch.compile."""

    compiled = True


class Timm(Torch):
    """timm's model of that name, in PyTorch."""

    def find_model(self) -> Callable[[], Any]:
        """Return what makes the job's model."""
        import timm

        job, self.versions = self.job, {"timm": timm.__version__} | self.versions
        if job.model not in timm.list_models() or job.size == 32:
            raise LookupError(f"timm has no {job.model} of {job.size} x {job.size}")
        return lambda: timm.create_model(job.model, num_classes=job.classes)


def make_cifar(torch: Any, depth: int, *, plain: bool, classes: int) -> Any:
    """Make the CIFAR model: three stages of 16, 32 and 64 channels, shortcut option A.

    Reference: arXiv 1512.03385, section 4.2.
    """
    nn, functional = torch.nn, torch.nn.functional

    class Block(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, before: int, after: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(after)
            self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(after)
            self.stride, self.pad = stride, (after - before) // 2

        def forward(self, x: Any) -> Any:
            y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
            if plain:
                return functional.relu(y)
            if self.stride > 1:
                x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
            return functional.relu(x + y)

    layers = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    before = 16
    for after in (16, 32, 64):
        for index in range((depth - 2) // 6):
            layers.append(Block(before, after, 2 if index == 0 and after > 16 else 1))
            before = after
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))
