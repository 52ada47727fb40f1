"""The work that every competitor does: its files, its settings, and the plan of a training job."""

import json
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np


class WorkError(ValueError):
    "The work cannot be done as given; the message says why."


@dataclass(frozen=True)
class Work:
    "A folder of prepared work, with the settings of its `work.json`."

    folder: Path
    model_name: str  # a model name of timm
    img_size: list[int]  # height and width of the input, pixels
    batch_size: int  # number of posters per batch
    n_epochs: int  # number of epochs of the head job
    max_lr_head: float  # peak of the one-cycle schedule of the head job
    max_lr_full: float  # peak of the one-cycle schedule of the fine-tuning job
    weight_decay: float
    mean: list[float]  # mean of each channel, on a scale from 0 to 1
    std: list[float]  # standard deviation of each channel, on a scale from 0 to 1
    n_genres: int
    num_workers: int | None  # number of loader processes; none: see `worker_count`
    seed: int
    threads: int | None  # number of torch's threads; none: torch decides
    augmentation: dict[str, Any]  # flip, scale, brightness, contrast, saturation, hue, jitter_p
    device: str  # cpu or cuda
    amp: str  # no or bf16

    @property
    def ratio(self) -> tuple[float, float]:
        "Return the bounds of a random crop's width over height: the poster's own, give or take a tenth."
        height, width = self.img_size
        return width / height / 1.1, width / height * 1.1

    def paths(self, part: str) -> list[str]:
        "Return the paths of the posters of train, valid or folder."
        return json.loads((self.folder / f"{part}.json").read_text(encoding="utf-8"))

    def targets(self, part: str) -> np.ndarray:
        "Return the (posters, genres) float32 targets of train or valid, in the order of the paths."
        return np.load(self.folder / f"{part}_targets.npy").astype(np.float32)


def read_work(folder: Path) -> Work:
    "Read and check the settings of a folder of work; raise `WorkError` if they cannot be used."
    file = folder / "work.json"
    try:
        given = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WorkError(f"{file} does not exist. Give a folder of prepared work.") from None
    except ValueError as error:
        raise WorkError(f"{file} is not JSON: {error}.") from None
    names = [item.name for item in fields(Work) if item.name != "folder"]
    missing = [name for name in names if name not in given]
    if missing:
        raise WorkError(f"{file} lacks {', '.join(missing)}.")
    work = Work(folder=folder, **{name: given[name] for name in names})
    if work.device not in ("cpu", "cuda") or work.amp not in ("no", "bf16"):
        raise WorkError(f"{file}: device {work.device!r}, amp {work.amp!r}; allowed: cpu or cuda, no or bf16.")
    if work.amp == "bf16" and work.device == "cpu":
        raise WorkError(f"{file}: amp is 'bf16' on the CPU; the competitors use autocast on cuda only.")
    return work


def check_posters(
    work: Work,
    parts: tuple[str, ...],  # of train, valid and folder, those that the job needs
) -> None:
    "Raise `WorkError` if files are missing, or posters and targets do not match."
    for part in parts:
        try:
            n = len(work.paths(part))
            shape = work.targets(part).shape if part != "folder" else (n, work.n_genres)
        except FileNotFoundError as error:
            raise WorkError(f"{error.filename} does not exist, but the job needs it.") from None
        if shape != (n, work.n_genres) or n == 0:
            raise WorkError(f"{part}: {n} posters, targets {list(shape)}, {work.n_genres} genres; they must match.")
        if part == "train" and n < work.batch_size:
            raise WorkError(f"{n} training posters do not fill a batch of {work.batch_size}. Give more posters.")


@dataclass(frozen=True)
class Plan:
    "The settings of a training job."

    epochs: int
    max_lr: float  # peak of the one-cycle schedule
    frozen: bool  # train the head only
    validate: bool  # after every epoch


def plan_for(
    job: str,  # head or finetune
    work: Work,
) -> Plan:
    "Return the settings of a training job."
    if job == "head":
        return Plan(work.n_epochs, work.max_lr_head, frozen=True, validate=True)
    return Plan(2, work.max_lr_full, frozen=False, validate=False)


ONE_CYCLE = {"div": 25.0, "div_final": 1e5, "pct_start": 0.25}  # the defaults of fastai's `fit_one_cycle`


def one_cycle(
    max_lr: float,  # peak
    total_steps: int,  # number of steps of the run
) -> dict[str, float]:
    "Return the same curve as arguments of `torch.optim.lr_scheduler.OneCycleLR`."
    # torch divides by zero if the rise ends at step 0, which is so for a run of four steps only
    rise = ONE_CYCLE["pct_start"] if total_steps * ONE_CYCLE["pct_start"] != 1 else 0.5
    return {
        "max_lr": max_lr,
        "total_steps": total_steps,
        "pct_start": rise,
        "div_factor": ONE_CYCLE["div"],
        "final_div_factor": ONE_CYCLE["div_final"] / ONE_CYCLE["div"],  # torch counts from the initial rate
    }


def worker_count(
    work: Work,
    competitor: str,  # fastai, torch, timm or lightning
) -> int:
    "Return the number of loader processes: that of the work, or what users of this framework would set."
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    usual = {
        "fastai": min(16, cores),  # fastai's `defaults.cpus`
        "torch": min(16, cores),  # torchvision's reference script
        "timm": min(4, cores),  # timm's train.py
        "lightning": max(1, cores - 1),  # the advice that Lightning prints
    }
    return usual[competitor] if work.num_workers is None else work.num_workers
