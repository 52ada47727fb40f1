#!/usr/bin/env bash
# openvino 2026.4.1, torch 2.14.1 on a CPU: some torch functions are converted, but compute something else
#
# `openvino.convert_model` names the operations that it does not know and stops. Of some that it knows, it leaves out arguments
# without a word, truncates instead of flooring, or uses the textbook formula where torch has an accurate one, also if float32
# is asked for. That a conversion succeeded says little; only a comparison with torch at such inputs finds this.
#
# Seen, torch against OpenVINO: round(1.26, decimals=1) 1.3, 1.0; var(correction=2) of 1, 2, 4, 9 19, 12.67; -7 // 3 -3, -2;
# softplus(0.5, beta=4) 0.53, 0.97; logsigmoid(-200) -200, -inf; log1p(1e-8) 1e-8, 0
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q openvino==2026.4.1 torch==2.14.1 numpy
cat >"$work/run.py" <<'PYTHON'
import warnings

import openvino
import torch
from torch.nn import functional

warnings.simplefilter("ignore")


class Call(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, given):
        return self.function(given)


CASES = {
    "round(1.26, decimals=1)": (lambda x: x.round(decimals=1), [1.26], 1.0),
    "var(correction=2) of 1, 2, 4, 9": (lambda x: x.var(0, correction=2, keepdim=True), [1.0, 2.0, 4.0, 9.0], 38 / 3),
    "-7 // 3 of int32": (lambda x: (x.int() // 3).float(), [-7.0], -2.0),
    "softplus(0.5, beta=4)": (lambda x: functional.softplus(x, beta=4), [0.5], 0.9741),
    "logsigmoid(-200)": (functional.logsigmoid, [-200.0], float("-inf")),
    "log1p(1e-8)": (torch.log1p, [1e-8], 0.0),
}
for name, (function, values, seen) in CASES.items():
    given = torch.tensor(values)
    model = openvino.convert_model(Call(function).eval(), example_input=given)
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    wanted, found = function(given).item(), compiled(given.numpy())[0].item()
    print(f"{name}: torch {wanted:.4g}, OpenVINO {found:.4g}")
    assert found == seen or abs(found - seen) < 1e-4, name
    assert abs(found - wanted) > 1e-3 * abs(wanted), name
PYTHON
"$work/venv/bin/python" "$work/run.py"
