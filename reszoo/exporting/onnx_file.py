"""A net as an ONNX file, in float32 or quantised."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reszoo.data.preprocessing import Preprocessing
from reszoo.exporting.half import SMALL, to_half
from reszoo.exporting.pixels import PixelClassifier

OPSET = 17
"""The newest that tf2onnx 1.17 writes well; every onnxruntime since 1.12 reads it."""


def write_onnx(
    path: Path,
    model: Any,
    preprocessing: Preprocessing,
    *,
    precision: str,
    calibration: np.ndarray | None,
    class_names: Sequence[str],
) -> None:
    """Write a float32 Keras model to the file `path`, checked by `onnx.checker`.

    `images` float32 [n, height, width, c], pixels 0..255, gives `logits` and `probabilities`, float32 [n, classes]; n is free.
    precision: "float32"; "float16" keeps weights in half precision and computes in float32; "int8" computes in 8 bits, its ranges
    found on `calibration` (uint8 [n, height, width, c]) by onnxruntime's static quantisation: weights int8, a scale for each
    channel, activations uint8. Class names and preprocessing stand in the file's metadata.
    """
    import onnx
    import tf2onnx

    classify = PixelClassifier(model, preprocessing).classify
    proto, _ = tf2onnx.convert.from_function(
        classify, input_signature=classify.input_signature, opset=OPSET
    )
    _pad_in_pooling(proto)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    for output in proto.graph.output:
        output.type.tensor_type.shape.dim[0].dim_param = "n"
    if precision == "float16":
        _halve(proto)
    if precision == "int8":
        assert calibration is not None
        proto = _quantised(proto, calibration)
    proto.producer_name, proto.doc_string = "reszoo", ""
    del proto.metadata_props[:]
    onnx.helper.set_model_props(
        proto,
        {
            "class_names": json.dumps(list(class_names), ensure_ascii=False),
            "preprocessing": json.dumps(preprocessing.to_dict()),
        },
    )
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString())


def _pad_in_pooling(proto: Any) -> None:
    """Let a maximum over a rectified, zero-padded map do its own padding: the same, for nothing there is less than zero.

    onnxruntime pads in a layout of its own, and turns the largest map of the net into it and back for a Pad node.
    """
    from onnx import helper, numpy_helper

    graph = proto.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    readers = [name for node in graph.node for name in node.input] + [
        output.name for output in graph.output
    ]
    for pool in [node for node in graph.node if node.op_type == "MaxPool"]:
        pad = makers.get(pool.input[0])
        if pad is None or pad.op_type != "Pad" or readers.count(pad.output[0]) > 1:
            continue
        source = makers.get(pad.input[0])
        sides = constants.get(pad.input[1])
        filled = (
            constants.get(pad.input[2], np.ones(1))
            if len(pad.input) > 2 and pad.input[2]
            else np.zeros(1)
        )
        own = {
            attribute.name: helper.get_attribute_value(attribute) for attribute in pool.attribute
        }
        if (
            source is None
            or source.op_type != "Relu"
            or sides is None
            or len(sides) != 8  # n, c, h, w before; n, c, h, w after
            or sides[[0, 1, 4, 5]].any()
            or np.any(filled)
            or any(own.get("pads", []))
            or own.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")
        ):
            continue
        del pool.attribute[:]
        own = {name: value for name, value in own.items() if name not in ("auto_pad", "pads")}
        own["pads"] = [int(side) for side in sides[[2, 3, 6, 7]]]
        pool.attribute.extend(helper.make_attribute(name, value) for name, value in own.items())
        pool.input[0] = pad.input[0]
        graph.node.remove(pad)


def _halve(proto: Any) -> None:
    """Keep the larger weights in float16, each with a cast to float32, which a runtime does once, when it loads."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in proto.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size >= SMALL:
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(to_half(values), f"{name}_float16"))
            casts.append(
                helper.make_node(
                    "Cast", [tensor.name], [name], to=TensorProto.FLOAT, name=f"{name}_cast"
                )
            )
    nodes = [*casts, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def _quantised(proto: Any, calibration: np.ndarray) -> Any:
    """Return the same net in 8 bits."""
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.registry import QDQRegistry
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.left, None)
            return None if image is None else {"images": image[np.newaxis].astype(np.float32)}

    with tempfile.TemporaryDirectory(prefix="reszoo-onnx-") as name:
        plain, ready, done = (Path(name) / f"{step}.onnx" for step in ("plain", "ready", "done"))
        onnx.save(proto, plain)
        quant_pre_process(str(plain), str(ready), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(ready),
            str(done),
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=[
                kind for kind in QDQRegistry if kind != "Softmax"
            ],  # of the few classes' numbers: no gain
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        return onnx.load(done)
