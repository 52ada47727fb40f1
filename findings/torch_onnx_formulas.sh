#!/usr/bin/env bash
# torch 2.14.1, onnxscript 0.7.2, onnxruntime 1.32.0: torch.onnx.export(dynamo=True) changes what some functions compute
#
# torch takes the translations from onnxscript. Some succeed, but are not the same function: the divisor of an average pooling is
# left out, and functions that exist for accuracy become the formulas that they replace. For the latter, a comparison with
# torch on ordinary inputs finds nothing.
#
# Seen, torch against ONNX Runtime: avg_pool2d(2 x 2 ones, divisor_override=1) 4, 1; logsigmoid(-200) -200, -inf; log1p(1e-8)
# 1e-8, 0; expm1(1e-8) 1e-8, 0
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.14.1 onnx==1.23.2 onnxruntime==1.32.0 onnxscript==0.7.2 numpy
cat >"$work/run.py" <<'PYTHON'
import logging
import warnings

import onnxruntime
import torch
from torch.nn import functional

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)  # on packages that are not installed


class Call(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, given):
        return self.function(given)


CASES = {
    "avg_pool2d(2 x 2 ones, divisor_override=1)": (
        lambda x: functional.avg_pool2d(x, 2, divisor_override=1),
        torch.ones(1, 1, 2, 2),
        1.0,
    ),
    "logsigmoid(-200)": (functional.logsigmoid, torch.tensor([-200.0]), float("-inf")),
    "log1p(1e-8)": (torch.log1p, torch.tensor([1e-8]), 0.0),
    "expm1(1e-8)": (torch.expm1, torch.tensor([1e-8]), 0.0),
}
for name, (function, given, seen) in CASES.items():
    program = torch.onnx.export(Call(function).eval(), (given,), dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: given.numpy()})[0].item()
    wanted = function(given).item()
    print(f"{name}: torch {wanted:.4g}, ONNX Runtime {found:.4g}")
    assert found == seen and abs(found - wanted) > 1e-3 * abs(wanted), name
PYTHON
"$work/venv/bin/python" "$work/run.py"
