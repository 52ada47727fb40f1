#!/usr/bin/env bash
# accelerate 1.15.0, torch 2.14.1: in CPU processes, `Accelerator()` replaces the number of threads that was set
#
# A process that shares a CPU job and has called `torch.set_num_threads` gets the machine's physical cores divided by the
# processes of the machine instead, unless OMP_NUM_THREADS is set as well. Cores that the process may not use count too:
# a scheduler that gives a job one of 64 cores ends up with 64 threads on it. The warning says that OMP_NUM_THREADS is
# set, but only torch's own number changes. A job in one process keeps its threads.
#
# Seen with 2 physical cores, one of them usable: 3 threads set, 2 after Accelerator(); 3 with OMP_NUM_THREADS=3; 3 alone.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q accelerate==1.15.0 torch==2.14.1
cat >"$work/run.py" <<'PYTHON'
import os
import sys

import psutil
import torch

if len(os.sched_getaffinity(0)) > 1:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
cores = psutil.cpu_count(logical=False)
wanted = cores + 1
if "variable" in sys.argv:
    os.environ["OMP_NUM_THREADS"] = str(wanted)
torch.set_num_threads(wanted)

from accelerate import Accelerator

Accelerator(cpu=True)
threads = torch.get_num_threads()
print(f"{cores} physical cores, 1 usable; {wanted} threads set, {threads} after Accelerator(): {sys.argv[1:]}")
assert threads == (cores if sys.argv[1:] == ["shared"] else wanted)
PYTHON
shared=(RANK=0 LOCAL_RANK=0 WORLD_SIZE=1 LOCAL_WORLD_SIZE=1 MASTER_ADDR=127.0.0.1 MASTER_PORT=29655)
unset OMP_NUM_THREADS
env "${shared[@]}" "$work/venv/bin/python" "$work/run.py" shared
env "${shared[@]}" "$work/venv/bin/python" "$work/run.py" shared variable
"$work/venv/bin/python" "$work/run.py" alone
