#!/usr/bin/env bash
# onnx 1.23.2, onnxruntime 1.32.0, openvino 2026.4.0: RoiAlign with mode=max is not a maximum of the samples
#
# A sample is interpolated from four pixels. ONNX Runtime and ONNX's own reference take the largest of the four products
# of pixel and weight, so that a region of an image of ones is 0.4 to 0.7. OpenVINO takes the largest sample. ONNX Runtime
# warns that its result is incorrect and will be corrected in version 1.13, but still computes it. The mode avg is the same
# everywhere.
#
# Seen, for a region of an image of ones: avg 1 1 1 1 everywhere; max 0.49 0.42 0.73 0.63 with ONNX Runtime and the
# reference, 1 1 1 1 with OpenVINO
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.0 numpy
cat >"$work/run.py" <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

onnxruntime.set_default_logger_severity(3)
image = np.ones((1, 1, 8, 8), np.float32)
region, batch = np.array([[1.2, 1.4, 5.7, 6.1]], np.float32), np.zeros(1, np.int64)


def results(mode: str) -> dict[str, np.ndarray]:
    node = helper.make_node(
        "RoiAlign",
        ["image", "region", "batch"],
        ["result"],
        mode=mode,
        output_height=2,
        output_width=2,
        sampling_ratio=2,
        coordinate_transformation_mode="half_pixel",
    )
    given = [
        helper.make_tensor_value_info("image", TensorProto.FLOAT, image.shape),
        helper.make_tensor_value_info("region", TensorProto.FLOAT, region.shape),
        helper.make_tensor_value_info("batch", TensorProto.INT64, batch.shape),
    ]
    result = helper.make_tensor_value_info("result", TensorProto.FLOAT, (1, 1, 2, 2))
    graph = helper.make_graph([node], "graph", given, [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    feed, content = {"image": image, "region": region, "batch": batch}, model.SerializeToString()
    compiled = openvino.compile_model(openvino.Core().read_model(content), "CPU")
    return {
        "ONNX Runtime": onnxruntime.InferenceSession(content).run(None, feed)[0].ravel(),
        "reference": ReferenceEvaluator(model).run(None, feed)[0].ravel(),
        "OpenVINO": compiled([image, region, batch])[0].ravel(),
    }


found = {mode: results(mode) for mode in ("avg", "max")}
for mode, by_program in found.items():
    for program, values in by_program.items():
        print(f"{mode}, {program}:", *values.round(2))
assert all(np.allclose(values, 1) for values in (*found["avg"].values(), found["max"]["OpenVINO"]))
seen = [0.49, 0.42, 0.73, 0.63]
assert all(np.allclose(found["max"][name], seen, atol=0.01) for name in ("ONNX Runtime", "reference")), found
print("as described")
PYTHON
"$work/venv/bin/python" "$work/run.py"
