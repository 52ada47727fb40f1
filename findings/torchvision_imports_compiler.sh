#!/usr/bin/env bash
# torchvision 0.29.1, torch 2.14.1, timm 1.0.31: `import torchvision`, and so `import timm`, loads torch's compiler and sympy
#
# `import torch` leaves `torch._dynamo` and sympy for the first use of `torch.compile`. In torchvision, the decorator of
# `roi_align` says that it compiles late to avoid that import, but the same file imports `torch._dynamo.utils` at its top.
# So each process that only wants a transform or a timm network also loads a thousand modules of the compiler, which
# takes about as long as torch itself.
#
# Seen: after torch, 1.0 s and 1,199 modules, no compiler, no sympy; after torchvision, 0.9 s more and 2,277 modules, both.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.14.1 torchvision==0.29.1 timm==1.0.31
cat >"$work/run.py" <<'PYTHON'
import importlib
import sys
import time


def loaded_by(name):
    "Import a package; return whether the compiler and sympy are loaded then, and the number of modules."
    started = time.perf_counter()
    importlib.import_module(name)
    found = ["torch._dynamo" in sys.modules, "sympy" in sys.modules]
    print(f"{name}: {time.perf_counter() - started:.1f} s, compiler and sympy loaded: {found}, {len(sys.modules)} modules")
    return found, len(sys.modules)


loaded, before = loaded_by("torch")
assert loaded == [False, False]
loaded, after = loaded_by(sys.argv[1])
assert loaded == [True, True] and after > before + 500
PYTHON
for package in torchvision timm; do
    "$work/venv/bin/python" "$work/run.py" "$package"
done
