"""Layer names of a model: `stem_...`, `stage2_block3_conv1`, `head_...`."""

from __future__ import annotations

import re
from dataclasses import dataclass

_BLOCK = re.compile(r"stage(\d+)_block(\d+)_(\w+)")
_GROUP = re.compile(r"(stem|stage\d+|head)_")


@dataclass(frozen=True)
class BlockLayer:
    """A layer inside a residual block.

    Attributes:
        stage: Number of its stage, from 1.
        block: Number of its block in the stage, from 1.
        part: What it is, such as "conv1" or "shortcut_bn".
    """

    stage: int
    block: int
    part: str

    @property
    def stage_name(self) -> str:
        """The name of its stage, such as "stage2"."""
        return f"stage{self.stage}"

    @property
    def block_name(self) -> str:
        """The name of its block, such as "stage2_block3"."""
        return f"stage{self.stage}_block{self.block}"


def parse_block_layer(name: str) -> BlockLayer | None:
    """Return what the name of a layer inside a block says, None for any other layer."""
    found = _BLOCK.fullmatch(name)
    return BlockLayer(int(found[1]), int(found[2]), found[3]) if found else None


def parse_layer_group(name: str) -> str:
    """Return the group of a layer, "stem", "stage1", ... or "head"; "" for any other layer."""
    found = _GROUP.match(name)
    return found[1] if found else ""
