"""A net called block by block, where blocks that are alike share one traced function.

A net of 1202 layers has 600 blocks of five kinds. TensorFlow traces every layer of it, forward and backward, and then optimises and
places a graph of a hundred thousand nodes; here each kind is traced once, with its weights as arguments, and called for every block of
that kind. The functions are not inlined, so that the runtime prepares each once too.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras

from reszoo.lazy import tf
from reszoo.models.graph import nodes
from reszoo.zoo.layer_names import parse_block_layer


@dataclass
class Group:
    """Consecutive nodes of a model's graph: what a block does. Those without a name of a block stand alone."""

    name: str | None
    nodes: list[Any] = field(default_factory=list)
    entry: int = 0  # ids of the symbolic tensors that go in and come out
    exit: int = 0

    @property
    def layers(self) -> list[Any]:
        """The layers of the nodes."""
        return [
            node.operation for node in self.nodes if isinstance(node.operation, keras.layers.Layer)
        ]

    @property
    def variables(self) -> list[Any]:
        """The variables of the layers."""
        return [variable for layer in self.layers for variable in layer.variables]

    @property
    def kind(self) -> str:
        """Equal for two groups that compute the same of their entry and variables."""
        places = {self.entry: 0}
        told = []
        for node in self.nodes:
            config = {
                key: value for key, value in node.operation.get_config().items() if key != "name"
            }
            given = [places[id(tensor)] for tensor in node.input_tensors]
            shapes = [(tuple(tensor.shape), str(tensor.dtype)) for tensor in node.input_tensors]
            trainable = getattr(node.operation, "trainable", None)
            told.append([type(node.operation).__qualname__, config, given, shapes, trainable])
            places |= {id(tensor): len(places) for tensor in node.outputs}
        return json.dumps(told, default=str, sort_keys=True)


class BlockByBlock:
    """Computes what `model(images, training=True)` computes, and moves the same statistics and seeds.

    `kinds` is how many functions serve how many `blocks`; `values` are what the last call read of their variables, by the variable's id.
    For one replica: what a layer asks of other replicas would be asked inside a function.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._groups = split(model)
        self._functions: dict[str, Callable[..., Any]] = {}
        self._moved: dict[str, list[int]] = {}
        for group in self._groups:
            if group.name and group.kind not in self._functions:
                self._functions[group.kind] = self._function(group)
        self._kinds = [group.kind if group.name else "" for group in self._groups]
        self.values: dict[int, Any] = {}
        self.blocks, self.kinds = sum(map(bool, self._kinds)), len(self._functions)

    def __call__(self, images: Any) -> Any:
        """Return the logits; a part of a traced step."""
        self.values = {}
        tensors = {id(self._model.inputs[0]): tf.cast(images, self._model.inputs[0].dtype)}
        for group, kind in zip(self._groups, self._kinds, strict=True):
            if not kind:
                run(group.nodes, tensors)
                continue
            variables = group.variables
            values = [tf.convert_to_tensor(variable.value) for variable in variables]
            self.values |= {
                id(variable): value for variable, value in zip(variables, values, strict=True)
            }
            tensors[group.exit], moved = self._functions[kind](tensors[group.entry], values)
            for index, value in zip(self._moved[kind], moved, strict=True):
                variables[index].value.assign(value, read_value=False)
        return tensors[id(self._model.outputs[0])]

    def _function(self, group: Group) -> Callable[..., Any]:
        kind, variables = group.kind, group.variables

        def block(x: Any, values: list[Any]) -> Any:
            tensors = {group.entry: x}
            with keras.StatelessScope(
                state_mapping=list(zip(variables, values, strict=True))
            ) as scope:
                run(group.nodes, tensors)
                now = [scope.get_current_value(variable) for variable in variables]
            self._moved[kind] = [
                at for at, (new, old) in enumerate(zip(now, values, strict=True)) if new is not old
            ]
            return tensors[group.exit], [now[at] for at in self._moved[kind]]

        traced: Callable[..., Any] = tf.function(
            block, autograph=False, experimental_attributes={"_noinline": True}
        )
        return traced


def run(steps: list[Any], tensors: dict[int, Any]) -> None:
    """Go through nodes in training, adding to `tensors` what each gives, by the id of its symbolic tensor."""
    for node in steps:
        args, kwargs = node.arguments.fill_in(tensors)
        if "training" in getattr(node.operation, "_call_context_args", ()):
            kwargs["training"] = True
        outputs = node.operation(*args, **kwargs)
        for symbol, value in zip(node.outputs, keras.tree.flatten(outputs), strict=True):
            tensors[id(symbol)] = value


def split(model: keras.Model) -> list[Group]:
    """Return the nodes of a functional model of one input as groups, in the order in which they are computed.

    Nodes whose layers are named as one block's are one group, if they follow each other and only one tensor enters and one leaves.
    """
    groups: list[Group] = []
    steps = [node for node in nodes(model) if not node.is_input]
    for node in steps:
        found = parse_block_layer(node.operation.name)
        name = found.block_name if found else None
        if not name or not groups or groups[-1].name != name:
            groups.append(Group(name))
        groups[-1].nodes.append(node)
    read = [id(tensor) for node in steps for tensor in node.input_tensors] + [
        id(t) for t in model.outputs
    ]
    names = [group.name for group in groups]
    whole: list[Group] = []
    for group in groups:
        made = {id(tensor) for node in group.nodes for tensor in node.outputs}
        entries = {id(tensor) for node in group.nodes for tensor in node.input_tensors} - made
        inside = [id(tensor) for node in group.nodes for tensor in node.input_tensors]
        exits = {tensor for tensor in made if read.count(tensor) > inside.count(tensor)}
        if group.name and names.count(group.name) == 1 and len(entries) == len(exits) == 1:
            (group.entry,), (group.exit,) = entries, exits
            whole.append(group)
        else:
            whole.extend(Group(None, [node]) for node in group.nodes)
    return whole
