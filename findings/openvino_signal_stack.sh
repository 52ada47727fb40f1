#!/usr/bin/env bash
# openvino 2026.4.1 on Linux x86-64: compiling a model for the CPU replaces the stack that signals of this thread run on
#
# The CPU plugin calls sigaltstack() in the thread that compiles first with a core, and puts the stack from before back
# when that core and its models are gone. Two cores that end in the order of their creation leave the first one's stack
# registered, which has been given back to the system. Nothing fails until a signal arrives whose handler asks for that
# stack, as every handler of Python does (torch's DataLoader sets one for SIGCHLD); then the process dies without a word.
# One core that is kept for the life of the process is safe.
#
# Seen: before: no stack of its own; one core: 11568 bytes; after both are gone: a stack that is not mapped.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q openvino==2026.4.1
"$work/venv/bin/python" - <<'PYTHON'
import ctypes
import gc
from pathlib import Path

import openvino
from openvino import opset13


class Stack(ctypes.Structure):
    _fields_ = [("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


def registered():
    "Return the start and the size of the stack for signals, and whether its memory is mapped."
    stack = Stack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack))
    lines = Path("/proc/self/maps").read_text().splitlines()
    areas = [[int(end, 16) for end in line.split()[0].split("-")] for line in lines]
    return stack.start, stack.size, any(low <= (stack.start or 0) < high for low, high in areas)


def compiled():
    values = opset13.parameter([1, 4])
    return openvino.Core().compile_model(openvino.Model([opset13.relu(values)], [values]), "CPU")


before = registered()
first = compiled()
one = registered()
second = compiled()
two = registered()
del first
gc.collect()
del second
gc.collect()
after = registered()
print(f"before: {before[1]} bytes; one core: {one[1]} bytes; two: {two[1]} bytes, another one: {one[0] != two[0]}")
print(f"after both are gone: the first one's: {after[0] == one[0]}, mapped: {after[2]}")
assert before[0] is None and one[2] and two[2] and one[0] != two[0]
assert after[0] == one[0] and not after[2]
PYTHON
