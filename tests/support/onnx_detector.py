"""An ONNX file of a detector that always finds one box."""

import numpy as np
import onnx
from onnx import helper


def onnx_file(path, shape, dtype=onnx.TensorProto.FLOAT, inputs=1):
    """Writes a detector that always finds one box, of class 5."""
    constants = (
        (np.array([[[0.1, 0.2, 0.5, 0.6]]], np.float32), "detection_boxes"),
        (np.array([[0.9]], np.float32), "detection_scores"),
        (np.array([[5]], np.int32), "detection_classes"),
        (np.array([1], np.int32), "num_detections"),
    )
    nodes = [
        helper.make_node(
            "Constant", [], [name], value=onnx.numpy_helper.from_array(value)
        )
        for value, name in constants
    ]
    outputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
        )
        for value, name in constants
    ]
    given = [
        helper.make_tensor_value_info(f"images{k}", dtype, shape)
        for k in range(inputs)
    ]
    graph = helper.make_graph(nodes, "detector", given, outputs)
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    onnx.save(model, path)
    return path
