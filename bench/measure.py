"""Measure all contenders in turn, one process at a time, and keep each result, so that a stopped benchmark goes on."""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from bench.competitors.work import Work
from bench.own_jobs import JOBS
from bench.params import BenchParams
from bench.prepare import prepare_work
from postergenre.config import data_root
from postergenre.errors import ConfigError
from postergenre.machine import usable_cores
from postergenre.metrics.metrics import summary_metrics
from postergenre.paths import runs_path, write_atomically, write_json
from postergenre.train.runs import lock_run, read_json, release, remove_replaced, set_aside

PROJECT = Path(__file__).resolve().parents[1]
LABELS = {"head": "head stage", "finetune": "fine-tuning epoch", "predict": "predicting a folder", "decode": "decoding"}


def processor() -> str:
    "Return the processor's name, the number of cores that this process may use, the GPU, and torch's version."
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{names[0] if names else platform.processor()}, {usable_cores()} cores{gpu}, torch {torch.__version__}"


def command_for(
    params: BenchParams,
    contender: str,
    job: str,
    work: Path,
    result: Path,
) -> list[str]:
    "Return the command that does one job; raise `ConfigError` if its interpreter is missing."
    arguments = [contender, job, str(work), str(result)]
    if (contender, job) in JOBS:
        return [sys.executable, "-m", "bench.own_jobs", *arguments]
    interpreter = sys.executable
    if contender in ("fastai", "lightning"):
        given = Path(params.peers_python or "").expanduser()
        # not resolved: an environment's Python is a link, and its path says which environment it is
        found = [place for place in (given.absolute(), PROJECT / given) if place.is_file()]
        if not found:
            raise ConfigError(
                f"`peers_python`: given {params.peers_python!r}; {contender} needs the Python of an environment made "
                "from bench/peers.txt. `make bench` makes it."
            )
        interpreter = str(found[0])
    return [interpreter, "-m", "bench.competitors.run", *arguments]


def measure(
    params: BenchParams,
    contender: str,
    job: str,
    repeat: int,
    folder: Path,  # runs/<experiment_name>
    sitting: str,  # a name of this run of the benchmark
) -> dict[str, Any]:
    "Do one job in a process of its own, or return its earlier result; raise `RuntimeError` if it fails."
    place = folder / "results" / f"{job}_{contender}_{repeat}"
    kept = place / "measured.json"
    if kept.is_file():
        return json.loads(kept.read_text(encoding="utf-8"))
    shutil.rmtree(place, ignore_errors=True)  # of a process that was stopped: what it has done would not be timed
    place.mkdir(parents=True)
    result = place / "result.json"
    # the head stage starts from nothing in each repeat; fine-tuning finds the posters decoded
    runs = place / "runs" if job == "head" else folder / "runs"
    own = {"RUNS_PATH": str(runs), "NO_ALBUMENTATIONS_UPDATE": "1", "MPLBACKEND": "agg"}  # not the notebook's
    environment = {**os.environ, **own}
    environment.pop("ROOT_PATH", None)
    command = command_for(params, contender, job, folder / "work", result)
    started = time.time()
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{contender} could not do {job}: {done.stderr.strip()[-1500:]}")
    found = json.loads(result.read_text(encoding="utf-8"))
    ended = found.pop("done", None)
    found["wall_seconds"] = found.get("total_seconds") or ended - started
    if "first_step" in found:  # of this project's training jobs
        found["start_seconds"] = found.pop("first_step") - started
        found["stages"] = {"start, imports": found.pop("imported") - started, **found["stages"]}
    found |= {"repeat": repeat, "sitting": sitting}
    write_json(kept, found)
    return found


def fingerprint(params: BenchParams) -> dict[str, Any]:
    "Return what results must have in common to stand in one table: the work, the code, and the machine."
    chosen = {"readme", "overwrite", "jobs", "contenders", "repeats", "head_repeats", "peers_python", "root_path"}
    code = hashlib.sha256()
    for folder in ("bench", "postergenre"):
        for file in sorted((PROJECT / folder).rglob("*.py")):
            code.update(file.read_bytes())
    given = params.model_dump(mode="json", exclude=chosen)
    return {**given, "root_path": str(data_root(params) or ""), "code": code.hexdigest()[:12], "machine": processor()}


def open_bench(params: BenchParams) -> Path:
    "Return the folder of the benchmark, empty or with results that may stay; raise `ConfigError` if it holds others."
    folder, now = runs_path() / params.experiment_name, fingerprint(params)
    file = folder / "stamp.json"
    if folder.is_dir() and not file.is_file() and any(folder.iterdir()):
        raise ConfigError(f"`experiment_name`: runs/{folder.name} holds something that is no benchmark. Give another.")
    remedy = "Remove that folder, or give another experiment_name."
    before = read_json(file, remedy=remedy) if file.is_file() else {}
    changed = [f"{name} was {before.get(name)!r}, now {value!r}" for name, value in now.items()
               if before.get(name) != value]  # fmt: skip
    if before and changed:
        if not params.overwrite:
            raise ConfigError(
                f"`experiment_name`: runs/{folder.name} holds results that cannot stand next to new ones: "
                f"{'; '.join(changed)}. Give another experiment_name, or `overwrite: true`."
            )
        set_aside(folder)
    write_json(file, now)
    return folder


def plan_jobs(
    params: BenchParams,
    folder: Path,  # of the benchmark
) -> list[tuple[str, str, int]]:
    "Return job, contender and repeat in the order of measuring; raise `ConfigError` for what cannot be done."
    if "predict" in params.jobs and not (folder / "work" / "model.ts").is_file():
        before = params.jobs[: params.jobs.index("predict")]
        if "head" not in before or "postergenre" not in params.contenders:
            raise ConfigError(
                f"`jobs`: given {params.jobs} for {params.contenders}; predict needs the model that postergenre "
                "trains in head. Give head before predict, and postergenre among the contenders."
            )
    others = [contender for contender in params.contenders if contender != "compiled"]
    # the limit first: it decodes the posters, so that every fine-tuning epoch finds them decoded
    contenders = {"head": others, "finetune": ["limit", *params.contenders], "predict": ["limit", *others]}
    for job in params.jobs:
        for contender in contenders[job]:
            command_for(params, contender, job, folder, folder)
    return [
        (job, contender, repeat)
        for job in params.jobs
        for repeat in range(params.head_repeats if job == "head" else params.repeats)
        for contender in contenders[job]
    ] + [("decode", "limit", repeat) for repeat in range(params.repeats)]


def run_bench(params: BenchParams) -> pd.DataFrame:
    "Return one row per job, contender and repeat, also written to `bench.csv`; raise `ConfigError`, `RuntimeError`."
    lock = lock_run(runs_path() / params.experiment_name, patience=1)
    try:
        folder = open_bench(params)
        table = measure_all(params, folder)
        remove_replaced(folder)
        return table
    finally:
        release(lock)


def measure_all(
    params: BenchParams,
    folder: Path,  # from `open_bench`
) -> pd.DataFrame:
    "Measure what is not measured yet, and write `bench.csv`; return and raise what `run_bench` does."
    plan, sitting = plan_jobs(params, folder), uuid.uuid4().hex[:8]
    work = prepare_work(params, folder / "work")
    rows = []
    for job, contender, repeat in plan:
        found = measure(params, contender, job, repeat, folder, sitting)
        row = {"job": job, "contender": contender, "repeat": repeat}
        row |= {name: found.get(name) for name in ("wall_seconds", "posters_per_second", "start_seconds", "stages")}
        row |= {name: found.get(name) for name in ("max_difference_to_fp32", "sitting")}
        precision = found.get("precision") or found.get("amp") or "no"  # a competitor names it amp
        row["precision"] = "fp32" if precision == "no" else precision
        if job == "head":
            scores = folder / "results" / f"{job}_{contender}_{repeat}" / "valid_scores.npy"
            row["macro_ap"] = macro_ap(work, scores, params.min_positives)
        rows.append(row)
        print(f"{LABELS[job]}, repeat {repeat + 1}, {contender}: {row['wall_seconds']:.1f} s", flush=True)
    table = pd.DataFrame(rows)
    with write_atomically(folder / "bench.csv") as unfinished:
        table.drop(columns="stages").to_csv(unfinished, index=False)
    return table


def macro_ap(
    work: Work,
    scores: Path,  # a .npy file
    min_positives: int,  # number of posters; rarer genres are left out
) -> float:
    "Return the macro AP of scores of the validation posters."
    genres = json.loads((work.folder / "work.json").read_text(encoding="utf-8"))["genres"]
    return summary_metrics(work.targets("valid"), np.load(scores), genres, None, min_positives)["macro_ap"]
