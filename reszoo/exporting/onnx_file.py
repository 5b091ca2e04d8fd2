"""Models as ONNX files."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from reszoo.exporting.float16 import to_float16
from reszoo.exporting.formats import Artifact
from reszoo.exporting.pixels import PixelClassifier
from reszoo.types import Array

OPSET = 17  # the newest that tf2onnx 1.17 writes well; every onnxruntime since 1.12 reads it


def write_onnx(path: Path, artifact: Artifact) -> None:
    """Write an artifact to the ONNX file `path`, checked by `onnx.checker`.

    Inputs and outputs are those of `PixelClassifier`, for any n. "float16" stores weights in half
    precision and computes in float32. "int8" is onnxruntime's static quantization: int8 weights
    with a scale per channel, uint8 activations. Class names and preprocessing are in the file's
    metadata.
    """
    import onnx
    import tf2onnx

    classify = PixelClassifier(artifact).classify
    proto, _ = tf2onnx.convert.from_function(
        classify, input_signature=classify.input_signature, opset=OPSET
    )
    _pad_in_pooling(proto)
    for value in (proto.graph.input[0], *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "n"
    if artifact.precision == "float16":
        _halve(proto)
    if artifact.calibration is not None:
        proto = _quantize(proto, artifact.calibration)
    proto.producer_name, proto.doc_string = "reszoo", ""
    del proto.metadata_props[:]
    texts = {
        "class_names": json.dumps(list(artifact.class_names), ensure_ascii=False),
        "preprocessing": json.dumps(artifact.preprocessing.to_dict()),
    }
    onnx.helper.set_model_props(proto, texts)
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString())


def _pad_in_pooling(proto: Any) -> None:
    """Let max pooling pad by itself where its input is a zero-padded ReLU, which is >= 0.

    onnxruntime converts the largest feature map of a model to another layout and back for a Pad
    node.
    """
    from onnx import helper, numpy_helper

    graph = proto.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    readers = [name for node in graph.node for name in node.input]
    readers += [output.name for output in graph.output]
    for pool in [node for node in graph.node if node.op_type == "MaxPool"]:
        pad = makers.get(pool.input[0])
        if pad is None or pad.op_type != "Pad" or readers.count(pad.output[0]) > 1:
            continue
        source, sides = makers.get(pad.input[0]), constants.get(pad.input[1])
        filled = np.zeros(1)
        if len(pad.input) > 2 and pad.input[2]:
            filled = constants.get(pad.input[2], np.ones(1))
        own = {one.name: helper.get_attribute_value(one) for one in pool.attribute}
        if (
            source is None
            or source.op_type != "Relu"
            or sides is None
            or len(sides) != 8  # n, c, h, w before; n, c, h, w after
            or sides[[0, 1, 4, 5]].any()
            or np.any(filled)
            or any(own.pop("pads", []))
            or own.pop("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")
        ):
            continue
        own["pads"] = [int(side) for side in sides[[2, 3, 6, 7]]]
        del pool.attribute[:]
        pool.attribute.extend(helper.make_attribute(name, value) for name, value in own.items())
        pool.input[0] = pad.input[0]
        graph.node.remove(pad)


def _halve(proto: Any) -> None:
    """Store large weights in float16, each with a cast to float32 that a runtime computes once."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in proto.graph.initializer:
        values, name = to_float16(numpy_helper.to_array(tensor)), tensor.name
        if values.dtype == np.float16:
            tensor.CopyFrom(numpy_helper.from_array(values, f"{name}_float16"))
            cast = {"to": TensorProto.FLOAT, "name": f"{name}_cast"}
            casts.append(helper.make_node("Cast", [tensor.name], [name], **cast))
    nodes = [*casts, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def _quantize(proto: Any, calibration: Array) -> Any:
    """Return the model in 8 bits."""
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.registry import QDQRegistry
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(calibration)

        def get_next(self) -> dict[str, Array] | None:
            image = next(self.left, None)
            return None if image is None else {"images": image[np.newaxis].astype(np.float32)}

    with tempfile.TemporaryDirectory(prefix="reszoo-onnx-") as name:
        plain, ready, done = (f"{name}/{step}.onnx" for step in ("plain", "ready", "done"))
        onnx.save(proto, plain)
        quant_pre_process(plain, ready, skip_symbolic_shape=True)
        quantization.quantize_static(
            ready,
            done,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            # The probabilities of a few classes are not worth 8 bits.
            op_types_to_quantize=[
                kind for kind in QDQRegistry if kind not in ("Softmax", "Sigmoid")
            ],
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        return onnx.load(done)
