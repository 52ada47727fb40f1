#!/usr/bin/env bash
# accelerate 1.15.0, torch 2.14.1: a tracker whose package is not installed is dropped without an error or a warning
#
# `Accelerator(log_with=["tensorboard", "mlflow"])` accepts "mlflow" although mlflow is not installed, leaves it out of
# the trackers, and `init_trackers` and `log` succeed: a run of days ends with nothing on the MLflow server. An unknown
# name raises ValueError, and only a list without a single installed tracker gives a warning.
#
# Seen: trackers: tensorboard; warnings: 0; alone: 1 warning.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q accelerate==1.15.0 torch==2.14.1 tensorboard==2.21.0
cat >"$work/run.py" <<'PYTHON'
import importlib.util
import sys
import warnings

from accelerate import Accelerator

assert importlib.util.find_spec("mlflow") is None
with warnings.catch_warnings(record=True) as both:
    warnings.simplefilter("always")
    accelerator = Accelerator(log_with=["tensorboard", "mlflow"], project_dir=sys.argv[1], cpu=True)
    accelerator.init_trackers("project")
    accelerator.log({"loss": 0.5}, step=1)
    names = [tracker.name for tracker in accelerator.trackers]
    accelerator.end_training()
both = [str(warning.message) for warning in both if "log_with" in str(warning.message)]
with warnings.catch_warnings(record=True) as alone:
    warnings.simplefilter("always")
    Accelerator(log_with=["mlflow"], cpu=True)
alone = [str(warning.message) for warning in alone if "log_with" in str(warning.message)]
print(f"trackers: {', '.join(names)}; warnings: {len(both)}; alone: {len(alone)} warning")
sys.exit(0 if names == ["tensorboard"] and not both and len(alone) == 1 else 1)
PYTHON
cd "$work" && env -u PYTHONPATH "$work/venv/bin/python" run.py "$work/logs"
