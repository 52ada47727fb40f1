"""Compare complete trainings, from picture files to the last epoch: python -m bench.chains [--earlier CHECKOUT] ...

This project trains its head and then fine-tunes, by the two commands of the README; so does an earlier checkout of it,
which is stopped once it has had a few times as long. fastai runs its `fine_tune` for five epochs, the first of which
trains its head. All have the same posters, split, backbone and size of the input, and the machine to themselves. Each
epoch counts from the start of the first process, and is judged by macro AP on validation posters.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from bench.competitors.work import Work
from bench.measure import PROJECT, processor
from bench.params import BenchParams
from bench.prepare import prepare_work
from postergenre.config import read_params_file
from postergenre.metrics.metrics import summary_metrics
from postergenre.paths import resolve_path, runs_path, write_json
from postergenre.report.comparison import markdown, replace_part

STAGES = ("head", "full")  # runs of this project, and the names of their params files


@dataclass
class Watched:
    "Measurements of one contender."

    name: str
    epochs: list[tuple[float, float]] = field(default_factory=list)  # seconds since the start, macro AP
    gigabytes: float = 0.0  # largest memory of all its processes together; shared pages count once
    seconds: float = 0.0  # until its end, or until it was stopped
    stopped: bool = False

    @property
    def best(self) -> float:
        "Return the highest macro AP of an epoch; NaN if no epoch has ended."
        return max((value for _, value in self.epochs), default=math.nan)

    def passed(self, value: float) -> float | None:
        "Return the seconds until the end of the first epoch with at least this macro AP."
        return next((seconds for seconds, found in self.epochs if found >= value), None)


def gigabytes_of(process: psutil.Process) -> float:
    "Return the memory of a process and all that it has started; pages that they share count once."
    total = 0
    for each in [process, *process.children(recursive=True)]:
        try:
            total += each.memory_full_info().pss
        except psutil.Error:  # it has just ended
            continue
    return total / 1e9


def watch(
    seen: Watched,  # extended in place
    command: list[str],
    folder: Path,  # in which the command runs
    environment: dict[str, str],
    log: Path,  # file for what it prints
    metrics: Path | None = None,  # CSV file that gets a row with `macro_ap` at the end of each epoch
    limit: float | None = None,  # seconds after which the contender is stopped
) -> None:
    "Run one command of a contender, and note its epochs and its memory; raise `RuntimeError` if it fails."
    before, began = seen.seconds, time.perf_counter()
    with log.open("wb") as printed:
        job = subprocess.Popen(command, cwd=folder, env=environment, stdout=printed, stderr=subprocess.STDOUT)
    known, process = len(seen.epochs), psutil.Process(job.pid)
    while True:
        ended = job.poll() is not None
        seen.seconds = before + time.perf_counter() - began
        found = pd.read_csv(metrics)["macro_ap"].tolist() if metrics and metrics.is_file() else []
        seen.epochs += [(seen.seconds, value) for value in found[len(seen.epochs) - known :]]
        if ended:
            break
        seen.gigabytes = max(seen.gigabytes, gigabytes_of(process))
        if limit and seen.seconds > limit:
            seen.stopped = True
            for each in [*process.children(recursive=True), process]:
                each.kill()
            job.wait()
            return
        time.sleep(0.25)
    if job.returncode != 0:
        raise RuntimeError(f"{seen.name} failed:\n{log.read_text()[-1500:]}")


def train_stages(
    name: str,  # of the contender
    checkout: Path,  # of this project, with its environment in .venv
    work: Work,
    place: Path,  # for the runs
    limit: float | None = None,  # seconds after which it is stopped
) -> Watched:
    "Train the head and fine-tune it with a checkout of this project."
    seen, python = Watched(name), checkout / ".venv" / "bin" / "python"
    environment = {**os.environ, "RUNS_PATH": str(place), "PYTHONPATH": str(checkout)}
    environment.pop("ROOT_PATH", None)
    place.mkdir(parents=True)
    for stage in STAGES:
        options = ["-f", f"params/{stage}.yaml", "-r", "root_path", str(work.folder / "data")]
        line = [str(python), "-m", "papermill", "nbs/train.ipynb", str(place / f"{stage}.ipynb"), *options]
        watch(seen, line, checkout, environment, place / f"{stage}.log", place / stage / "metrics.csv", limit)
        if seen.stopped:
            break
    return seen


def train_fastai(
    python: Path,  # of the environment of bench/peers.txt
    work: Work,
    place: Path,  # for the result
    min_positives: int,  # see `BenchParams`
) -> Watched:
    "Train with fastai's `fine_tune`."
    seen, result = Watched("fastai"), place / "result.json"
    place.mkdir(parents=True)
    line = [str(python), "-m", "bench.competitors.run", "fastai", "tune", str(work.folder), str(result)]
    watch(seen, line, PROJECT, dict(os.environ), place / "fastai.log")
    genres = json.loads((work.folder / "work.json").read_text(encoding="utf-8"))["genres"]
    times = json.loads(result.read_text(encoding="utf-8"))
    ends = times["total_seconds"] - sum(times["epoch_seconds"]) + np.cumsum(times["epoch_seconds"])
    for end, scores in zip(ends, np.load(place / "valid_scores.npy"), strict=True):
        value = summary_metrics(work.targets("valid"), scores, genres, None, min_positives)["macro_ap"]
        seen.epochs.append((float(end), value))
    return seen


def chains_table(
    found: list[Watched],  # this project first, then fastai
) -> pd.DataFrame:
    "Return one row per contender: its best macro AP, and when it passed fastai's and this project's best."
    own, fastai = found[0].best, found[1].best
    rows = []
    for seen in found:
        row = {"contender": seen.name, "epochs": len(seen.epochs), "seconds": f"{seen.seconds:,.0f}"}
        row["seconds"] += " (stopped)" if seen.stopped else ""
        row["best macro AP"] = f"{seen.best:.3f}" if seen.epochs else "none"
        for whose, value in (("best of fastai", fastai), (f"best of {found[0].name}", own)):
            seconds = seen.passed(value)
            row[f"seconds to {whose}"] = "not reached" if seconds is None else f"{seconds:,.0f}"
        row["largest memory, GB"] = f"{seen.gigabytes:.1f}"
        rows.append(row)
    return pd.DataFrame(rows).set_index("contender")


def describe_ratios(
    found: list[Watched],  # this project first, then fastai
) -> str:
    "Return a sentence on when this project reaches the best macro AP of each other contender."
    words = []
    for other in found[1:]:
        ours, theirs = found[0].passed(other.best), other.passed(other.best)
        if theirs is None:
            words.append(f"no epoch of {other.name} ended")
        elif ours is None:
            words.append(f"{found[0].name} does not reach the best macro AP of {other.name} ({other.best:.3f})")
        else:
            words.append(
                f"{found[0].name} reaches the best macro AP of {other.name} ({other.best:.3f}) in {ours:,.0f} s, "
                f"{other.name} in {theirs:,.0f} s{', before it was stopped' * other.stopped}: "
                f"{theirs / ours:.1f} times as long"
            )
    return f"{'; '.join(words)}."


def main() -> None:
    "Print the table, and replace it in a Markdown file if one is given."
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", default=".venv-peers/bin/python", help="Python of bench/peers.txt")
    parser.add_argument("--earlier", type=Path, help="checkout of an earlier version, with its .venv")
    parser.add_argument("--times", type=float, default=3.2, help="how many times as long the earlier version may take")
    parser.add_argument("--write", help="Markdown file whose part `chains` is replaced")
    given = parser.parse_args()
    place = runs_path() / "bench_chains"
    if place.exists():
        sys.exit(f"{place} exists already. Remove or rename it to measure again.")
    changed = {"n_posters": None, "batch_size": 64}  # 64: the default of fastai
    missing = [path for path in (PROJECT / given.peers, given.earlier) if path and not path.exists()]
    if missing:
        sys.exit(
            f"{missing[0]} does not exist. `make .venv-peers/.installed` makes the environment of bench/peers.txt."
        )
    params = read_params_file("params/bench.yaml", BenchParams).model_copy(update=changed)
    work = prepare_work(params, place / "work")
    found = []

    def keep(seen: Watched) -> None:
        found.append(seen)
        write_json(place / "found.json", [vars(seen) for seen in found])

    keep(train_stages("postergenre", PROJECT, work, place / "own"))
    keep(train_fastai(PROJECT / given.peers, work, place / "fastai", params.min_positives))
    if given.earlier:
        limit = given.times * found[0].seconds
        keep(train_stages("earlier version", given.earlier.resolve(), work, place / "earlier", limit))
    words = (
        f"Measured in one run on {processor()}: {len(work.paths('train')):,} posters to train on, "
        f"{len(work.paths('valid')):,} to validate. {describe_ratios(found)}"
    )
    text = f"{textwrap.fill(words, 120)}\n\n{markdown(chains_table(found))}"
    print(text)
    if given.write:
        replace_part(resolve_path(given.write), "chains", text)


if __name__ == "__main__":
    main()
