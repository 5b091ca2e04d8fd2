"""Number the layers of Keras files whose names say nothing, such as `conv2d_21`, by structure.

A file of a whole model holds its graph as JSON, which states where each layer stands. Files of
weights alone are numbered by Keras in the order in which the program made the layers.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from reszoo.types import Array

_NUMBERED = re.compile(r"(?:conv2d|batch_normalization|dense)(?:_(\d+))?")


def number_layers(arrays: Mapping[str, Array], config: str | bytes = "") -> dict[str, Array]:
    """Rename the arrays of a residual classifier to `conv_1/kernel`, `bn_1/gamma`, `dense_1/bias`.

    Numbers rise from input to output. In a block the branch comes before the shortcut.

    Args:
        arrays: By `layer/variable`.
        config: The JSON text of the model, if the file holds it.

    Returns:
        The arrays, renamed if the names are Keras' default ones.
    """
    names = list(dict.fromkeys(name.rpartition("/")[0] for name in arrays))
    found = [_NUMBERED.fullmatch(name) for name in names]
    if not all(found):
        return dict(arrays)
    ordered = _order_by_graph(config)
    if not set(names) <= set(ordered):
        made = {match[0]: int(match[1] or 0) for match in found if match}
        ordered = sorted(names, key=made.__getitem__)
    numbers: Counter[str] = Counter()
    renamed = {}
    for name in (name for name in ordered if name in names):
        kind = "conv" if name.startswith("conv") else "bn" if name.startswith("b") else "dense"
        numbers[kind] += 1
        renamed[name] = f"{kind}_{numbers[kind]}"
    return {
        f"{renamed[layer]}/{variable}": array
        for name, array in arrays.items()
        for layer, _, variable in [name.rpartition("/")]
    }


def _order_by_graph(config: str | bytes) -> list[str]:
    """Return the layers of a graph from input to output; [] if it is not a residual classifier."""
    try:
        layers = json.loads(config)["config"]["layers"]
        sources = {
            layer["config"]["name"]: list(_find_sources(layer.get("inbound_nodes")))
            for layer in layers
        }
        return _walk(sources)
    except (ValueError, KeyError, TypeError):
        return []


def _walk(sources: Mapping[str, list[str]]) -> list[str]:
    """Return the layers from input to output.

    Raises:
        ValueError: If the graph is not one chain of blocks with two ways each.
    """
    uses = Counter(source for names in sources.values() for source in names)

    def follow(name: str, *, to_fork: bool) -> tuple[list[str], str]:
        chain: list[str] = []
        while len(sources[name]) == 1 and (uses[name] == 1 or not to_fork):
            chain.append(name)
            (name,) = sources[name]
            if len(chain) > len(sources):
                raise ValueError("the graph has a cycle")
        return chain, name

    (layer,) = (name for name in sources if not uses[name])
    backwards: list[str] = []
    for _ in sources:
        chain, layer = follow(layer, to_fork=False)
        backwards += chain
        if not sources[layer]:
            return backwards[::-1]
        chains, ends = zip(*(follow(name, to_fork=True) for name in sources[layer]), strict=True)
        (layer,) = set(ends)
        for chain in sorted(chains, key=len):  # the branch is the longer one
            backwards += chain
    raise ValueError("the graph has a cycle")


def _find_sources(node: Any) -> Iterator[str]:
    """Yield the names of layers in `inbound_nodes` of Keras 2 or 3: [name, node, tensor, ...]."""
    if isinstance(node, list) and len(node) > 2 and isinstance(node[0], str):
        yield node[0]
    elif isinstance(node, list | dict):
        for value in node.values() if isinstance(node, dict) else node:
            yield from _find_sources(value)
