"""The README's stages through the papermill command line, at small scale, and what they leave behind."""

import json
import os
import shlex
import shutil
import subprocess
import sys

import pandas as pd
import torch
from conftest import ROOT, SMALL

from postergenre.train.runs import rename_run

TRAINED = ("params.yaml", "metrics.csv", "model.best.pth", "model.storage.json", "summary.json",
           "train_df.csv", "valid_df.csv", "test_df.csv", "test_predictions.csv", "audit.csv")  # fmt: skip


def test_every_stage_leaves_its_files(chain):
    for stage in ("head", "full"):
        assert all((chain / stage / name).is_file() for name in TRAINED), sorted((chain / stage).iterdir())
    for stage in ("lrf_head", "lrf_full"):
        assert list(pd.read_csv(chain / stage / "lr_find.csv")) == ["step", "lr", "loss", "smoothed"]
    assert all(
        (chain / "full" / name).is_file()
        for name in ("model.swa.pth", "swa.json", "model.ts", "model.pt2", "model.onnx")
    )
    assert not list(chain.rglob("*.tmp"))


def test_the_summary_is_whole_and_stands_beside_its_floor(chain):
    summary = json.loads((chain / "full" / "summary.json").read_text())
    for split in ("valid", "test"):
        figures = summary[split]
        assert 0 < figures["macro_ap_floor"] < figures["macro_ap"] <= 1
        assert figures["macro_ap_spread"]["low"] <= figures["macro_ap"] <= figures["macro_ap_spread"]["high"]
        assert 1 <= figures["n_genres"] <= figures["n_genres_total"] == len(summary["genres"])
    assert summary["data_hash"] and summary["seconds"] > 0
    assert summary["versions"]["torch"] == torch.__version__.split("+")[0]


def test_a_renamed_run_is_shown_and_exported_under_its_new_name(chain, papermill):
    shutil.copytree(chain / "full", chain / "spare")
    (chain / "spare.ipynb").write_text("{}")
    folder = rename_run(chain / "spare", "renamed")
    assert (chain / "renamed.ipynb").is_file() and not list(chain.glob("spare*"))
    shown = papermill("train", "renamed_train", "full", **{**SMALL, "experiment_name": "renamed"})
    assert shown.returncode == 0, shown.stderr[-2000:]
    assert "runs/renamed is finished; its results are shown" in (chain / "renamed_train.ipynb").read_text()
    done = papermill("to_torchscript", "renamed_ts", experiment_name="renamed", overwrite=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert not (chain / "spare").exists()
    notes = {"postergenre.json": ""}
    torch.jit.load(folder / "model.ts", _extra_files=notes)
    assert json.loads(notes["postergenre.json"])["experiment_name"] == "renamed"
    shutil.rmtree(folder)


def test_stages_share_one_split(chain):
    hashes = {json.loads((chain / stage / "summary.json").read_text())["split_hash"] for stage in
              ("lrf_head", "head", "lrf_full", "full")}  # fmt: skip
    assert len(hashes) == 1
    ids = {split: set(pd.read_csv(chain / "full" / f"{split}_df.csv")["Id"]) for split in ("train", "valid", "test")}
    assert not ids["train"] & ids["valid"] and not ids["train"] & ids["test"] and not ids["valid"] & ids["test"]
    assert set(pd.read_csv(chain / "full" / "test_predictions.csv")["Id"]) == ids["test"]


def test_prediction_of_a_folder_with_a_broken_picture(chain, papermill, tmp_path):
    from PIL import Image

    pictures = sorted((chain / "demo_posters_200" / "Images").glob("*.jpg"))[:5]
    folder = tmp_path / "my posters"
    folder.mkdir()
    for picture in pictures:
        (folder / picture.name).write_bytes(picture.read_bytes())
    (folder / "broken.jpg").write_bytes(pictures[0].read_bytes()[:900])
    Image.open(pictures[0]).convert("CMYK").save(folder / "cmyk.jpg")
    output = tmp_path / "predictions.csv"
    values = {"model": str(chain / "full" / "model.ts"), "images": str(folder), "output": str(output)}
    done = papermill("predict", "predict", **values)
    assert done.returncode == 0, done.stderr[-3000:]
    table = pd.read_csv(output, keep_default_na=False).set_index("path")
    assert len(table) == 7
    assert table.loc["broken.jpg", "error"] and not table.drop("broken.jpg")["error"].any()
    genres = json.loads((chain / "full" / "summary.json").read_text())["genres"]
    assert (table.drop("broken.jpg")[genres].astype(float) >= 0).all().all()
    again = papermill("predict", "predict", **values)
    assert again.returncode != 0 and "overwrite" in again.stderr


def test_a_later_stage_without_its_run_says_what_to_do(papermill):
    for job in ("swa", "to_torchscript"):
        done = papermill(job, "none", experiment_name="never_trained")
        assert done.returncode != 0 and "Train it first" in done.stderr


ALONE = """
import sys, json
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("timm", "torchvision", "postergenre", "PIL", "albumentations", "cv2", "pandas"):
            raise ImportError(name + " is not to be had here")
sys.meta_path.insert(0, Blocked())
import torch
files = {"genres.json": "", "thresholds.json": "", "postergenre.json": ""}
model = torch.jit.load(sys.argv[1], _extra_files=files)
scores = model(torch.randint(0, 256, (3, 3, 301, 203), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)))
print(json.dumps({"scores": scores.tolist(), "genres": json.loads(files["genres.json"]),
                  "thresholds": json.loads(files["thresholds.json"])}))
"""


def test_the_exported_model_needs_torch_alone(chain, tmp_path):
    model = chain / "full" / "model.ts"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", ALONE, str(model)], cwd=tmp_path, capture_output=True,
                          text=True, env={**os.environ, "PYTHONPATH": ""})  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout)
    export = json.loads((chain / "full" / "export.json").read_text())
    stored = torch.load(chain / "full" / export["made_from"]["weights"], weights_only=True)["meta"]
    assert said["genres"] == stored["genres"]
    assert said["thresholds"] == dict(zip(stored["genres"], stored["thresholds"], strict=True))
    assert len(said["scores"]) == 3 and all(0 <= score <= 1 for row in said["scores"] for score in row)


def test_the_command_printed_after_the_head_runs_as_printed(chain, as_printed, tmp_path):
    "It names the data and the checkpoint; only what makes it short is added."
    cells = json.loads((chain / "head.ipynb").read_text())["cells"]
    said = "".join(text for cell in cells for output in cell.get("outputs", []) for text in output.get("text", ""))
    (line,) = [line for line in said.splitlines() if line.startswith("Next: papermill nbs/lr_find.ipynb")]
    command = shlex.split(line.removeprefix("Next: "))
    command[2] = str(tmp_path / "printed.ipynb")  # the runs folder has been moved since
    shutil.copytree(chain / "head", tmp_path / "head")
    (tmp_path / "demo_posters_200").symlink_to(chain / "demo_posters_200")
    short = ("img_size", "batch_size", "num_iteration_on_epoch", "num_workers")
    as_printed(command, tmp_path, lrf_iterations=14, **{name: SMALL[name] for name in short})
    assert (tmp_path / "lrf_full" / "lr_find.csv").is_file()


def test_the_executed_notebooks_hold_one_progress_output(chain):
    notebook = json.loads((chain / "full.ipynb").read_text())
    fit = next(cell for cell in notebook["cells"] if "fit(run)" in "".join(cell["source"]))
    assert len(fit["outputs"]) <= 2
    assert "<p>Finished</p>" in json.dumps(fit["outputs"])


def test_jobs_run_from_the_notebooks_folder_too(chain, run_line, environment):
    line = ["papermill", "--no-progress-bar", "predict.ipynb", str(chain / "from_nbs.ipynb")]
    line += ["-p", "model", str(chain / "full" / "model.ts"), "-p", "output", str(chain / "from_nbs.csv")]
    line += ["-p", "images", str(chain / "demo_posters_200" / "Images")]
    done = run_line(line, environment, ROOT / "nbs")
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(pd.read_csv(chain / "from_nbs.csv")) == 200


def test_the_executed_training_starts_with_its_result_and_ends_with_folded_parameters(chain):
    path = chain / "full.ipynb"
    cells, summary = json.loads(path.read_text())["cells"], json.loads((chain / "full" / "summary.json").read_text())
    first, *_, last = [cell for cell in cells if cell.get("outputs")]
    shown = "".join(first["outputs"][0]["data"]["text/html"])
    for split in ("valid", "test"):
        low, high = (summary[split]["macro_ap_spread"][end] for end in ("low", "high"))
        assert f"{summary[split]['macro_ap']:.3f}" in shown and f"{summary[split]['macro_ap_floor']:.3f}" in shown
        assert f"{low:.3f} to {high:.3f}" in shown
    assert f"Best epoch: {summary['best_epoch']} of {summary['epochs']}" in shown
    assert "<details" in "".join(last["outputs"][-1]["data"]["text/html"])
    folded = [cell for cell in cells if {"parameters", "injected-parameters"} & set(cell["metadata"]["tags"])]
    assert len(folded) == 2 and all(cell["metadata"]["jupyter"]["source_hidden"] for cell in folded)
    assert path.stat().st_size < 400_000
