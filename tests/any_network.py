"""Take networks of timm through every stage at a small size, and print a table: python tests/any_network.py [NAME ...]

Each network gets a process of its own and starts without pretrained weights. NAME@64x64 gives another size than 64x48.
Without names, those of `NETWORKS` take some six minutes on two CPU cores; `test_any_network.py` runs three of them.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

NETWORKS = (
    "test_vit",
    "convnext_atto",
    "swin_tiny_patch4_window7_224",
    "mobilenetv4_conv_small",
    "ghostnet_100",
    "repvgg_a0",
    "levit_128s",
    "xcit_nano_12_p8_224",
    "mvitv2_tiny",
    "mvitv2_tiny@64x64",
    "lambda_resnet26t",
)
TINY = {
    "pretrained": False,
    "n_demo_posters": 200,
    "img_size": [64, 48],
    "batch_size": 16,
    "num_iteration_on_epoch": 2,
    "n_epochs": 2,
    "keep": "averaging",
    "num_workers": 0,
    "min_positives": 3,
    "split_fractions": [0.6, 0.2, 0.2],
    "lrf_iterations": 12,
    "swa_bn_batches": 2,
    "mixed_precision": "no",
}
FREEZE = {"callbacks": ["freeze"], "feature_views": 1}


def score_demo_posters(folder: Path, name: str) -> pd.DataFrame:
    "Predict all demo posters with one file of a run; more than 100 of them, so that OpenVINO is tried."
    from postergenre.config import make_params
    from postergenre.params import PredictParams
    from postergenre.predict.job import predict_folder

    values = {"model": f"{folder}/{name}", "images": f"{folder.parent}/demo_posters_200/Images", "num_workers": 0}
    found = predict_folder(make_params({**values, "output": f"{folder}/{name}.csv"}, PredictParams))
    assert not found.table["error"].any()
    return found.table.drop(columns=["path", "error", "genres"])


def predict_with_every_file(folder: Path) -> str:
    "Predict with the checkpoint and the three exports; return how far apart their scores are."
    checkpoint = json.loads((folder / "export.json").read_text())["made_from"]["weights"]
    wanted = score_demo_posters(folder, checkpoint)
    files = ("model.ts", "model.pt2", "model.onnx")
    difference = max(float((score_demo_posters(folder, file) - wanted).abs().to_numpy().max()) for file in files)
    # float32 in another order, pixels rounded twice, and six digits in the table
    assert difference < 0.02, f"scores of the files differ by {difference:.2g}"
    return f"to {difference:.0e}"


def compile_both(folder: Path) -> str:
    "Run the classifier and its features through OpenVINO, if it can; return by how much each differs from torch."
    import torch

    from postergenre.model.inference import CompiledNetwork, compile_network
    from postergenre.train.checkpoints import load_checkpoint, model_of
    from postergenre.train.features import _Features

    checkpoint = load_checkpoint(folder / "model.best.pth")
    model, img_size = model_of(checkpoint), checkpoint["meta"]["img_size"]
    images = torch.randint(0, 256, (5, 3, *img_size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    said = []
    for network in (model, _Features(model)):
        compiled = compile_network(network, img_size)
        with torch.inference_mode():
            wanted, given = network(images), compiled(images)
        difference = float((given - wanted).abs().max() / wanted.abs().max())
        assert difference < 1e-3, f"OpenVINO differs by {difference:.2g}"
        said.append(f"{difference:.0e}" if isinstance(compiled, CompiledNetwork) else "torch")
    return " and ".join(said)


def size_of_map(folder: Path) -> str:
    "Return the rows and columns of the last feature map, whose Grad-CAM is computed."
    import torch

    from postergenre.model.attribution import _last_map, grad_cam
    from postergenre.train.checkpoints import load_checkpoint, model_of

    checkpoint = load_checkpoint(folder / "model.best.pth")
    model, img_size = model_of(checkpoint), checkpoint["meta"]["img_size"]
    images = torch.randint(0, 256, (2, 3, *img_size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    assert grad_cam(model, images, 0).shape == (2, *img_size)
    layout = _last_map(model, images[:1])[1]
    assert layout.rows >= layout.columns  # as the poster's sides
    return f"{layout.rows} x {layout.columns}"


def stages_of(network: str, runs: Path) -> dict[str, Callable[[], str]]:
    "The stages by name; each returns a few words, or raises."
    from postergenre.config import make_params
    from postergenre.export.job import export_run
    from postergenre.train.averaging import average_run
    from postergenre.train.finder import find_lr
    from postergenre.train.loop import fit
    from postergenre.train.setup import prepare
    from postergenre.train.training import finalize

    model_name, _, size = network.partition("@")
    img_size = [int(side) for side in size.split("x")] if size else TINY["img_size"]
    own = {**TINY, "model_name": model_name, "img_size": img_size}

    def params(experiment_name: str, **values):
        return make_params({**own, "experiment_name": experiment_name, **values})

    def trained(experiment_name: str, **values) -> str:
        run = prepare(params(experiment_name, **values))
        fit(run)
        finalize(run)
        report = run.start_report
        return "" if report is None or report.empty else f"{len(report)} {' and '.join(set(report['status']))}"

    full = {"checkpoint_name": "head", "backbone_lr_factor": 0.1}
    return {
        "range test": lambda: f"{len(find_lr(params('lrf', **FREEZE)).table)} steps",
        "head": lambda: trained("head", **FREEZE),
        "full": lambda: trained("full", **full),
        "larger": lambda: trained("larger", **full, img_size=[2 * side for side in img_size]),
        "swa": lambda: f"{len(average_run(params('full', **full)).table)} rows",
        "export": lambda: f"to {export_run(params('full', **full)).table['beyond_rounding'].max():.0e}",
        "predict": lambda: predict_with_every_file(runs / "full"),
        "openvino": lambda: compile_both(runs / "full"),
        "map": lambda: size_of_map(runs / "full"),
    }


NEEDS = {"head": (), "range test": (), "full": ("head",), "larger": ("head",), "predict": ("export",)}  # others: full


def take_through(network: str, runs: Path) -> dict[str, str]:
    "Run every stage; return `ok ...`, `refused: ...` (a message of the project's) or `FAILED: ...` for each."
    said: dict[str, str] = {}
    for stage, run in stages_of(network, runs).items():
        started = time.monotonic()
        if not all(said[needed].startswith("ok") for needed in NEEDS.get(stage, ("full",))):
            said[stage] = "-"
            continue
        try:
            said[stage] = f"ok {run()}".strip()
        except Exception as error:  # whatever a network does is a result
            ours = hasattr(error, "_render_traceback_")  # shown in a notebook as a message, without a traceback
            said[stage] = f"refused: {error}" if ours else f"FAILED: {type(error).__name__}: {error}"
        said[stage] += f" ({time.monotonic() - started:.0f} s)"
    return said


def write_what_is_said(network: str, runs: Path) -> None:
    "Write what `take_through` returns into the runs folder."
    (runs / "said.json").write_text(json.dumps(take_through(network, runs)))


def in_own_process(network: str, runs: Path) -> dict[str, str]:
    "`take_through` in a process of its own, with its output shown."
    inherited = {name: value for name, value in os.environ.items() if name != "ROOT_PATH"}
    environment = {**inherited, "RUNS_PATH": str(runs), "NO_ALBUMENTATIONS_UPDATE": "1"}
    runs.mkdir(parents=True, exist_ok=True)
    done = subprocess.run([sys.executable, __file__, "--write", str(runs), network], env=environment)
    if done.returncode:
        return {"range test": f"FAILED: the process ended with {done.returncode}"}
    return json.loads((runs / "said.json").read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=NETWORKS)
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    if given.write:
        write_what_is_said(given.names[0], given.write)
        return
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in given.names:
            print(f"== {name}", flush=True)
            rows[name] = in_own_process(name, Path(folder, name))
            for stage, said in rows[name].items():
                print(f"   {stage}: {said}", flush=True)
    table = pd.DataFrame(rows).T
    print(table.map(lambda said: said if len(str(said)) <= 30 else f"{said[:27]}...").to_string())
    sys.exit(int(table.map(lambda said: str(said).startswith("FAILED")).any(axis=None)))


if __name__ == "__main__":
    main()
