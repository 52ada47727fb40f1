"""Do one job with one framework: PYTHON -m bench.competitors.run COMPETITOR JOB WORK_FOLDER RESULT.json"""

import importlib
import importlib.metadata
import json
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np

from bench.competitors.clock import Clock
from bench.competitors.work import WorkError, check_posters, plan_for, read_work, worker_count

COMPETITORS = {  # the script of each, and the packages that it needs
    "fastai": ("fastai_learner", ("torch", "timm", "fastai")),
    "torch": ("torch_loop", ("torch", "torchvision", "timm")),
    "timm": ("timm_loader", ("torch", "torchvision", "timm")),
    "lightning": ("lightning_module", ("torch", "torchvision", "timm", "lightning")),
}
JOBS = {  # the posters that each needs
    "head": ("train", "valid"),
    "finetune": ("train", "valid"),
    "tune": ("train", "valid"),  # fastai's own recipe
    "predict": ("train", "valid", "folder"),
}


def package_versions(
    competitor: str,  # one of `COMPETITORS`
) -> dict[str, str]:
    "Return the versions of Python and of what the competitor needs; raise `WorkError` if something is missing."
    versions = {"python": platform.python_version()}
    for name in COMPETITORS[competitor][1]:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            raise WorkError(f"{competitor} needs {name}, which this Python lacks; install bench/peers.txt.") from None
    return versions


def run(
    competitor: str,  # one of `COMPETITORS`
    job: str,  # one of `JOBS`
    folder: Path,  # with the work
    result: Path,  # file to write; scores are written next to it
    clock: Clock,  # started with the process
) -> None:
    "Do the job and write what it took; raise `WorkError` if it cannot be done."
    for given, name, allowed in ((competitor, "competitor", COMPETITORS), (job, "job", JOBS)):
        if given not in allowed:
            raise WorkError(f"{given!r} is not a {name}; allowed: {', '.join(allowed)}.")
    if job == "tune" and competitor != "fastai":
        raise WorkError(f"tune is fastai's own recipe, which {competitor} does not have.")
    work = read_work(folder)
    check_posters(work, JOBS[job])
    versions = package_versions(competitor)
    script = importlib.import_module(f"bench.competitors.{COMPETITORS[competitor][0]}")
    if job == "predict":
        backbone, scores = script.predict(work, clock)
        clock.posters[-1] = len(scores)
        clock.end_epoch(work.device)
    elif job == "tune":
        backbone, scores = script.tune(work, clock)
    else:
        backbone, scores = script.fit(work, plan_for(job, work), clock)
    found = {"contender": competitor, "job": job, **clock.results(job), "versions": versions}
    write_result(result, found | describe(competitor, work, backbone), scores, job)


def describe(competitor: str, work: Any, backbone: Any) -> dict[str, Any]:
    "Return how the job was done, and how many tensors of the backbone it changed."
    import torch  # the clock starts before torch is imported

    from bench.competitors.network import changed_weights

    return {
        "backbone_changed": len(changed_weights(work, backbone)),
        "num_workers": worker_count(work, competitor),
        "threads": torch.get_num_threads(),
        "device": work.device,
        "amp": work.amp,
    }


def write_result(result: Path, found: dict[str, Any], scores: np.ndarray | None, job: str) -> None:
    "Write the scores, if there are any, and then the result."
    file = None if scores is None else "scores.npy" if job == "predict" else "valid_scores.npy"
    result.parent.mkdir(parents=True, exist_ok=True)
    if file:
        np.save(result.with_name(file), scores.astype(np.float32))
    result.write_text(json.dumps({**found, "scores": file}, indent=1) + "\n", encoding="utf-8")


def main(
    arguments: list[str],  # competitor, job, work folder, result file
) -> None:
    "Run the command line; exit with a message if the work cannot be done."
    clock = Clock()  # before any framework is imported
    if len(arguments) != 4:
        sys.exit("Usage: PYTHON -m bench.competitors.run COMPETITOR JOB WORK_FOLDER RESULT.json")
    competitor, job, folder, result = arguments
    try:
        run(competitor, job, Path(folder), Path(result), clock)
    except WorkError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
