"""The keys of [augment] that do not depend on how an image is cropped."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from reszoo.validation.table import AS_TUPLE, References, Table

Fraction = Annotated[float, Field(gt=0, le=1)]
Strength = Annotated[float, Field(ge=0)]


class RandomChanges(Table):
    """Random changes to training images, in the order of the keys."""

    TABLE: ClassVar[str] = "augment"

    repeats: int = Field(
        1,
        ge=1,
        examples=[3],
        description="How often an image stands in a row in an epoch of unchanged length, which "
        "then shows fewer images (repeated augmentation, arXiv 1902.05509).",
    )
    flip: bool = Field(False, description="Mirror left and right with probability 0.5.")
    flip_mode: Literal["random", "alternating"] = Field(
        "random",
        description="`alternating` mirrors each image in every second epoch (arXiv 2404.00498, "
        "section 3.6). Not for datasets in TFRecord files.",
    )
    policy: Literal["none", "trivial", "rand", "auto_cifar", "auto_imagenet"] = Field(
        "none",
        description="`trivial`: TrivialAugment (arXiv 2103.10158). `rand`: RandAugment (arXiv "
        "1909.13719), as timm strengthens it. `auto_cifar`, `auto_imagenet`: AutoAugment (arXiv "
        "1805.09501).",
    )
    rand_layers: int = Field(2, ge=1, description="`rand`: operations per image.")
    rand_magnitude: Annotated[float, Field(ge=0, le=10)] = Field(
        9.0, description="`rand`: mean strength of an operation."
    )
    rand_noise: Strength = Field(
        0.5, description="`rand`: standard deviation of the strength, which stays in 0..10."
    )
    rand_probability: Fraction = Field(
        0.5, description="`rand`: probability that an operation is applied."
    )
    color_jitter: Annotated[tuple[Strength, Strength, Strength, Strength], AS_TUPLE] = Field(
        (0.0, 0.0, 0.0, 0.0),
        examples=[[0.4, 0.4, 0.4, 0.1]],
        description="Greatest change of brightness, contrast, saturation (as factors) and hue (as "
        "a part of the color circle, at most 0.5), in random order.",
    )
    color: Literal["none", "pca"] = Field(
        "none", description="`pca`: color noise of Krizhevsky et al. 2012, section 4.1."
    )
    extra: References = Field(
        (),
        examples=[["mine:augment"]],
        description="Your own functions of an image, float32 [h, w, c] in 0..255, and a seed, "
        "int64 [2], that return the changed image; or layers of Keras. They come before the "
        "normalization.",
    )
    erase: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0,
        examples=[0.25],
        description="Probability that a rectangle is erased (arXiv 1708.04896).",
    )
    erase_mode: Literal["constant", "pixel"] = Field(
        "constant", description="Fill the rectangle with 0 or with normal noise per pixel."
    )
    erase_area: Annotated[tuple[Fraction, Fraction], AS_TUPLE] = Field(
        (0.02, 0.33), description="[least, greatest] fraction of the image's area to erase."
    )
    mixup: Strength = Field(
        0.0,
        examples=[0.2],
        description="Parameter alpha of mixup (arXiv 1710.09412). 0: no mixup.",
    )
    cutmix: Strength = Field(
        0.0,
        examples=[1.0],
        description="Parameter alpha of CutMix (arXiv 1905.04899). 0: no CutMix.",
    )
    mix_probability: Fraction = Field(
        1.0, description="Probability that a batch is mixed, by mixup or CutMix."
    )
    cutmix_probability: Fraction = Field(
        0.5, description="Probability of CutMix in a mixed batch, where both have an alpha."
    )

    def check(self) -> None:
        """Raise ReszooError for keys that contradict each other or have no effect."""
        if not self.flip:
            self.reject_unused("flip_mode", "flip")
        elif self.flip_mode == "alternating" and self.repeats > 1:
            expected = f'"random" with augment.repeats = {self.repeats}'
            raise self.contradiction("flip_mode", expected, "random")
        if self.policy != "rand":
            for name in ("rand_layers", "rand_magnitude", "rand_noise", "rand_probability"):
                self.reject_unused(name, "policy")
        if self.color_jitter[3] > 0.5:
            expected = "a change of the hue of at most 0.5"
            raise self.contradiction("color_jitter", expected, [0.4, 0.4, 0.4, 0.1])
        if not self.erase:
            self.reject_unused("erase_mode", "erase")
            self.reject_unused("erase_area", "erase")
        if self.erase_area[0] > self.erase_area[1]:
            raise self.contradiction("erase_area", "two numbers in rising order", [0.02, 0.33])
        if not self.mixes:
            self.reject_unused("mix_probability", "mixup")
        for name in ("mixup", "cutmix"):
            if not getattr(self, name):
                self.reject_unused("cutmix_probability", name)

    @property
    def mixes(self) -> bool:
        """Whether labels become soft targets, float32 [n, classes]."""
        return bool(self.mixup or self.cutmix)

    def reject_mix_of(self, hosts: int) -> None:
        """Raise ReszooError if images are mixed with images that another host reads."""
        if self.mixes and hosts > 1:
            name = "mixup" if self.mixup else "cutmix"
            expected = f"0 on {hosts} hosts, because each reads only a part of a batch"
            raise self.contradiction(name, expected, 0)
