#!/usr/bin/env bash
# nncf 3.4.0, onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6 on a CPU
#
# NNCF quantises an ONNX model with ONNX Runtime as its engine, and with its default options the result can be a valid
# ONNX model that ONNX Runtime cannot execute: each channel of a depthwise convolution's input gets a scale and zero point
# of its own, and ONNX Runtime fuses that convolution into QLinearConv, which takes one for all channels ("input zero
# point must be a scalar"). With activations quantised per tensor the model runs.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet nncf==3.4.0 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6 2>/dev/null
"$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null
import logging
import sys

sys.modules["openvino_telemetry"] = None  # report nothing over the network
import nncf
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

nncf.set_log_level(logging.ERROR)
onnxruntime.set_default_logger_severity(4)
rng = np.random.default_rng(0)
weights = [
    numpy_helper.from_array(rng.normal(0, 0.3, shape).astype(np.float32), name)
    for name, shape in {"w1": (8, 3, 1, 1), "w2": (8, 1, 3, 3), "w3": (4, 8, 1, 1)}.items()
]
nodes = [
    helper.make_node("Conv", ["x", "w1"], ["a"], "conv_1"),
    helper.make_node("Relu", ["a"], ["b"], "relu_1"),
    helper.make_node("Conv", ["b", "w2"], ["c"], "depthwise", group=8, pads=[1, 1, 1, 1]),
    helper.make_node("Relu", ["c"], ["d"], "relu_2"),
    helper.make_node("Conv", ["d", "w3"], ["y"], "conv_3"),
]
ports = {"x": [1, 3, 16, 16], "y": [1, 4, 16, 16]}
x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ports.items())
graph = helper.make_graph(nodes, "depthwise", [x], [y], weights)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
data = [{"x": rng.normal(size=ports["x"]).astype(np.float32)} for _ in range(10)]


def result(**options):
    quantized = nncf.quantize(model, nncf.Dataset(data), subset_size=10, **options)
    onnx.checker.check_model(quantized, full_check=True)
    try:
        session = onnxruntime.InferenceSession(quantized.SerializeToString(), providers=["CPUExecutionProvider"])
        session.run(None, data[0])
        return "runs"
    except Exception as error:
        return f"fails: ...{str(error).strip()[-70:]}"


per_tensor = nncf.quantization.advanced_parameters.QuantizationParameters(per_channel=False)
default = result()
changed = result(advanced_parameters=nncf.AdvancedQuantizationParameters(activations_quantization_params=per_tensor))
print("default options:       ", default)
print("activations per tensor:", changed)
sys.exit("must be a scalar" not in default or changed != "runs")
PYTHON
