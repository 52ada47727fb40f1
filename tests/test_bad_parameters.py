"""Bad parameters end a job before any training: exit code, and a sentence that says what to do."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, SMALL

from postergenre.config import make_params
from postergenre.errors import ConfigError
from postergenre.params import Params, known_callbacks
from postergenre.train.state import differences_that_matter
from postergenre.values import kinds_of

BAD = {
    "unknown name": ({"n_epoch": 5}, ["`n_epoch` (given: 5) is not a parameter", "Did you mean `n_epochs`?"]),
    "wrong type": ({"batch_size": "many"}, ["`batch_size`: given 'many'", "an integer, at least 1"]),
    "YAML's off": ({"scheduler": False}, ["`scheduler`: given False", "'one_cycle'"]),
    "taken name": ({"experiment_name": "cache"}, ["`experiment_name`: given 'cache'", "any other name"]),
    "empty path": ({"checkpoint_name": ""}, ["`checkpoint_name`: given ''", "not empty"]),
    "callback twice": ({"callbacks": ["freeze", "freeze"]}, ["freeze is given twice"]),
    "impossible value": ({"split_fractions": [0.9, 0.2, 0.1]}, ["given [0.9, 0.2, 0.1]", "add up to 1"]),
    "unknown loss": ({"loss": "focall"}, ["focall", "focal"]),
    "unknown model": ({"model_name": "resnet19"}, ["resnet19", "resnet18"]),
    "unknown callback": ({"callbacks": ["freez"]}, ["freez", "freeze"]),
    "unknown argument": ({"optimizer_kwargs": {"lr": 0.1, "weight_deca": 0}}, ["weight_deca", "weight_decay"]),
    "unknown metric": ({"valid_metric": "macro_app"}, ["`valid_metric`", "Did you mean `macro_ap`?"]),
    "no such checkpoint": ({"checkpoint_name": "nowhere"}, ["There is no checkpoint `nowhere`"]),
    "no such folder": ({"root_path": "no/such/folder"}, ["no/such/folder"]),
    "larger batch than posters": ({"batch_size": 1000}, ["`batch_size`: given 1,000; allowed: at most 1"]),
    "eps of zero": ({"optimizer_kwargs": {"lr": 0.1, "eps": 0}}, ["eps is 0; allowed: a number, above 0"]),
    "infinite decay": ({"optimizer_kwargs": {"lr": 0.1, "weight_decay": float("inf")}}, ["weight_decay is inf"]),
    "no momentum": (
        {"optimizer": "SGD", "optimizer_kwargs": {"lr": 0.1, "momentum": float("nan")}},
        ["momentum is nan"],
    ),
    "infinite patience": ({"callbacks": [{"early_stopping": {"patience": float("inf")}}]}, ["patience is inf"]),
    "one beta": (
        {"optimizer_kwargs": {"lr": 0.1, "betas": [0.9]}},
        ["betas is [0.9]; allowed: a list, each a number, 2 of"],
    ),
    "text as switch": ({"optimizer_kwargs": {"lr": 0.1, "amsgrad": "x"}}, ["amsgrad is 'x'; allowed: true or false"]),
    "long path": ({"root_path": "ab/" * 2000}, ["`root_path`", "(6,002 characters)", "at most 3,000 bytes"]),
    "unknown part": ({"callbacks": [{"freeze": {"parts": ["nosuch"]}}]}, ["nosuch", "backbone"]),
    "unknown stages": ({"callbacks": [{"freeze": {"stages": 99}}]}, ["stages of freeze is 99", "Its stages: stem: "]),
    "growing rates": ({"layer_decay": 1.5}, ["`layer_decay`: given 1.5", "above 0, at most 1"]),
    "alpha of zero": ({"mixing": {"mixup": 0}}, ["`mixing`: mixup is 0; allowed: a number, above 0"]),
    "larger at first": ({"progressive_size": {1: [99, 99]}}, ["`progressive_size`: given {1: [99, 99]}"]),
    "unknown recipe": ({"augmentations": "lite"}, ["lite", "light"]),
}


@pytest.mark.parametrize("case", BAD)
def test_prepare_refuses(case, runs, monkeypatch):
    from postergenre.train.setup import prepare

    monkeypatch.setenv("RUNS_PATH", str(runs))
    monkeypatch.delenv("ROOT_PATH", raising=False)
    monkeypatch.chdir(ROOT)
    values, parts = BAD[case]
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        prepare(make_params({**SMALL, "experiment_name": "bad", **values}))
    assert hasattr(caught.value, "_render_traceback_"), "a notebook would show a traceback"
    message = str(caught.value)
    assert all(part in message for part in parts), message
    assert not (runs / "bad").exists()


@pytest.mark.parametrize("number", [float("nan"), float("inf"), "-1e999", 10**400])
def test_no_parameter_holds_a_number_that_is_not_finite(number):
    holding = {dict: {"a": number}, list: [{"a": {"b": [number]}}], float: number}
    for name, field in Params.model_fields.items():
        kinds = kinds_of(field.annotation)
        for value in (value for kind, value in holding.items() if kind in kinds):
            with pytest.raises(ConfigError, match=rf"`{name}`: given .*(finite|allowed: [a-z])"):
                make_params({name: value})


def test_the_command_line_fails_with_the_sentence_and_no_run(papermill, runs):
    done = papermill("train", "typo", **{**SMALL, "experiment_name": "typo", "n_epoch": 5, "optimiser": "Adam"})
    assert done.returncode != 0
    assert "`n_epoch` (given: 5) is not a parameter. Did you mean `n_epochs`?" in done.stderr
    assert "`optimiser` (given: 'Adam') is not a parameter. Did you mean `optimizer`?" in done.stderr
    assert not (runs / "typo").exists()


REFUSED = {  # schema, values, part of the message
    "name": ("Params", {"n_epoch": 5}, "Did you mean `n_epochs`?"),
    "value": ("Params", {"loss": "focall"}, "Did you mean `focal`?"),
    "checkpoint": ("Params", {"checkpoint_name": "nowhere"}, "There is no checkpoint `nowhere`"),
    "swa": ("SwaParams", {"experiment_name": "nowhere"}, "runs/nowhere does not exist"),
    "ensemble": ("EnsembleParams", {"experiment_name": "nowhere"}, "runs/nowhere does not exist"),
    "view": ("EnsembleParams", {"tta": ["rotate"]}, "`tta`"),
    "export": ("ExportParams", {"experiment_name": "nowhere"}, "runs/nowhere does not exist"),
    "evaluate": ("EvaluateParams", {"experiment_name": "nowhere"}, "runs/nowhere does not exist"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_needs_no_torch_is_refused_before_torch_is_imported(case, tmp_path):
    import os
    import subprocess
    import sys

    schema, values, words = REFUSED[case]
    code = (
        "import sys, postergenre; assert not [name for name in sys.modules if name.startswith('postergenre.')]\n"
        "from postergenre import config, errors, params as schemas\n"
        "from postergenre.train import runs\n"
        f"try:\n    params = config.read_parameters({values!r}, schemas.{schema})\n"
        "    (runs.check_start if isinstance(params, schemas.Params) else runs.check_finished)(params)\n"
        "except errors.ConfigError as error:\n    print(error)\n"
        "print([name for name in ('torch', 'pandas', 'timm') if name in sys.modules])"
    )
    env = {**os.environ, "RUNS_PATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=ROOT, capture_output=True, text=True)
    assert words in done.stdout and done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


@pytest.mark.parametrize("job", ["train", "lr_find", "swa", "ensemble", "to_torchscript", "evaluate"])
def test_a_job_checks_its_start_and_says_what_it_does_before_it_imports_torch(job):
    import json

    notebook = json.loads((ROOT / "nbs" / f"{job}.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    first = cells[1]
    modules = {line.split()[1] for line in first.splitlines() if line.startswith("from ")}
    assert (
        modules <= {"IPython.display", "postergenre.config", "postergenre.params", "postergenre.train.runs"}
        and "params = read_parameters(" in first
    )
    if job == "evaluate":  # as a page it prints nothing
        assert cells[2].index('print(f"Evaluating') < cells[2].index("from postergenre.pages.evaluate")
        first += "\nprint("
    _, after = re.split(r"^check_(?:start|finished)\(params\)$", first, flags=re.MULTILINE)
    assert re.fullmatch(r"(\nresult = display\(.+\))?\nprint\(.*", after), after  # the place of the result comes first


def test_the_schema_knows_the_names_that_the_chapters_define():
    from postergenre.data.augmentation import AUGMENTATIONS
    from postergenre.metrics.metrics import METRICS
    from postergenre.train.callbacks import CALLBACKS
    from postergenre.train.losses import LOSSES
    from postergenre.train.schedules import SCHEDULES

    defined = {"loss": LOSSES, "scheduler": SCHEDULES, "valid_metric": METRICS, "augmentations": AUGMENTATIONS}
    for name, known in defined.items():
        kinds = kinds_of(Params.model_fields[name].annotation)
        assert {kind for kind in kinds if isinstance(kind, str)} == set(known), name
    assert known_callbacks(list(CALLBACKS)) == list(CALLBACKS)
    with pytest.raises(ValueError, match=f"^{', '.join(CALLBACKS)}, or "):
        known_callbacks(["other"])


def test_a_batch_of_one_poster_is_refused_before_any_work(runs, monkeypatch):
    from postergenre.train.setup import check_batch_norm, prepare

    monkeypatch.setenv("RUNS_PATH", str(runs))
    monkeypatch.delenv("ROOT_PATH", raising=False)
    tiny = {**SMALL, "experiment_name": "one_poster", "img_size": [32, 32], "batch_size": 1, "pretrained": False}
    with pytest.raises(ConfigError, match="`batch_size`: given 1; allowed for tf_efficientnet_lite0: at least 2"):
        prepare(make_params(tiny))
    assert not (runs / "one_poster").exists()
    frozen = {**tiny, "callbacks": ["freeze"], "experiment_name": "one_poster_frozen"}  # batch norm is at rest
    run = prepare(make_params(frozen))
    statistics = run.model.state_dict()["backbone.bn1.running_mean"].clone()
    check_batch_norm(run.model, run.params)
    assert torch.equal(run.model.state_dict()["backbone.bn1.running_mean"], statistics)  # the try left no trace


def test_a_genre_that_all_posters_have_is_named():
    from postergenre.train.setup import check_metric

    frame = pd.DataFrame({"Id": list("abc"), "path": "", "Drama": np.uint8(1)})
    data = SimpleNamespace(valid=frame, genres=["Drama"])
    with pytest.raises(ConfigError) as caught:
        check_metric(Params(min_positives=1), data)
    message = str(caught.value)
    assert "All validation posters have Drama" in message and "without it" in message and "Lower" not in message


def test_yaml_exponents_are_numbers():
    params = make_params({"gradient_clip": "1e-1", "scheduler_kwargs": {"max_lr": "5E-4"}})
    assert params.gradient_clip == 0.1 and params.scheduler_kwargs == {"max_lr": 0.0005}


def test_none_is_an_empty_list_where_it_can_only_mean_that():
    from postergenre.params import EvaluateParams, PickParams

    lists = {Params: ("trackers", "callbacks", "drop_genres", "ensemble_members", "tta")}
    lists |= {PickParams: ("beside",), EvaluateParams: ("cam_ids",)}
    for schema, names in lists.items():
        for name in names:
            for word in ("none", "None", "[]"):
                assert getattr(make_params({name: word}, schema), name) == [], (name, word)
    assert make_params({"drop_genres": ["none"]}).drop_genres == ["none"]
    assert make_params({"augmentations": "none"}).augmentations == "none"
    for name in ("img_size", "split_fractions"):  # which must hold numbers
        with pytest.raises(ConfigError, match=rf"`{name}`: given 'none'; allowed: a list.*: \[\.\.\.\]}}'\.$"):
            make_params({name: "none"})


def test_a_number_in_a_list_of_names_is_a_name(capsys):
    from postergenre.config import read_parameters
    from postergenre.params import EvaluateParams, PickParams

    assert make_params({"beside": [2026, "a"]}, PickParams).beside == ["2026", "a"]
    assert make_params({"cam_ids": "[7]"}, EvaluateParams).cam_ids == ["7"]
    assert make_params({"drop_genres": [1], "ensemble_members": [2]}).ensemble_members == ["2"]
    read_parameters({"cam_ids": ["a", 7], "n_cam": 3}, EvaluateParams)
    assert capsys.readouterr().out.startswith("`cam_ids`: got the number 7; using it as the name '7'.")
    for value in ({"drop_genres": [True]}, {"drop_genres": [1.5]}, {"img_size": ["96", "64"]}):
        with pytest.raises(ConfigError, match="allowed: "):
            make_params(value)


def test_environment_variables_reach_a_job(papermill, environment, tmp_path):
    import subprocess
    import sys

    code = (
        "import os, cv2, torch, postergenre.train.training, postergenre.config as c;"
        "print(torch.get_num_threads(), torch.cuda.is_available(), c.data_root(c.Params()))"
    )
    set_to = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "ROOT_PATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env={**environment, **set_to}, capture_output=True, text=True)
    assert done.stdout.split() == ["1", "False", str(tmp_path.resolve())], done.stderr
    missing = papermill("train", "noroot", env={"ROOT_PATH": str(tmp_path / "gone")}, experiment_name="noroot")
    assert missing.returncode != 0 and "gone" in missing.stderr


def test_parameters_of_later_jobs_do_not_make_a_run_another_one():
    given = {"text": True, "tta": ["flip"], "ensemble_members": ["head"], "n_processes": 2}
    assert differences_that_matter(make_params({}), make_params(given)) == []
    assert differences_that_matter(make_params({}), make_params({"accumulate": 2})) != []


@pytest.mark.parametrize("names", ["simple", "head", "full", "full_vit", "full focal"])
def test_every_stage_can_be_shrunk_by_demo_yaml_given_last(names):
    from ruamel.yaml import YAML

    from postergenre.train.state import check_values

    values = {}
    for name in (*names.split(), "demo"):
        values |= YAML(typ="safe").load((ROOT / "params" / f"{name}.yaml").read_text())
    check_values(make_params(values))
