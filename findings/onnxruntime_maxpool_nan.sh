#!/usr/bin/env bash
# onnxruntime 1.32.0 on a CPU, onnx 1.23.2, torch 2.14.1: MaxPool keeps a NaN or drops it, by its place in the window
#
# torch's max_pool2d passes every NaN on, and ONNX Runtime's Relu does too. Its MaxPool drops most of them, and the place in
# the window decides. So an exported ResNet gives finite scores for some pictures for which the network gives NaN, and a
# check of its output finds only a part of them.
#
# Seen, with a NaN at one of 60 random places: torch passed on 60, ONNX Runtime 10, in windows of 2 x 2 and of 3 x 3.
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

places = np.random.default_rng(0).integers(0, 32, (60, 2))


def session(node):
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, None, None]) for name in "xy"]
    graph = helper.make_graph([node], "one", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def passed_on(function):
    count = 0
    for row, column in places:
        images = np.zeros((1, 1, 32, 32), np.float32)
        images[0, 0, row, column] = np.nan
        count += bool(np.isnan(function(images)).any())
    return count


relu = session(helper.make_node("Relu", ["x"], ["y"]))
print("Relu of ONNX Runtime passes on", passed_on(lambda images: relu.run(None, {"x": images})[0]), "of 60")
for side, stride, edge in ((2, 2, 0), (3, 2, 1)):
    pool = session(
        helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[side] * 2, strides=[stride] * 2, pads=[edge] * 4)
    )
    runtime = passed_on(lambda images: pool.run(None, {"x": images})[0])
    torch_pool = torch.nn.MaxPool2d(side, stride, edge)
    eager = passed_on(lambda images: torch_pool(torch.from_numpy(images)).numpy())
    print(f"max pooling {side} x {side}: torch passes on {eager} of 60, ONNX Runtime {runtime}")
    assert eager == 60 and 0 < runtime < 30
PYTHON
"$work/venv/bin/python" "$work/run.py"
