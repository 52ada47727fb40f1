#!/usr/bin/env bash
# onnxruntime 1.32.0 on an x86-64 CPU, onnx 1.23.2, torch 2.14.1: MaxPool passes on one NaN of four, by its place
#
# torch's max_pool2d passes on a NaN wherever it is, and ONNX Runtime's Relu does too. Its MaxPool keeps a NaN only where it is
# the last value of its window, and otherwise returns the largest of the others. So a NaN inside an exported network may leave
# finite scores, and whoever looks for NaN in the scores finds it or not by the place of a pixel.
#
# Seen, with a NaN at each of 1,024 places in turn, stride 2: torch passed on 1,024, ONNX Runtime 256, those in odd rows and
# odd columns; the same for windows of 2 x 2 and of 3 x 3
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q onnxruntime==1.32.0 onnx==1.23.2 torch==2.14.1 numpy
cat >"$work/run.py" <<'PYTHON'
import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper

places = [(row, column) for row in range(32) for column in range(32)]


def session(node):
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, None, None]) for name in "xy"]
    graph = helper.make_graph([node], "one", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def passed_on(function):
    found = []
    for row, column in places:
        images = np.zeros((1, 1, 32, 32), np.float32)
        images[0, 0, row, column] = np.nan
        if np.isnan(function(images)).any():
            found.append((row, column))
    return found


relu = session(helper.make_node("Relu", ["x"], ["y"]))
by_relu = passed_on(lambda images: relu.run(None, {"x": images})[0])
print("Relu of ONNX Runtime passes on", len(by_relu), "of", len(places))
assert by_relu == places
for side, stride, edge in ((2, 2, 0), (3, 2, 1)):
    sizes = {"kernel_shape": [side] * 2, "strides": [stride] * 2, "pads": [edge] * 4}
    pool, torch_pool = session(helper.make_node("MaxPool", ["x"], ["y"], **sizes)), torch.nn.MaxPool2d(side, stride, edge)
    runtime = passed_on(lambda images: pool.run(None, {"x": images})[0])
    eager = passed_on(lambda images: torch_pool(torch.from_numpy(images)).numpy())
    print(f"max pooling {side} x {side}: torch passes on {len(eager)}, ONNX Runtime {len(runtime)}, first {runtime[:3]}")
    assert eager == places and runtime == [(row, column) for row, column in places if row % 2 and column % 2]
PYTHON
"$work/venv/bin/python" "$work/run.py"
