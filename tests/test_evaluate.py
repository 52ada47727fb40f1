"""Evaluation of a finished run: thresholds see validation data alone, are carried on, and what is written is whole."""

import dataclasses
import json
import shutil
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, SMALL

from postergenre.config import make_params
from postergenre.errors import ConfigError
from postergenre.metrics.metrics import count_labels, evaluable_genres, predict_labels
from postergenre.params import EvaluateParams

SCRIPT = "<script>alert(1)</script>"
TINY = {"model_name": "test_resnet", "pretrained": False, "n_epochs": 2, "optimizer_kwargs": {"lr": 1e-2}}


@pytest.fixture(scope="module")
def trained(chain, tmp_path_factory):
    "A small run on the posters of the chain, one genre of which is called like a script; yields its parameters."
    from postergenre.train.training import train_run

    root = tmp_path_factory.mktemp("posters")
    table = pd.read_csv(chain / "demo_posters_200" / "train.csv")
    genres = list(table.columns[2:])
    names = [SCRIPT if genre == "Drama" else genre for genre in genres]
    labels = ["|".join(n for n, yes in zip(names, row, strict=True) if yes) for row in table[genres].to_numpy()]
    pd.DataFrame({"Id": table["Id"], "Genre": labels}).to_csv(root / "train.csv", index=False)
    (root / "Images").symlink_to(chain / "demo_posters_200" / "Images")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNS_PATH", str(tmp_path_factory.mktemp("runs_of_tiny")))
        patch.delenv("ROOT_PATH", raising=False)
        params = make_params({**SMALL, **TINY, "experiment_name": "tiny", "root_path": str(root)})
        train_run(params)
        yield params


def asked(**values) -> EvaluateParams:
    return EvaluateParams(**{"experiment_name": "tiny", "n_cam": 0, "n_mistakes": 0, **values})


@pytest.fixture(scope="module")
def evaluated(trained):
    from postergenre.report.evaluation import evaluate_run

    return evaluate_run(asked(split="test", n_mistakes=4, n_cam=2))


def test_mean_maps_are_those_of_their_genre(evaluated, monkeypatch):
    from postergenre.report import evaluation
    from postergenre.report.figures import fitted_images, most_confident_hits

    def maps(model, images, columns):  # each tells its poster and its genre
        pairs = zip(images, columns, strict=True)
        return np.stack([np.full((2, 2), image.float().mean() + 1000 * column) for image, column in pairs])

    run, shown, drawn = evaluated.run, evaluated.shown, []
    monkeypatch.setattr(evaluation, "grad_cam", maps)
    monkeypatch.setattr(evaluation, "plot_mean_maps", lambda *given: drawn.append(given))
    monkeypatch.setattr(evaluation, "photo", Mock())
    list(evaluation._mean_cam_steps(run, shown))
    ((means, names),) = drawn
    genres = [hits for hits in most_confident_hits(shown, 8) if hits]
    assert len(genres) == len(means) > 4  # more than are computed together
    for hits in genres:
        rows, (column, *_) = zip(*hits, strict=True)
        wanted = maps(None, fitted_images(run, shown.split, rows), [column] * len(rows)).mean()
        assert np.allclose(means[column], wanted) and names[column] == f"{run.genres[column]} ({len(rows)})"


def test_thresholds_never_look_at_test_data(evaluated, monkeypatch):
    from postergenre.report import evaluation, predictions
    from postergenre.report.predictions import scores_of_splits

    plain = scores_of_splits

    def turned_round(*given):
        valid, test = plain(*given)
        return [valid, dataclasses.replace(test, targets=1 - test.targets)]

    for rule in ("f1", "precision"):
        monkeypatch.setattr(evaluation, "scores_of_splits", plain)
        before = evaluation.evaluate_run(asked(split="test", threshold_rule=rule, overwrite=True))
        monkeypatch.setattr(evaluation, "scores_of_splits", turned_round)
        after = evaluation.evaluate_run(asked(split="test", threshold_rule=rule, overwrite=True))
        assert np.array_equal(before.thresholds.values, after.thresholds.values)
        assert before.metrics.loc["macro_f1", "value"] != after.metrics.loc["macro_f1", "value"]  # they did turn round
    with pytest.raises(ValueError, match="these are test posters"):
        predictions.choose_thresholds(evaluated.shown, evaluated.run.genres)


def test_a_wanted_precision_is_reached_or_a_sentence_says_that_it_is_not(evaluated):
    from postergenre.report.predictions import choose_thresholds

    valid, genres = evaluated.valid, evaluated.run.genres
    counted = evaluable_genres(valid.targets, 3)
    for wanted in (0.2, 0.3, 0.5, 0.9):
        found = choose_thresholds(valid, genres, "precision", wanted, 3)
        hits, predicted, _ = count_labels(valid.targets, predict_labels(valid.scores, found.values))
        for genre, kept, yes, right in zip(genres, counted, predicted, hits, strict=True):
            never = any(genre in note for note in found.notes if "no threshold reaches" in note)
            assert not kept or never or right >= wanted * yes > 0, (genre, wanted)
            assert not never or yes == 0


def test_a_precision_that_is_just_reached_is_reached():
    from postergenre.report.predictions import Predictions, choose_thresholds

    assert 0.55 * 100 > 55  # in floating point
    targets = np.array([[1]] * 5 + [[0]] * 45 + [[1]] * 50 + [[0]] * 20, dtype=np.uint8)
    scores = np.r_[np.full(100, 0.8), np.full(20, 0.1)][:, None]
    valid = Predictions("valid", [str(n) for n in range(120)], [""] * 120, targets, scores, "made up")
    found = choose_thresholds(valid, ["Drama"], "precision", 0.55)
    assert 0.1 < found.values[0] < 0.8 and not found.notes


@pytest.mark.parametrize("file", ["model.ts", "model.onnx"])
def test_an_export_is_evaluated_as_the_checkpoint_it_was_made_from(evaluated, trained, monkeypatch, file):
    from postergenre.export.job import export_run
    from postergenre.predict import scorer
    from postergenre.report import documents
    from postergenre.report.evaluation import replaced_evaluation
    from postergenre.report.predictions import open_finished, scores_of_split

    export = export_run(trained).folder / file
    run = open_finished("tiny", file)
    monkeypatch.setattr(scorer, "MANY", 1)  # compiled
    found = scores_of_split(run, "test")
    assert found.origin == run.scored == file and evaluated.run.scored == run.weights.name
    assert np.abs(found.scores - evaluated.shown.scores).max() < 1e-4 and found.scores.std() > 0
    documents.write_evaluation(evaluated)
    assert replaced_evaluation(run, "test", evaluated.thresholds.rule).startswith(run.weights.name)

    content = run.weights.read_bytes()
    try:
        run.weights.write_bytes(content + b" ")
        with pytest.raises(ConfigError, match=f"{file} was made from another {run.weights.name}"):
            open_finished("tiny", file)
    finally:
        run.weights.write_bytes(content)
    export.rename(export.with_suffix(".away"))
    with pytest.raises(ConfigError, match=f"`weights`: runs/tiny has no {file}. Export it first"):
        open_finished("tiny", file)


def test_thresholds_of_weights_that_were_replaced_are_refused(evaluated, tmp_path):
    from postergenre.report.predictions import save_thresholds

    weights = evaluated.run.weights
    kept = weights.read_bytes()
    try:
        weights.write_bytes(kept + b"trained anew")
        with pytest.raises(ConfigError, match="has changed since it was scored"):
            save_thresholds(evaluated.run, evaluated.thresholds)
    finally:
        weights.write_bytes(kept)
    assert not (evaluated.run.folder / "thresholds.json").exists()


def test_thresholds_that_cannot_be_read_are_replaced(evaluated):
    from postergenre.report.predictions import save_thresholds

    file = evaluated.run.folder / "thresholds.json"
    file.write_text("{")
    try:
        assert "replace thresholds chosen by: unknown, because the file could not be read" in save_thresholds(
            evaluated.run, evaluated.thresholds
        )
        assert "thresholds" in file.read_text()
    finally:
        file.unlink()


def test_only_data_that_stop_at_three_genres_are_said_to(evaluated):
    from postergenre.report.documents import model_card
    from postergenre.report.figures import stops_at_most

    run = evaluated.run
    assert stops_at_most(run) and "have at most three genres" in model_card(evaluated)
    train = run.data.train.copy()
    train.loc[train.index[0], run.genres] = 1  # one poster with all of them, in another split than is shown
    more = dataclasses.replace(run, data=dataclasses.replace(run.data, train=train))
    assert not stops_at_most(more)
    assert "have at most three genres" not in model_card(dataclasses.replace(evaluated, run=more))


def test_the_next_export_carries_the_thresholds(trained, evaluated):
    from postergenre.export.files import read_notes
    from postergenre.export.job import export_run
    from postergenre.predict.scorer import load_predictor
    from postergenre.report.documents import model_card, report_html
    from postergenre.report.evaluation import evaluate_run
    from postergenre.report.predictions import Thresholds, save_thresholds

    first = export_run(trained)
    values = np.round(np.linspace(0.1, 0.8, len(evaluated.run.genres)), 3)
    words = save_thresholds(evaluated.run, Thresholds(values, "moved by hand"))
    assert "hold other thresholds: run nbs/to_torchscript.ipynb again" in words
    with pytest.raises(ConfigError, match="with the thresholds of now"):
        export_run(trained.model_copy(update={"export_weights": "best"}))
    second = export_run(trained)
    for name in ("model.ts", "model.pt2", "model.onnx"):
        notes = read_notes(second.folder / name)
        assert list(notes["thresholds"].values()) == values.tolist() and notes["genres"] == evaluated.run.genres
        assert notes["postergenre"]["thresholds_are"] == "moved by hand"
    assert first.summary["thresholds"] != second.summary["thresholds"]
    assert np.array_equal(evaluate_run(asked(threshold_rule="stored", overwrite=True)).thresholds.values, values)
    assert "hold other" not in save_thresholds(evaluated.run, Thresholds(values, "moved by hand"))
    assert load_predictor(evaluated.run.weights).thresholds.tolist() == evaluated.run.meta["thresholds"]  # as trained
    assert not any("model.ts" in note for note in evaluate_run(asked(threshold_rule="stored", overwrite=True)).notes)
    tuned = evaluate_run(asked(overwrite=True))
    for text in (model_card(tuned), report_html(tuned)):
        assert f"model.ts has other thresholds than those shown here for {len(values)} of {len(values)} genres" in text
        assert "it has: moved by hand" in text and "run nbs/to_torchscript.ipynb again" in text
    (second.folder / "thresholds.json").unlink()


def test_what_is_written_stands_alone_and_is_escaped(evaluated):
    from postergenre.report.documents import write_evaluation

    paths = write_evaluation(evaluated)
    texts = {path.name: path.read_text(encoding="utf-8") for path in paths}
    assert SCRIPT in evaluated.run.genres
    for name in ("report.html", "MODEL_CARD.md"):
        assert "<script" not in texts[name] and "&lt;script&gt;alert(1)&lt;/script&gt;" in texts[name], name
        assert evaluated.run.params.root_path not in texts[name]
    report = texts["report.html"]
    assert "src=" in report and report.count("src=") == report.count('src="data:image/')
    assert not any(word in report.lower() for word in ("http:", "https:", "<link", "@import", "url("))
    facts = json.loads(texts["evaluation.json"])
    assert facts["split"] == "test" and facts["posters"] == len(evaluated.shown.ids)
    assert {"value", "floor", "low", "high"} <= set(facts["metrics"]["macro_ap"])
    assert set(facts["thresholds"]["values"]) == set(evaluated.run.genres)
    assert facts["thresholds"]["tuned_on"] == "valid"
    assert facts["data_hash"] == evaluated.run.data.data_hash and len(facts["weights"]["sha256"]) == 64


def test_an_evaluation_of_something_else_is_kept_unless_asked(evaluated):
    from postergenre.report.documents import write_evaluation, write_or_keep
    from postergenre.report.evaluation import evaluate_run

    before = {path: path.read_bytes() for path in write_evaluation(evaluated, overwrite=True)}  # of test posters
    with pytest.raises(ConfigError, match=r"model\.best\.pth on \d+ test posters.*`overwrite: true`"):
        evaluate_run(asked(split="valid", write_thresholds=True))
    assert not (evaluated.run.folder / "thresholds.json").exists()
    on_valid = evaluate_run(asked(split="valid", overwrite=True))
    other_rule = dataclasses.replace(
        evaluated, thresholds=dataclasses.replace(evaluated.thresholds, rule="moved by hand")
    )
    for other in (on_valid, other_rule):
        with pytest.raises(ConfigError, match=r"MODEL_CARD\.md and report\.html were kept"):
            write_evaluation(other)
        with pytest.raises(ConfigError, match="were kept"):
            write_or_keep(other)  # nobody would read a sentence
    assert all(path.read_bytes() == content for path, content in before.items())
    file = evaluated.run.folder / "evaluation.json"
    file.write_text(file.read_text().replace(evaluated.run.sha256, "0" * 64))
    with pytest.raises(ConfigError, match=r"model\.best\.pth as it was then on .* were kept"):
        write_evaluation(evaluated)
    write_or_keep(on_valid, overwrite=True)
    assert json.loads((evaluated.run.folder / "evaluation.json").read_text())["split"] == "valid"
    write_evaluation(evaluated, overwrite=True)


def test_the_job_refuses_and_the_page_keeps(evaluated):
    "The notebook's last cell as papermill runs it, in a kernel that can ask nobody, and as JupyterLab does."
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    from postergenre.report.documents import write_evaluation

    before = {path: path.read_bytes() for path in write_evaluation(evaluated, overwrite=True)}
    source = (
        "from postergenre.params import EvaluateParams\n"
        "from postergenre.report.documents import write_or_keep\n"
        "from postergenre.report.evaluation import evaluate_run\n"
        "params = EvaluateParams(experiment_name='tiny', n_cam=0, n_mistakes=0)\n"
        "print(write_or_keep(evaluate_run(params)))"
    )

    class Lab(NotebookClient):
        "A client through which somebody can be asked."

        async def async_start_new_kernel_client(self):
            client = await super().async_start_new_kernel_client()
            client.allow_stdin = True
            return client

    with pytest.raises(CellExecutionError, match="to replace them"):
        NotebookClient(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])).execute()
    shown = Lab(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])).execute()
    assert "None of the three files was written" in shown.cells[0].outputs[-1]["text"]
    assert all(path.read_bytes() == content for path, content in before.items())


def test_a_job_without_a_run_names_the_newest_ones_and_trains_nothing(papermill, chain):
    before = sorted(path.name for path in chain.iterdir())
    done = papermill("evaluate", "unnamed")
    assert done.returncode != 0 and "`experiment_name`: not given" in done.stderr
    assert "Newest finished runs: " in done.stderr
    assert sorted({path.name for path in chain.iterdir()} - set(before)) in (
        ["unnamed.ipynb"],
        ["unnamed.failed.ipynb"],
    )


def test_a_page_opens_where_no_run_exists(tmp_path, monkeypatch):
    import nbformat
    from execnb.shell import CaptureShell

    monkeypatch.setenv("RUNS_PATH", str(tmp_path))
    for page in ("evaluate", "try_it"):
        shell = CaptureShell()
        for cell in nbformat.read(ROOT / "nbs" / f"{page}.ipynb", 4).cells:
            if cell.cell_type == "code":
                shell.run(cell.source)
        assert not shell.exc, shell.exc
    assert not list(tmp_path.iterdir())  # nothing is trained unasked


def test_an_empty_map_is_explained_in_the_report(evaluated):
    import torch

    from postergenre.report.documents import report_html
    from postergenre.report.evaluation import add_steps, cam_steps

    weights = evaluated.run.model.head.linear.weight
    kept = weights.detach().clone()
    with torch.no_grad():
        weights.zero_()
    try:
        steps = cam_steps(evaluated, asked(n_cam=1, cam_ids=[evaluated.shown.ids[0]]))
        explained = add_steps(dataclasses.replace(evaluated, pictures={}, notes=[]), steps)
    finally:
        with torch.no_grad():
            weights.copy_(kept)
    assert f"Grad-CAM of poster {evaluated.shown.ids[0]} is empty. The score of" in explained.notes[0]
    assert "does not depend on what is seen in this poster" in report_html(explained)


def test_a_run_that_cannot_be_evaluated_is_told_so(evaluated):
    from filelock import FileLock

    from postergenre.report.evaluation import evaluate_run
    from postergenre.train.runs import lock_file

    folder = evaluated.run.folder
    half = folder.with_name("half")
    shutil.copytree(folder, half, ignore=shutil.ignore_patterns("summary.json", "run.json", "checkpoints"))
    with pytest.raises(ConfigError, match="runs/half is not finished. Resume it"):
        evaluate_run(asked(experiment_name="half"))
    with FileLock(lock_file(half)), pytest.raises(ConfigError, match="runs/half is being trained"):
        evaluate_run(asked(experiment_name="half"))
    shutil.copy(folder / "summary.json", half)
    weights = half / "model.best.pth"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ConfigError, match="cannot be read as a checkpoint"):
        evaluate_run(asked(experiment_name="half"))
    with pytest.raises(ConfigError, match="runs/nowhere does not exist"):
        evaluate_run(asked(experiment_name="nowhere"))
    with pytest.raises(ConfigError, match="is not a valid poster"):
        evaluate_run(asked(cam_ids=["nobody"], n_cam=1, overwrite=True))
