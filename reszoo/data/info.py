"""What a dataset holds, as recorded in run.json."""

from __future__ import annotations

from dataclasses import dataclass, field

from reszoo.data.dataset import ArraySplit, FileSplit, ImageDataset, count_images
from reszoo.images.preprocessing import Preprocessing
from reszoo.types import JsonMapping, JsonObject


@dataclass(frozen=True)
class DataInfo:
    """What a dataset holds.

    Attributes:
        name: The recipe's `data.name`.
        class_names: In label order.
        input_shape: Height, width and channels of the model's input.
        examples: Number of examples of the splits train, validation and test.
        skipped: Files that cannot be decoded and were skipped.
        ignored: How many files of a folder are not images, by kind.
        class_counts: For each split, the number of examples of each class. A streamed split whose
            labels are unknown is absent.
        fingerprint: What identifies the images wherever they lie (`reszoo.data.fingerprint`).
        found_size: The input's size and the sizes that it was found from, or "" if it was given.
    """

    name: str
    class_names: tuple[str, ...]
    input_shape: tuple[int, int, int]
    examples: dict[str, int]
    skipped: tuple[str, ...] = ()
    ignored: dict[str, int] = field(default_factory=dict)
    class_counts: dict[str, list[int]] = field(default_factory=dict)
    fingerprint: JsonMapping = field(default_factory=dict)
    found_size: str = ""

    @classmethod
    def of(cls, dataset: ImageDataset, preprocessing: Preprocessing) -> DataInfo:
        """Describe a dataset whose images are converted by `preprocessing`."""
        counts = {name: split.count for name, split in dataset.splits.items()}
        return cls(
            name=dataset.name,
            class_names=dataset.class_names,
            input_shape=preprocessing.input_shape,
            examples={name: counts.get(name, 0) for name in ("train", "validation", "test")},
            skipped=dataset.skipped,
            ignored=dict(dataset.ignored),
            class_counts={
                name: count_images(split.labels, len(dataset.class_names)).tolist()
                for name, split in dataset.splits.items()
                if isinstance(split, ArraySplit | FileSplit)
            },
            fingerprint=dataset.fingerprint,
            found_size=dataset.found_size,
        )

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    def to_dict(self) -> JsonObject:
        """Return a JSON-able dict."""
        return {
            "name": self.name,
            "classes": self.classes,
            "class_names": list(self.class_names),
            "input_shape": list(self.input_shape),
            "examples": self.examples,
            "class_counts": self.class_counts,
            "skipped": list(self.skipped),
            "ignored": self.ignored,
            "fingerprint": dict(self.fingerprint),
            "found_size": self.found_size,
        }
