#!/usr/bin/env bash
# openvino 2026.4.1, numpy 2.4.6 on a CPU
#
# After an AsyncInferQueue has raised the error of an input of the wrong size, the same queue raises that old error again
# for inputs that are right. A new queue on the same compiled model works, and so does InferRequest.infer after an error.
# Seen: 10 of 10 valid calls on the old queue raised; none of 10 on an InferRequest that had refused the same input.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet openvino==2026.4.1 numpy==2.4.6 2>/dev/null
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import openvino
from openvino import opset13 as ops

x = ops.parameter([-1, 4], np.float32)
compiled = openvino.Core().compile_model(openvino.Model([ops.relu(x)], [x]), "CPU")
right, wrong = np.ones((2, 4), np.float32), np.ones((2, 3), np.float32)


def raises(call) -> bool:
    try:
        call()
        return False
    except RuntimeError:
        return True


def through_queue(queue, array):
    queue.start_async([array])
    queue.wait_all()


queue, request = openvino.AsyncInferQueue(compiled, 2), compiled.create_infer_request()
first = {"queue": raises(lambda: through_queue(queue, wrong)), "request": raises(lambda: request.infer([wrong]))}
later = {
    "queue": sum(raises(lambda: through_queue(queue, right)) for _ in range(10)),
    "request": sum(raises(lambda: request.infer([right])) for _ in range(10)),
    "new queue": sum(raises(lambda: through_queue(openvino.AsyncInferQueue(compiled, 2), right)) for _ in range(10)),
}
print("the wrong size raised:", first)
print("valid calls that raised afterwards, of 10:", later)
assert all(first.values()) and later["queue"] > 0 and later["request"] == later["new queue"] == 0
PYTHON
