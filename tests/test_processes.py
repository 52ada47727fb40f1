"""Two processes under Accelerate train one run together."""

import json
import os
import subprocess
import sys

from conftest import ROOT

SCRIPT = """
import json, sys
from pathlib import Path
from postergenre.config import make_params
from postergenre.lr_finder import find_lr
from postergenre.training import finish, fit, prepare

small = json.loads(sys.argv[1])
run = prepare(make_params({**small, "experiment_name": "pair"}))
fit(run)
finish(run)
find_lr(make_params({**small, "experiment_name": "pair_lrf", "lrf_iterations": 12}))
place = {"processes": run.accelerator.num_processes, "draw": run.sampler.draw}
weight = run.model.head.linear.weight.detach().double().sum().item()
result = {**place, "step": run.step, "weight": weight, "valid": len(run.validation.targets)}
Path(sys.argv[2], f"{run.accelerator.process_index}.json").write_text(json.dumps(result))
"""


def test_two_processes_train_one_run(runs, tmp_path):
    small = {
        "n_demo_posters": 160,
        "img_size": [32, 32],
        "batch_size": 8,
        "num_iteration_on_epoch": 3,
        "n_epochs": 2,
        "pretrained": False,
        "num_workers": 0,
        "min_positives": 2,
        "model_name": "test_efficientnet",
    }
    script = tmp_path / "pair.py"
    script.write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    environment = {**os.environ, "RUNS_PATH": str(runs), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(
        [*launch, json.dumps(small), str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert one["processes"] == other["processes"] == 2
    assert one["step"] == other["step"] == 6
    assert one["weight"] == other["weight"]  # they averaged their gradients
    summary = json.loads((runs / "pair" / "summary.json").read_text())
    assert one["valid"] == summary["posters"]["valid"]  # gathered from both, none twice
    assert max(one["draw"], other["draw"]) == 2 * 3 * 2 * 8  # twice the posters of one process
    assert (runs / "pair_lrf" / "lr_find.csv").is_file()
