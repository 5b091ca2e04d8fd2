"""The private parts of Keras, KerasTuner and TensorFlow that reszoo uses, each checked on its own.

After an upgrade, a failure here names the library's version and the part that changed, before training fails or is wrong.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import pytest
import tensorflow as tf
from google.protobuf import __version__ as protobuf_version
from google.protobuf.json_format import MessageToDict

import reszoo
from reszoo.models.graph import POSITIVE_OPS
from reszoo.training.callback_state import REMADE

PACKAGE = Path(reszoo.__file__).parent


def parameters(function: Callable[..., Any]) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


def attributes(*kinds: type) -> set[str]:
    """Return the names of the attributes that the methods of classes and their bases read, set or call."""
    bases = {base for kind in kinds for base in kind.__mro__ if base is not object}
    return {name for base in bases for name in re.findall(r"self\.(\w+)", inspect.getsource(base))}


def model() -> keras.Model:
    x = keras.Input((4, 4, 1))
    return keras.Model(
        x, keras.layers.Dense(2)(keras.layers.Flatten()(keras.layers.Dropout(0.5)(x)))
    )


# Keras' graph: models/graph.py, training/block_functions.py


def keras_history() -> bool:
    net = model()
    operation, node, tensor = net.output._keras_history
    history = net.output._keras_history
    return operation is net.layers[-1] and (node, tensor) == (0, 0) == (
        history.node_index,
        history.tensor_index,
    )


def inbound_nodes() -> bool:
    net = model()
    return net.layers[-1]._inbound_nodes[0].input_tensors[0] is net.layers[-2].output


def outbound_nodes() -> bool:
    net = model()
    return [node.operation for node in net.layers[-2]._outbound_nodes] == [net.layers[-1]]


def nodes_by_depth() -> bool:
    net = model()
    (last,) = net._nodes_by_depth[0]
    (first,) = net._nodes_by_depth[max(net._nodes_by_depth)]
    return (
        last.operation is net.layers[-1]
        and last.outputs[0] is net.output
        and first.is_input
        and not last.is_input
    )


def arguments_of_a_node() -> bool:
    (node,) = model()._nodes_by_depth[0]
    value = keras.ops.ones((1, 16))
    args, kwargs = node.arguments.fill_in({id(node.input_tensors[0]): value})
    return args[0] is value and not any(map(keras.utils.is_keras_tensor, kwargs.values()))


def call_context_args() -> bool:
    return "training" in keras.layers.Dropout(0.5)._call_context_args


def flatten_layers() -> bool:
    net = model()
    return (
        net._flatten_layers(include_self=True)[0] is net
        and net._flatten_layers(include_self=False) == net.layers
    )


def modules_of_operations() -> bool:
    x = keras.Input((2,))
    calls = {
        "Relu": keras.ops.relu, "Relu6": keras.ops.relu6, "Sigmoid": keras.ops.sigmoid,
        "HardSigmoid": keras.ops.hard_sigmoid, "Softplus": keras.ops.softplus, "Softmax": keras.ops.softmax,
        "Absolute": keras.ops.absolute, "Square": keras.ops.square, "Exp": keras.ops.exp,
    }  # fmt: skip
    found = {name: type(call(x)._keras_history.operation) for name, call in calls.items()}
    return set(found) == set(POSITIVE_OPS) and all(
        kind.__name__ == name and kind.__module__.startswith("keras.src.ops.")
        for name, kind in found.items()
    )


# Keras' optimizers, metrics and callbacks: training/step.py, training/callbacks.py, where a run is compiled


def optimizer_parts() -> bool:
    net, optimizer = model(), keras.optimizers.SGD(0.25, momentum=0.9)
    optimizer.build(net.trainable_variables)
    index = optimizer._get_variable_index(net.trainable_variables[1])
    lamb = keras.optimizers.Lamb(0.25)
    lamb.build(net.trainable_variables)
    slots = [tuple(slot.shape) for slot in (lamb._momentums[0], lamb._velocities[0])]
    assert slots == [tuple(net.trainable_variables[0].shape)] * 2
    return index == 1 and len(optimizer.momentums) == 2 and float(optimizer._learning_rate) == 0.25


def compile_metrics() -> bool:
    net = model()
    net.compile("sgd", "mse", metrics=["accuracy"])
    net._compile_metrics.build(keras.ops.zeros((1,)), keras.ops.zeros((1, 2)))
    return net._compile_metrics.built and "accuracy" in [
        metric.name for metric in net._compile_metrics.metrics
    ]


def attributes_of_callbacks() -> bool:
    callbacks = keras.callbacks
    known = attributes(
        callbacks.TensorBoard, callbacks.ProgbarLogger, callbacks.CSVLogger, callbacks.EarlyStopping
    )
    return known >= REMADE


# TensorFlow: training/block_functions.py, serving/servable.py


def noinline() -> bool:
    function = tf.function(lambda x: x + 1, experimental_attributes={"_noinline": True})
    return function.get_concrete_function(tf.TensorSpec([])).function_def.attr["_noinline"].b


def saved_model_proto() -> bool:
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    return "signature_def" in SavedModel().meta_graphs.add().DESCRIPTOR.fields_by_name


def message_to_dict() -> bool:
    wanted = {"preserving_proto_field_name", "always_print_fields_with_no_presence"}
    return wanted <= set(parameters(MessageToDict))


# KerasTuner: tuning/oracle.py, tuning/tuner.py, tuning/workers.py


def hooks_of_the_oracle() -> bool:
    oracle = keras_tuner.oracles.RandomSearchOracle(keras_tuner.Objective("score", "max"), seed=3)
    saves = parameters(keras_tuner.Oracle._save_trial) == ["trial"]
    return saves and oracle._retry_queue == []


def hooks_of_the_tuner() -> bool:
    from keras_tuner.engine.base_tuner import BaseTuner

    return (
        parameters(BaseTuner._run_and_update_trial) == ["trial", "fit_args", "fit_kwargs"]
        and parameters(BaseTuner._try_run_and_update_trial) == ["trial", "fit_args", "fit_kwargs"]
        and {"_try_run_and_update_trial", "_get_tuner_fname"} <= attributes(BaseTuner)
    )


def servicer() -> bool:
    from keras_tuner.src import protos
    from keras_tuner.src.distribute.oracle_chief import OracleServicer

    calls = ("CreateTrial", "UpdateTrial", "EndTrial", "GetSpace")
    return (
        all(parameters(vars(OracleServicer)[call]) == ["request", "context"] for call in calls)
        and hasattr(protos.get_service_grpc(), "add_OracleServicer_to_server")
        and hasattr(protos.get_service(), "CreateTrialRequest")
    )


def locks() -> bool:
    from keras_tuner.src.engine.oracle import LOCKS, THREADS

    held = []
    oracle = keras_tuner.Oracle()
    keras_tuner.synchronized(lambda self: held.append((LOCKS[oracle].locked(), THREADS[oracle])))(
        oracle
    )
    return (
        held[0][0]
        and isinstance(held[0][1], str)
        and not LOCKS[oracle].locked()
        and THREADS[oracle] is None
    )


# TensorFlow: training/watchdog.py


def abort_of_collectives() -> bool:
    from tensorflow.python.eager import context

    return parameters(context.context().abort_collective_ops) == ["code", "message"]


KERAS, TUNER = f"Keras {keras.__version__}", f"KerasTuner {keras_tuner.__version__}"
TENSORFLOW, PROTOBUF = f"TensorFlow {tf.__version__}", f"protobuf {protobuf_version}"
# (library, the names that it checks, the check)
USES: list[tuple[str, str, Callable[[], bool]]] = [
    (KERAS, "_keras_history", keras_history),
    (KERAS, "_inbound_nodes", inbound_nodes),
    (KERAS, "_outbound_nodes", outbound_nodes),
    (KERAS, "_nodes_by_depth", nodes_by_depth),
    (KERAS, "Node.arguments.fill_in", arguments_of_a_node),
    (KERAS, "_call_context_args", call_context_args),
    (KERAS, "_flatten_layers", flatten_layers),
    (KERAS, "keras.src.ops.", modules_of_operations),
    (KERAS, "_get_variable_index _learning_rate _momentums _velocities", optimizer_parts),
    (KERAS, "_compile_metrics", compile_metrics),
    (KERAS, " ".join(sorted(REMADE)), attributes_of_callbacks),
    (TENSORFLOW, "_noinline", noinline),
    (TENSORFLOW, "tensorflow.core.protobuf.saved_model_pb2", saved_model_proto),
    (TENSORFLOW, "tensorflow.python.eager", abort_of_collectives),
    (PROTOBUF, "MessageToDict", message_to_dict),
    (TUNER, "_save_trial _retry_queue", hooks_of_the_oracle),
    (TUNER, "_run_and_update_trial _try_run_and_update_trial _get_tuner_fname", hooks_of_the_tuner),
    (TUNER, "keras_tuner.src keras_tuner.src.distribute.oracle_chief", servicer),
    (TUNER, "keras_tuner.src.engine.oracle", locks),
]


@pytest.mark.parametrize(
    ("library", "names", "check"), USES, ids=[check.__name__ for _, _, check in USES]
)
def test_a_private_part_is_what_reszoo_expects(
    library: str, names: str, check: Callable[[], bool]
) -> None:
    try:
        fits, reason = check(), "behaves differently"
    except Exception as error:  # whatever its removal raises
        fits, reason = False, f"raises {error!r}"
    assert fits, f"{library}: {names} {reason}; adapt reszoo or limit the version in pyproject.toml"


def test_every_private_use_is_named_here() -> None:
    """A use is an attribute `_name` that reszoo itself does not define, or a private module."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    own = {
        node.name
        for node in nodes
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    own |= {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }
    own |= {
        node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    read = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    used = {name for name in read - own if name.startswith("_") and not name.startswith("__")}
    modules = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    modules |= {
        alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names
    }
    private = (
        "keras.src",
        "keras_tuner.src",
        "tensorflow.core",
        "tensorflow.python",
        "tensorflow.tsl",
    )
    used |= {name for name in modules if name.startswith(private)}
    named = {name for _, names, _ in USES for name in names.split()}
    assert "_keras_history" in used and not used - named
