#!/usr/bin/env bash
# timm 1.0.31, torch 2.14.1: ModelEmaV3 forgets the weights it starts from as soon as it is given the step
#
# An average that is meant to hold on to good first weights (fine-tuning) cannot do so if `update` is given `step`: at step
# 1 the decay is 0, so the average becomes a copy of the model, with or without `use_warmup`. With `use_warmup`, the decay
# is at most 1 - step^(-2/3), which is below 0.97 for the first 180 steps: all larger decays give the same average, bit
# for bit.
#
# Seen, after one step that moves a weight from 0 to 1, decay 0.9999: 0.0001 without `step`, 1 with it.
# After 150 steps with `use_warmup`: decays 0.99 and 0.9999 give the same bits, and 0.9 others.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q timm==1.0.31 torch==2.14.1 torchvision numpy
cat >"$work/run.py" <<'PYTHON'
import torch
from timm.utils import ModelEmaV3


def average(n_steps, decay, give_step=True, **options):
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.zero_()
    ema = ModelEmaV3(model, decay=decay, **options)
    for step in range(1, n_steps + 1):
        model.weight.data += 1
        ema.update(model, step=step if give_step else None)
    return ema.module.weight.item()


without, plain = average(1, 0.9999, give_step=False), average(1, 0.9999)
print("one step, decay 0.9999: without step", round(without, 6), "with step", plain)
ends = {decay: average(150, decay, use_warmup=True) for decay in (0.9, 0.99, 0.9999)}
print("150 steps with use_warmup:", ends)
assert abs(without - 0.0001) < 1e-6 and plain == 1.0
assert ends[0.99] == ends[0.9999] != ends[0.9]
PYTHON
"$work/venv/bin/python" "$work/run.py"
