"""A pipeline of demo size and a sweep of six variants through sbatch, at the same time, on the cluster of slurm.sh.

A job of the pipeline is cancelled, and the same command goes on. A job of the sweep is cancelled, and Snakemake submits
it again. One variant fails, and the others go on.
"""

import csv
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ["CLUSTER"])
RUNS = FOLDER / "runs"
# the profile as it is, but for the size of the node and for jobs of seconds
COMMAND = "snakemake --profile workflow/profiles/slurm --max-threads 1 --slurm-init-seconds-before-status-checks 5"
PIPELINE = ["--config", "prefix=cluster_", "overlays=params/demo.yaml", f"images={RUNS}/demo_posters_600/Images",
            "n_shards=2"]  # fmt: skip
SWEEP = """
name: six
base: [params/head.yaml, params/demo.yaml]
axes:
  setting:
    slow: {scheduler_kwargs: {max_lr: 3.0e-4}}
    fast: {scheduler_kwargs: {max_lr: 3.0e-3}}
    smoothing: params/smoothing.yaml
    focal: params/focal.yaml
    huge: {batch_size: 4096}
seeds: [1]
runs_per_job: 2
"""


class Workflow:
    "Snakemake in a folder of its own."

    def __init__(self, name: str, *options: str):
        self.folder, self.options = FOLDER / name, options
        self.folder.mkdir()
        for linked in ("nbs", "params", "workflow"):
            (self.folder / linked).symlink_to(ROOT / linked)

    def start(self, *more: str) -> None:
        line = [*COMMAND.split(), *more, *self.options]
        print(f"{self.folder.name}$ {' '.join(line)}", flush=True)
        env = {name: value for name, value in os.environ.items() if name not in ("ROOT_PATH", "CLUSTER")}
        env |= {"RUNS_PATH": str(RUNS), "PYTHONPATH": str(ROOT), "NO_ALBUMENTATIONS_UPDATE": "1"}
        with (self.folder / "log").open("w") as log:
            self.process = subprocess.Popen(line, cwd=self.folder, env=env, stdout=log, stderr=subprocess.STDOUT)

    def cancel_once(self, rule: str, ready: Callable[[], bool]) -> str:
        "Cancel the first job of a rule that is at work once something is ready, and return its number."
        while not (jobs := jobs_at_work(rule)) or not ready():
            if self.process.poll() is not None:
                self.fail(f"ended before {rule} could be cancelled")
            time.sleep(0.3)
        print(f"  {self.folder.name}: scancel {jobs[0]}, a job of {rule}", flush=True)
        subprocess.run(["scancel", jobs[0]], check=True)
        return jobs[0]

    def finish(self, code: int = 0) -> str:
        if self.process.wait() != code:
            self.fail(f"ended with {self.process.returncode}, not {code}")
        output = (self.folder / "log").read_text()
        for line in re.findall(r"SLURM-job .*?\.|^\d+ of \d+ steps.*|^Nothing to be done.*", output, re.M):
            print(f"  {self.folder.name}: {line}", flush=True)
        return output

    def fail(self, why: str) -> None:
        logs = [self.folder / "log", *(self.folder / ".snakemake" / "slurm_logs").rglob("*.log")]
        sys.exit("\n".join([*(path.read_text() for path in logs), f"{self.folder.name}: Snakemake {why}"]))


def jobs_at_work(rule: str) -> list[str]:
    line = ["squeue", "--noheader", "--states=RUNNING", "--format=%i %k"]
    jobs = subprocess.run(line, capture_output=True, text=True, check=True).stdout.split("\n")
    return [job.split()[0] for job in jobs if re.search(rf" {rule}(_wildcards|$)", job)]


def slurm_jobs() -> list[dict[str, str]]:
    "Return what Slurm has recorded of all jobs, with the largest memory of their steps."
    fields = ["JobID", "Comment", "State", "ExitCode", "Elapsed", "AllocCPUS", "ReqMem", "AllocTRES", "MaxRSS"]
    line = ["sacct", "-P", "--units=M", "--starttime=now-1days", f"--format={','.join(fields)}"]
    table = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    rows = list(csv.DictReader(table.splitlines(), delimiter="|"))
    jobs = [row for row in rows if "." not in row["JobID"] and row["Comment"]]
    for job in jobs:
        steps = [row["MaxRSS"] for row in rows if row["JobID"].startswith(f"{job['JobID']}.") and row["MaxRSS"]]
        job["MaxRSS"] = max(steps, key=lambda size: float(size.rstrip("M")), default="")
        job["AllocTRES"] = ",".join(re.findall(r"gres/gpu=\d+", job["AllocTRES"]))
    return jobs


def print_jobs(jobs: list[dict[str, str]]) -> None:
    widths = {name: max(len(name), *(len(job[name]) for job in jobs)) for name in jobs[0]}
    for job in [dict(zip(widths, widths, strict=True)), *jobs]:
        print("  ".join(job[name].ljust(width) for name, width in widths.items()).rstrip())


def prove(pipeline: Workflow, sweep: Workflow) -> None:
    sweep.start("--retries", "1")
    pipeline.start()
    again = sweep.cancel_once("rule_sweep_part", lambda: any((RUNS / "six" / "rows").glob("*.json")))
    cancelled = pipeline.cancel_once("rule_full", (RUNS / "cluster_full" / "state.pth").exists)
    assert f"SLURM-job '{cancelled}' failed, SLURM status is: 'CANCELLED" in pipeline.finish(1)
    pipeline.start()
    assert f"SLURM-job '{again}' failed, SLURM status is: 'CANCELLED" in sweep.finish()
    pipeline.finish()

    (resumed,) = re.findall(r"It resumes after epoch \d+ of \d+", (RUNS / "cluster_full.ipynb").read_text())
    print(f"cluster_full.ipynb: {resumed}")
    print(f"cluster_predictions.json: {(RUNS / 'cluster_predictions.json').read_text().strip()}")
    with (RUNS / "six" / "outcome.csv").open() as table:
        rows = {row["setting"]: row for row in csv.DictReader(table)}
    for name, row in rows.items():
        print(f"variant {name}: {row['state']} {row['message']}")
    assert {name for name, row in rows.items() if row["state"] != "finished"} == {"huge"} and len(rows) == 6
    for workflow in (pipeline, sweep):
        workflow.start("--dry-run")
        assert "Nothing to be done" in workflow.finish()


(FOLDER / "six.yaml").write_text(SWEEP)
try:
    prove(Workflow("pipeline", *PIPELINE), Workflow("sweep", "--config", f"sweep={FOLDER}/six.yaml", "--", "sweep"))
finally:
    if recorded := slurm_jobs():
        print_jobs(recorded)
states = Counter(job["State"].split()[0] for job in recorded)
assert set(states) == {"COMPLETED", "CANCELLED"} and states["CANCELLED"] == 2, states
