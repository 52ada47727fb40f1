#!/usr/bin/env bash
# openvino 2026.4.1, torch 2.14.1: a float32 network without gradients is not converted inside `torch.autocast`
#
# `openvino.convert_model` is often called where a training loop compiles the part that it does not train, which is inside
# autocast. The network's weights are float32 and frozen, but the graph then holds `aten::_autocast_to_reduced_precision`,
# which has no conversion rule. `autocast(enabled=False)` around the conversion helps.
#
# Seen: outside autocast: converted; inside: OpConversionFailure that names the operation; inside, with autocast switched
# off around it: converted.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q openvino==2026.4.1 torch==2.14.1 numpy
cat >"$work/run.py" <<'PYTHON'
import warnings

import openvino
import torch

warnings.simplefilter("ignore")
network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()).eval().requires_grad_(False)
images = torch.zeros(1, 3, 8, 8)


def converted(given):
    try:
        openvino.convert_model(given, example_input=images)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "converted"


outside = converted(network)
with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
    inside = converted(network)
    with torch.autocast("cpu", enabled=False):
        switched_off = converted(network)
print("outside autocast:", outside)
print("inside:", inside.partition(":")[0], *[line for line in inside.splitlines() if "_autocast_to" in line])
print("inside, with autocast switched off:", switched_off)
assert outside == switched_off == "converted"
assert inside.startswith("OpConversionFailure") and "_autocast_to_reduced_precision" in inside
PYTHON
"$work/venv/bin/python" "$work/run.py"
