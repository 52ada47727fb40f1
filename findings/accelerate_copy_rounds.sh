#!/usr/bin/env bash
# accelerate 1.15.0, torch 2.14.1: `Accelerator.prepare` replaces the forward of the model itself, and copies inherit it
#
# With mixed_precision="bf16", a prepared model rounds to bf16 also inside `torch.autocast(enabled=False)`, and so does
# a deep copy of it, such as the moving average that is evaluated and stored. The state of that copy, loaded into a new
# model, computes in float32 and gives other scores: what was measured is not what was stored.
# `unwrap_model(model, keep_fp32_wrapper=False)` takes the forward out again, from the model but not from older copies.
#
# Seen: prepared, copy: differs from float32; after unwrapping: prepared: equal, older copy: differs.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q accelerate==1.15.0 torch==2.14.1
cat >"$work/run.py" <<'PYTHON'
import copy

import torch
from accelerate import Accelerator

torch.manual_seed(0)
model = torch.nn.Linear(64, 4)
plain, values = copy.deepcopy(model), torch.randn(8, 64)
accelerator = Accelerator(mixed_precision="bf16", cpu=True)
prepared = accelerator.prepare(model)
duplicate = copy.deepcopy(model)


def same(network):
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        return torch.equal(network(values), plain(values))


before = [same(prepared), same(duplicate)]
accelerator.unwrap_model(prepared, keep_fp32_wrapper=False)
after = [same(prepared), same(duplicate)]
print(f"equal to float32: prepared {before[0]}, copy {before[1]}; after unwrapping: {after[0]}, {after[1]}")
assert before == [False, False] and after == [True, False]
PYTHON
"$work/venv/bin/python" "$work/run.py"
