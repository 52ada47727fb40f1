#!/usr/bin/env bash
# accelerate 1.15.0 with torch 2.14.1, on a machine without a GPU: under `torchrun --nproc_per_node 2`, Accelerator()
# reports one process, and both processes believe that they are the main one. Nothing warns: each trains all data by
# itself and writes the same files, and `gather` returns its own rows only. Accelerator(cpu=True), which on such a machine
# says nothing new about the device, finds both.
# And a variable of the environment beats an argument: with ACCELERATE_GRADIENT_ACCUMULATION_STEPS=8 set,
# Accelerator(gradient_accumulation_steps=1) accumulates over 8 steps, and backward() divides each loss by 8.
# Seen: Accelerator(): 1 process, main in 2 of 2 | Accelerator(cpu=True): 2 processes, main in 1 of 2
#       gradient of a loss whose gradient is 1: 0.125
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet accelerate==1.15.0 torch==2.14.1
cat > "$place/job.py" <<'PYTHON'
import os
import pathlib
import sys

from accelerate import Accelerator

accelerator = Accelerator(cpu=True) if sys.argv[1] == "cpu" else Accelerator()
note = pathlib.Path(sys.argv[2], f"{sys.argv[1]}_{os.environ['RANK']}")
note.write_text(f"{accelerator.num_processes} {accelerator.is_main_process}")
PYTHON
export CUDA_VISIBLE_DEVICES=
for how in plain cpu; do
    "$place/venv/bin/torchrun" --standalone --nproc_per_node 2 "$place/job.py" "$how" "$place" 2> "$place/errors"
    echo "$how: $(cat "$place/${how}_0"), $(cat "$place/${how}_1")"
done
gradient=$(ACCELERATE_GRADIENT_ACCUMULATION_STEPS=8 "$place/venv/bin/python" - <<'PYTHON'
import torch
from accelerate import Accelerator

weight = torch.ones(1, requires_grad=True)
Accelerator(gradient_accumulation_steps=1).backward(weight.sum())
print(weight.grad.item())
PYTHON
)
echo "gradient: $gradient"
[ "$(cat "$place/plain_0") $(cat "$place/plain_1")" = "1 True 1 True" ]
[ "$(cat "$place/cpu_0") $(cat "$place/cpu_1")" = "2 True 2 False" ]
[ "$gradient" = "0.125" ]
