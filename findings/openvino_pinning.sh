#!/usr/bin/env bash
# openvino 2026.4.1 on Linux: two networks with one thread each run on the same core, and the other cores stay idle
#
# `INFERENCE_NUM_THREADS: 1` is how to divide a machine: a compiled network per thread of a program, or per process. But
# the CPU plugin pins the thread that computes to the first core that the process may use, for as long as the inference
# lasts, and does not look at what other networks or processes have taken. The two halve each other's speed while `top`
# shows an idle core. `ENABLE_CPU_PINNING: False`, of the core or of each network, helps.
#
# Seen, on two idle cores: two networks in two threads of a process, and two in two processes, all on the first core alone;
# without pinning, on any core, and 2.0 to 2.1 times as fast (printed, not checked, as other work on the machine counts).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q openvino==2026.4.1 numpy
cat >"$work/run.py" <<'PYTHON'
import multiprocessing
import os
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import openvino
import openvino.opset13 as ops

ALLOWED = os.sched_getaffinity(0)


def network(pinning):
    "Return a request of a small convolutional network with one thread."
    image = value = ops.parameter([1, 16, 320, 320], np.float32)
    filters = np.random.default_rng(0).normal(size=(16, 16, 3, 3)).astype(np.float32) / 12
    for _ in range(8):
        value = ops.relu(ops.convolution(value, filters, [1, 1], [1, 1], [1, 1], [1, 1]))
    settings = {"INFERENCE_NUM_THREADS": 1, "ENABLE_CPU_PINNING": pinning}
    model = openvino.Model([value], [image])
    return openvino.Core().compile_model(model, "CPU", settings).create_infer_request()


def measured(pinning):
    "Run a network for two seconds; return the cores that its thread was allowed, and its number of inferences a second."
    request, image = network(pinning), np.ones((1, 16, 320, 320), np.float32)
    request.infer([image])
    thread, seen, done = threading.get_native_id(), set(), threading.Event()

    def watch():
        while not done.is_set():
            seen.add(frozenset(os.sched_getaffinity(thread)))
            time.sleep(0.01)

    watcher = threading.Thread(target=watch)
    watcher.start()
    count, begun = 0, time.monotonic()
    while time.monotonic() - begun < 2:
        request.infer([image])
        count += 1
    done.set()
    watcher.join()
    return min(seen, key=len), count / 2


if __name__ == "__main__":
    if sys.platform != "linux" or len(ALLOWED) < 2:
        sys.exit("this needs Linux and two cores")
    spawned = {"mp_context": multiprocessing.get_context("spawn")}
    for pool, options in ((ThreadPoolExecutor, {}), (ProcessPoolExecutor, spawned)):
        speeds = {}
        for pinning in (True, False):
            with pool(2, **options) as workers:
                found = list(workers.map(measured, [pinning, pinning]))
            cores = [sorted(each) for each, _ in found]
            speeds[pinning] = sum(speed for _, speed in found)
            print(f"{pool.__name__}, pinning {pinning}: cores {cores}, {speeds[pinning]:.0f} inferences a second")
            wanted = [min(ALLOWED)] if pinning else sorted(ALLOWED)
            assert cores == [wanted, wanted], cores
        print(f"{pool.__name__}: without pinning {speeds[False] / speeds[True]:.2f} times as many")
PYTHON
"$work/venv/bin/python" "$work/run.py"
