"""bench/chains.py: epochs, memory and ends of a watched program, and the table of several."""

import os
import sys
import time

import psutil
import pytest

from bench.chains import Watched, chains_table, describe_ratios, watch

# its memory is that of a child, as papermill's is that of a kernel; both hold the same pages once
PROGRAM = """
import os, pathlib, subprocess, sys, time
import psutil
code = "import os, time; held = bytearray(200_000_000); os.fork(); time.sleep(600)  # macro_ap"
child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
for epoch in range(1, 4):
    time.sleep(0.5)
    rows = "".join(f"{n},{n / 10}\\n" for n in range(1, epoch + 1))
    pathlib.Path(sys.argv[1] + ".tmp").write_text("epoch,macro_ap\\n" + rows)
    os.replace(sys.argv[1] + ".tmp", sys.argv[1])
time.sleep(float(sys.argv[2]))
for process in psutil.Process(child.pid).children() + [child]:
    process.kill()
sys.exit(int(sys.argv[3]))
"""


def run(seen: Watched, place, name: str, wait: float, code: int, limit: float | None = None) -> None:
    "Watch a program that writes three epochs, waits and ends with a code."
    metrics = place / f"{name}.csv"
    line = [sys.executable, "-c", PROGRAM, str(metrics), str(wait), str(code)]
    watch(seen, line, place, dict(os.environ), place / f"{name}.log", metrics, limit)


def test_epochs_of_two_commands_follow_each_other(tmp_path):
    seen = Watched("two")
    for name in ("first", "second"):
        run(seen, tmp_path, name, wait=0, code=0)
    seconds, values = zip(*seen.epochs, strict=True)
    assert values == (0.1, 0.2, 0.3, 0.1, 0.2, 0.3) and list(seconds) == sorted(seconds)
    assert seconds[3] > seconds[2] + 0.4 and seen.seconds >= seconds[-1] and not seen.stopped
    assert 0.2 < seen.gigabytes < 0.35
    assert seen.best == 0.3 and seen.passed(0.15) == seconds[1] and seen.passed(0.31) is None


def test_a_contender_is_stopped_at_its_limit_and_a_failure_is_shown(tmp_path):
    seen, began = Watched("slow"), time.monotonic()
    run(seen, tmp_path, "slow", wait=60, code=0, limit=8)
    assert seen.stopped and len(seen.epochs) == 3 and time.monotonic() - began < 50
    lines = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    assert not [line for line in lines if "held = bytearray" in line]
    with pytest.raises(RuntimeError, match="broken failed"):
        run(Watched("broken"), tmp_path, "broken", wait=0, code=3)


def test_the_table_says_when_the_best_of_others_is_passed():
    own = Watched("ours", [(10, 0.2), (20, 0.31), (30, 0.35)], 1.26, 31)
    other = Watched("fastai", [(50, 0.25), (100, 0.30), (150, 0.29)], 4, 151)
    earlier = Watched("earlier", [(60, 0.36)], 3, 90, stopped=True)
    table = chains_table([own, other, earlier])
    assert table["seconds to best of fastai"].tolist() == ["20", "100", "60"]
    assert table["seconds to best of ours"].tolist() == ["30", "not reached", "60"]
    assert table["seconds"].tolist() == ["31", "151", "90 (stopped)"]
    assert table["best macro AP"].tolist() == ["0.350", "0.300", "0.360"]
    none = Watched("none", [], 1, 5, stopped=True)
    assert chains_table([own, other, none]).loc["none", "best macro AP"] == "none"
    assert "no epoch of none ended" in describe_ratios([own, none])
    said = describe_ratios([own, other, earlier])
    assert "(0.300) in 20 s, fastai in 100 s: 5.0 times as long" in said
    assert "ours does not reach the best macro AP of earlier (0.360)" in said
