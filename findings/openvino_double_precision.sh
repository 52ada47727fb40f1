#!/usr/bin/env bash
# openvino 2026.4.1, onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6 on a CPU
#
# An ONNX model that is double throughout (input, constant, output) keeps the type double in OpenVINO: the compiled
# model's ports say float64 and the result arrives as float64. The arithmetic is done in float32 all the same, with
# INFERENCE_PRECISION_HINT f32 as without it, and nothing says so. (x + 1e-9) - x for x = 1 is 1.0000000827e-09 in
# ONNX Runtime and 0.0 in OpenVINO.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet openvino==2026.4.1 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6 2>/dev/null
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper, numpy_helper

ports = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, [1]) for name in ("x", "y")]
small = numpy_helper.from_array(np.array([1e-9]), "small")
nodes = [helper.make_node("Add", ["x", "small"], ["sum"]), helper.make_node("Sub", ["sum", "x"], ["y"])]
graph = helper.make_graph(nodes, "double", ports[:1], ports[1:], [small])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
onnx.checker.check_model(model, full_check=True)
content = model.SerializeToString()

x = np.ones(1, dtype=np.float64)
session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
reference = session.run(None, {"x": x})[0]
core = openvino.Core()
given = {}
for hint in ({}, {"INFERENCE_PRECISION_HINT": "f32"}):
    compiled = core.compile_model(core.read_model(content), "CPU", hint)
    given[str(hint)] = compiled(x)[0]
    print(f"OpenVINO {hint or 'as it comes'}: output port {compiled.output(0).element_type}, "
          f"result {given[str(hint)].dtype} {given[str(hint)][0]!r}")
print(f"ONNX Runtime: {reference.dtype} {reference[0]!r}")
assert reference.dtype == np.float64 and 9e-10 < reference[0] < 1.1e-9
assert all(value.dtype == np.float64 and value[0] == 0.0 for value in given.values()), "the behaviour has changed"
PYTHON
