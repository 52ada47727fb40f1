#!/usr/bin/env bash
# huggingface_hub 2.4.0, numpy 2.3.5: a model card with a NumPy metric is written, but cannot be read again
#
# `EvalResult.metric_value` may be anything, and scikit-learn's metrics return np.float64, which is a float.
# `ModelCardData.to_yaml()` writes it without a warning, as a tag
# `!!python/object/apply:numpy...` of a dozen lines. YAML's safe loader refuses that tag, so `ModelCard` of the same
# library raises ConstructorError for its own text. `float(value)` before `EvalResult` helps.
#
# Seen: float: value: 0.5, read again; np.float64: a Python tag, ConstructorError.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q huggingface_hub==2.4.0 numpy==2.3.5
cat >"$work/run.py" <<'PYTHON'
import numpy as np
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData


def written_and_read(value):
    "Return the front matter of a card with this metric, and how reading it again ends."
    about = {"task_type": "image-classification", "dataset_type": "posters", "dataset_name": "posters"}
    result = EvalResult(**about, metric_type="average_precision", metric_value=value)
    text = ModelCardData(model_name="model", eval_results=[result]).to_yaml()
    try:
        return text, ModelCard(f"---\n{text}\n---\n").data.eval_results[0].metric_value
    except yaml.constructor.ConstructorError as error:
        return text, type(error).__name__


plain, again = written_and_read(0.5)
tagged, refused = written_and_read(np.float64(0.5))
print(f"float: {plain.splitlines()[-1].strip()}, read again as {again}")
print(f"np.float64: {next(line.strip() for line in tagged.splitlines() if 'value:' in line)}, {refused}")
assert again == 0.5 and "!!python/object" in tagged and refused == "ConstructorError"
PYTHON
"$work/venv/bin/python" "$work/run.py"
