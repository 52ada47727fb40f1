"""Do one job with postergenre, or measure a limit: PYTHON -m bench.own_jobs CONTENDER JOB WORK_FOLDER RESULT.json

A job calls the functions that the project's own jobs call. What it does not need is not imported, since that is timed.
"""

import json
import platform
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.competitors.work import Work, read_work
from postergenre.config import make_params
from postergenre.data.dataset import load_poster
from postergenre.export.files import torchscript_file
from postergenre.export.job import export_notes
from postergenre.machine import in_parallel
from postergenre.model.classifier import best_precision, keep_freed_memory
from postergenre.paths import write_atomically, write_json
from postergenre.train.callbacks import Callback, Run, checkpoint_meta
from postergenre.train.loop import fit, seed_epoch, train_epoch
from postergenre.train.runs import release
from postergenre.train.setup import prepare


class FirstStep(Callback):
    "Record when the first step of a run has ended."

    def __init__(self):
        self.at: float | None = None

    def on_batch_end(self, run: Run, batch: int) -> None:
        self.at = self.at or time.time()


def create_own_run(
    work: Work,
    stage: str,  # head or finetune
    name: str,  # of the run
    compiled: bool = False,
) -> Run:
    "Return a run of this project that does the work."
    settings = json.loads((work.folder / "work.json").read_text(encoding="utf-8"))
    max_lr = work.max_lr_head if stage == "head" else work.max_lr_full
    return prepare(
        make_params(
            {
                "experiment_name": name,
                "root_path": str(work.folder / "data"),
                "seed": work.seed,
                "img_size": work.img_size,
                "augmentations": "light",
                "batch_size": work.batch_size,
                "num_iteration_on_epoch": None,
                "n_epochs": work.n_epochs if stage == "head" else 2,
                "model_name": work.model_name,
                "pretrained": settings["pretrained"],
                "min_positives": settings["min_positives"],
                "optimizer_kwargs": {"lr": max_lr / 25, "weight_decay": work.weight_decay},
                "scheduler": "one_cycle",
                "scheduler_kwargs": {"max_lr": max_lr},
                "callbacks": [{"freeze": {"parts": ["backbone"]}}] if stage == "head" else [],
                "compile": compiled,
            }
        )
    )


def head(
    work: Work,
    folder: Path,  # of the result
) -> dict[str, Any]:
    "Train the head, from image files to the last epoch's validation; then export the model for `predict`."
    imported = time.time()
    run = create_own_run(work, "head", folder.name)
    first, prepared = FirstStep(), time.time()
    run.callbacks.append(first)
    fit(run)
    done = time.time()
    release(run.lock)
    np.save(folder / "valid_scores.npy", run.validation.scores)
    notes = export_notes(checkpoint_meta(run), "model.best.pth", "")
    content = torchscript_file(run.model, tuple(work.img_size), False, notes)
    with write_atomically(work.folder / "model.ts") as unfinished:
        unfinished.write_bytes(content)
    features = run.feature_cache.seconds if run.feature_cache else 0.0
    return {
        "done": done,
        "imported": imported,
        "first_step": first.at,
        "stages": {
            "decoding, audit, model": prepared - imported - features,
            "features": features,
            "epochs": done - prepared,
        },
        "precision": run.accelerator.mixed_precision,
    }


def finetune(
    work: Work,
    folder: Path,  # of the result
    compiled: bool = False,
) -> dict[str, Any]:
    "Train two epochs and load a third; the second one counts, or both if the network is compiled."
    imported = time.time()
    run = create_own_run(work, "finetune", folder.name, compiled)
    first, prepared = FirstStep(), time.time()
    run.callbacks.append(first)
    seconds = []
    for run.epoch in range(2):
        seed_epoch(run)
        started = time.perf_counter()
        train_epoch(run)  # reads the mean loss at its end, so a GPU has finished
        seconds.append(time.perf_counter() - started)
    started = time.perf_counter()
    loaded = sum(len(images) for images, _, _ in run.train_loader)
    loading = time.perf_counter() - started
    release(run.lock)
    return {
        "done": time.time(),
        "imported": imported,
        "first_step": first.at,
        "posters_per_second": 2 * loaded / sum(seconds) if compiled else loaded / seconds[-1],
        "stages": {
            "decoding, audit, model": prepared - imported,
            "second epoch": seconds[-1],
            "its loader alone": loading,
        },
        "precision": run.accelerator.mixed_precision,
    }


def scoring_precision(
    predictor: Any,  # from `load_predictor`
    work: Work,
) -> str:
    "Return the precision in which the exported model computes: float32 on a CPU."
    return "no" if predictor.device.type == "cpu" else best_precision("auto", work.img_size)


def predict(
    work: Work,
    folder: Path,  # of the result
) -> dict[str, Any]:
    "Score the posters with the exported model, and compare the scores with those in full precision."
    from postergenre.predict.scorer import load_predictor, score_pictures

    paths = [Path(path) for path in work.paths("folder")]
    predictor = load_predictor(work.folder / "model.ts", mixed_precision="auto")
    started = time.perf_counter()
    scores, _ = score_pictures(predictor, paths, work.batch_size)
    seconds = time.perf_counter() - started
    done = time.time()
    exact, _ = score_pictures(load_predictor(work.folder / "model.ts"), paths, work.batch_size)
    return {
        "done": done,
        "posters_per_second": len(paths) / seconds,
        "max_difference_to_fp32": float(np.abs(scores - exact).max()),
        "precision": scoring_precision(predictor, work),
    }


def limit_finetune(
    work: Work,
    folder: Path,  # of the result
    steps: int = 8,  # number of timed steps, after three that are not timed
) -> dict[str, Any]:
    "Measure the training step alone: the loop's own network, loss and optimizer on one resident batch."
    run = create_own_run(work, "finetune", folder.name)
    batch = [value.to(run.accelerator.device) for value in next(iter(run.train_loader))]
    run.train_loader = [batch] * 3
    train_epoch(run)
    run.train_loader, run.step = [batch] * steps, 0
    started = time.perf_counter()
    train_epoch(run)
    seconds = time.perf_counter() - started
    release(run.lock)
    return {
        "done": time.time(),
        "posters_per_second": steps * len(batch[0]) / seconds,
        "precision": run.accelerator.mixed_precision,
    }


@torch.inference_mode()
def limit_predict(
    work: Work,
    folder: Path,  # of the result
    steps: int = 8,  # number of timed steps, after three that are not timed
) -> dict[str, Any]:
    "Measure the exported model alone, on one resident batch."
    from postergenre.predict.scorer import load_predictor

    keep_freed_memory()
    predictor = load_predictor(work.folder / "model.ts", mixed_precision="auto")
    predictor.scores.compile()
    images = torch.randint(0, 256, (work.batch_size, 3, *work.img_size), dtype=torch.uint8, device=predictor.device)
    for step in range(steps + 3):
        if step == 3:
            started = time.perf_counter()
        predictor.scores(images).cpu()
    seconds = time.perf_counter() - started
    return {
        "done": time.time(),
        "posters_per_second": steps * work.batch_size / seconds,
        "precision": scoring_precision(predictor, work),
    }


def limit_decode(
    work: Work,
    folder: Path,  # of the result
) -> dict[str, Any]:
    "Measure decoding and resizing alone, on all cores."
    paths = work.paths("folder")
    started = time.perf_counter()
    in_parallel(lambda path: load_poster(path, work.img_size).shape, paths)
    seconds = time.perf_counter() - started
    return {"done": time.time(), "posters_per_second": len(paths) / seconds}


JOBS = {
    ("postergenre", "head"): head,
    ("postergenre", "finetune"): finetune,
    ("compiled", "finetune"): partial(finetune, compiled=True),
    ("postergenre", "predict"): predict,
    ("limit", "finetune"): limit_finetune,
    ("limit", "predict"): limit_predict,
    ("limit", "decode"): limit_decode,
}


def main(
    contender: str,  # postergenre, compiled or limit
    job: str,
    folder: Path,  # of the work
    result: Path,  # file to write
) -> None:
    "Do one job and write what it took."
    found = JOBS[contender, job](read_work(folder), result.parent)
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    write_json(
        result, {"contender": contender, "job": job, "threads": torch.get_num_threads(), "versions": versions, **found}
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
