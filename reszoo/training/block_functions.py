"""A model called block by block, where equal blocks share one traced function.

A model of 1202 layers has 600 blocks of five kinds. TensorFlow traces every layer of it, forward
and backward, and then optimizes and places a graph of a hundred thousand nodes. Here each kind is
traced once, with its weights as arguments, and is called for every block of that kind. The
functions are not inlined, so that the runtime also prepares each only once.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import keras

from reszoo.lazy import tf
from reszoo.models.graph import Node, nodes
from reszoo.types import Tensor, Variable
from reszoo.zoo.layer_names import parse_block_layer

Traced: TypeAlias = Callable[[Tensor, list[Tensor]], tuple[Tensor, list[Tensor]]]
"""A traced block: input and values of its variables to output and changed values."""


@dataclass
class Group:
    """Consecutive nodes of a model's graph.

    Attributes:
        name: The name of their block; None for a single node.
        nodes: The nodes.
        entry: The id of the symbolic tensor that enters a block.
        exit: The id of the symbolic tensor that leaves a block.
    """

    name: str | None
    nodes: list[Node] = field(default_factory=list)
    entry: int = 0
    exit: int = 0

    @property
    def layers(self) -> list[keras.layers.Layer]:
        """The layers of the nodes."""
        return [
            node.operation for node in self.nodes if isinstance(node.operation, keras.layers.Layer)
        ]

    @property
    def variables(self) -> list[Variable]:
        """The variables of the layers."""
        return [variable for layer in self.layers for variable in layer.variables]

    @property
    def kind(self) -> str:
        """A text, equal for two groups that compute the same function of entry and variables."""
        places = {self.entry: 0}
        described = []
        for node in self.nodes:
            config = {
                key: value for key, value in node.operation.get_config().items() if key != "name"
            }
            given = [places[id(tensor)] for tensor in node.input_tensors]
            shapes = [(tuple(tensor.shape), str(tensor.dtype)) for tensor in node.input_tensors]
            trainable = getattr(node.operation, "trainable", None)
            described.append([type(node.operation).__qualname__, config, given, shapes, trainable])
            places |= {id(tensor): len(places) for tensor in node.outputs}
        return json.dumps(described, default=str, sort_keys=True)


class BlockByBlock:
    """Computes `model(images, training=True)`, with the same changes of statistics and seeds.

    Traced functions are for one replica, because layers cannot communicate with others in one.

    Args:
        model: A functional model with one input and one output.
        traced: Whether equal blocks share a traced function.
        checkpoint: Whether the backward pass computes each block again from its input, in place of
            keeping what is inside the block.

    Attributes:
        blocks: The number of blocks that are called as functions.
        kinds: The number of functions.
        values: The values that the last call read from variables, by the variable's id.
    """

    def __init__(
        self, model: keras.Model, *, traced: bool = True, checkpoint: bool = False
    ) -> None:
        self._model, self._traced, self._checkpoint = model, traced, checkpoint
        self._groups = split(model)
        self._functions: dict[str, Traced] = {}
        self._moved: dict[str, list[int]] = {}
        for group in self._groups:
            if group.name and group.kind not in self._functions:
                self._functions[group.kind] = self._function(group)
        self._kinds = [group.kind if group.name else "" for group in self._groups]
        self.values: dict[int, Tensor] = {}
        self.blocks, self.kinds = sum(map(bool, self._kinds)), len(self._functions)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits of images [n, h, w, c]; call it in a traced step."""
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

    def _function(self, group: Group) -> Traced:
        kind, variables = group.kind, group.variables

        def block(x: Tensor, values: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
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

        function: Traced = block
        if self._traced:
            function = tf.function(
                block, autograph=False, experimental_attributes={"_noinline": True}
            )
        return recompute(function) if self._checkpoint else function


def recompute(function: Traced) -> Traced:
    """Return a block whose gradient computes it again, and which keeps only its arguments.

    `tf.recompute_grad` makes the second computation wait for the gradient of the output; otherwise
    TensorFlow would start it at once.
    """

    def call(x: Tensor, values: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        learned = [at for at, value in enumerate(values) if value.dtype.is_floating]  # not seeds

        @tf.recompute_grad  # type: ignore[untyped-decorator]
        def flat(x: Tensor, *floats: Tensor) -> tuple[Tensor, ...]:
            every = list(values)
            for at, value in zip(learned, floats, strict=True):
                every[at] = value
            output, moved = function(x, every)
            return (output, *moved)

        output, *moved = flat(x, *(values[at] for at in learned))
        return output, moved

    return call


def run(steps: list[Node], tensors: dict[int, Tensor], *, training: bool = True) -> None:
    """Compute nodes, and add their outputs to `tensors`.

    Args:
        steps: The nodes.
        tensors: The value of each symbolic tensor, by its id.
        training: Whether layers compute as in training.
    """
    for node in steps:
        args, kwargs = node.arguments.fill_in(tensors)
        if "training" in getattr(node.operation, "_call_context_args", ()):
            kwargs["training"] = training
        outputs = node.operation(*args, **kwargs)
        for symbol, value in zip(node.outputs, keras.tree.flatten(outputs), strict=True):
            tensors[id(symbol)] = value


def split(model: keras.Model) -> list[Group]:
    """Return the nodes of a functional model of one input as groups, in the order of computation.

    Consecutive nodes whose layers are named as one block's are one group, if one tensor enters and
    one leaves.
    """
    groups: list[Group] = []
    steps = [node for node in nodes(model) if not node.is_input]
    for node in steps:
        found = parse_block_layer(node.operation.name)
        name = found.block_name if found else None
        if not name or not groups or groups[-1].name != name:
            groups.append(Group(name))
        groups[-1].nodes.append(node)
    read = [id(tensor) for node in steps for tensor in node.input_tensors]
    read += [id(tensor) for tensor in model.outputs]
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
