"""The words on posters: read once, fitted on training posters alone, and carried to the export and the pages."""

import json
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import QUICK, ROOT

from postergenre.config import make_params
from postergenre.errors import ConfigError
from postergenre.params import EvaluateParams, PredictParams

pytest.importorskip("rapidocr", reason="rapidocr is not installed (the optional extra text)")

VALUES = {**QUICK, "experiment_name": "told", "n_demo_posters": 120, "split_fractions": [0.5, 0.3, 0.2]}
HOSTILE = "<img onerror=x>"


class MadeUp:
    "Words that tell each poster's first genre, and a record of which posters were read."

    def __init__(self):
        self.genres, self.read = {}, []

    def learn(self, data):
        for frame in (data.train, data.valid, data.test):
            for path, row in zip(frame["path"], frame[data.genres].to_numpy(bool), strict=True):
                self.genres[path] = [genre for genre, yes in zip(data.genres, row, strict=True) if yes]

    def of(self, path):
        return f"THE {(self.genres[str(path)] or ['none'])[0].upper()}ISH {HOSTILE}"

    def read_posters(self, folder, paths, lost=None):
        self.read += [str(path) for path in paths]
        return [self.of(path) for path in paths]


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    "A run of a few steps whose posters have made-up words, evaluated and exported with them."
    from postergenre.export import job
    from postergenre.export.job import export_run
    from postergenre.report import predictions
    from postergenre.report.documents import write_evaluation
    from postergenre.report.evaluation import score_run
    from postergenre.train.training import train_run

    made_up = MadeUp()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNS_PATH", str(tmp_path_factory.mktemp("runs")))
        patch.delenv("ROOT_PATH", raising=False)
        train_run(make_params(VALUES))
        run = predictions.open_finished("told")
        made_up.learn(run.data)
        for module in (predictions, job):
            patch.setattr(module, "read_posters", made_up.read_posters)
        with pytest.raises(ConfigError, match=r"has no model\.words\.safetensors.*evaluate the run with `text: true`"):
            export_run(make_params({**VALUES, "text": True}))
        evaluated = score_run(asked())
        write_evaluation(evaluated)
        first = list(made_up.read)
        yield evaluated, export_run(make_params({**VALUES, "text": True})), made_up, first


def asked(**values):
    return EvaluateParams(experiment_name="told", n_cam=0, text=True, **values)


def test_the_model_of_words_sees_training_posters_and_validation_posters_only_for_its_weight(told, monkeypatch):
    from postergenre.report import predictions

    evaluated, _, made_up, first = told
    data = evaluated.run.data
    assert set(data.train["path"]) <= set(first) and not set(data.test["path"]) & set(first)
    fitted = []
    monkeypatch.setattr(predictions, "fit_words", lambda texts, *given: fitted.append(texts) or evaluated.run.words)
    (evaluated.run.folder / "model.words.safetensors").rename(evaluated.run.folder / "aside")
    plain = replace(evaluated.run, words=None)
    predictions.words_of_run(plain, predictions.scores_of_split(plain, "valid"))
    (evaluated.run.folder / "aside").replace(evaluated.run.folder / "model.words.safetensors")
    assert fitted == [[made_up.of(path) for path in data.train["path"]]]


def test_evaluation_reports_image_words_and_both(told):
    evaluated = told[0]
    facts = json.loads((evaluated.run.folder / "evaluation.json").read_text())
    assert facts["scored"] == "model.best.pth + words" and facts["text"]["weight"] == evaluated.run.words.weight > 0
    assert facts["text"]["both"] == pytest.approx(facts["metrics"]["macro_ap"]["value"], abs=1e-6)
    assert facts["text"]["both"] > facts["text"]["image"] and facts["text"]["comparison"]["low"] > 0
    assert evaluated.notes[0].startswith("The words on posters") and "helped" in evaluated.notes[0]
    report = (evaluated.run.folder / "report.html").read_text()
    assert "The words that speak most for each genre" in report and HOSTILE not in report


def test_an_evaluation_without_words_is_something_else(told):
    from postergenre.report.documents import write_evaluation
    from postergenre.report.evaluation import score_run

    plain = score_run(asked().model_copy(update={"text": False, "overwrite": True}))
    assert plain.judged is None and plain.shown.texts == [] and "words" not in plain.run.scored
    with pytest.raises(ConfigError, match=r"already holds an evaluation of something else \(model.best.pth \+ words"):
        write_evaluation(plain)


def test_thresholds_with_words_leave_those_of_the_image_alone(told):
    from postergenre.report.predictions import Thresholds, save_thresholds, stored_thresholds

    run, words = told[0].run, told[0].run.folder / "model.words.safetensors"
    before = words.read_bytes()
    saved = save_thresholds(run, Thresholds(np.full(len(run.genres), 0.25), "by hand"))
    assert "model.words.safetensors" in saved
    assert (
        stored_thresholds(run).values.tolist() == [0.25] * len(run.genres) and stored_thresholds(run).rule == "by hand"
    )
    assert not (run.folder / "thresholds.json").exists()
    words.write_bytes(before)


def test_every_exported_file_carries_the_words(told):
    from postergenre.predict.scorer import load_predictor

    evaluated, export, made_up, _ = told
    text = made_up.of(evaluated.shown.paths[0])
    for name in ("model.ts", "model.pt2", "model.onnx"):
        words = load_predictor(export.folder / name).words
        assert np.array_equal(words.evidence([text]), evaluated.run.words.evidence([text])), name
        assert words.weight == evaluated.run.words.weight
    assert export.summary["thresholds"] == dict(zip(words.genres, words.thresholds, strict=True))
    assert "words on posters count" in str(export) and "with the words on posters, differ" in str(export)
    assert set(export.table["scores"]) == {"image and words"}


def test_an_export_records_how_words_are_read_and_prediction_warns_if_it_reads_otherwise(told, monkeypatch):
    from postergenre.export.files import read_notes
    from postergenre.export.job import export_run
    from postergenre.predict.scorer import load_predictor
    from postergenre.text import reading

    export = told[1]
    recipe = {"rapidocr": reading.version("rapidocr"), **reading.READING}
    recorded = [read_notes(export.folder / f"model.{kind}")["words"]["reading"] for kind in ("ts", "pt2", "onnx")]
    assert all(note == export.summary["made_from"]["reading"] and note | recipe == note for note in recorded)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_predictor(export.folder / "model.ts")
    monkeypatch.setattr(reading, "version", lambda package: "0.1")
    with pytest.warns(UserWarning, match=rf"model\.ts was fitted.*rapidocr: {recipe['rapidocr']} then, 0\.1 now"):
        load_predictor(export.folder / "model.ts")
    with pytest.raises(ConfigError, match="words are read differently now.*Evaluate the run"):
        export_run(make_params({**VALUES, "text": True}))
    monkeypatch.undo()
    monkeypatch.setitem(reading.READING, "found_at", 800)
    with pytest.warns(UserWarning, match="found_at: 672 then, 800 now"):
        load_predictor(export.folder / "model.onnx")


def test_prediction_adds_the_words_that_it_reads(told, monkeypatch, tmp_path, capsys):
    from postergenre.predict import scorer
    from postergenre.predict.job import predict_folder

    evaluated, export, made_up, _ = told
    names = {}

    def decode(source):
        from postergenre.data.images import decode_poster

        picture = decode_poster(source)
        names[id(picture)] = (picture, str(source))
        return picture

    monkeypatch.setattr(scorer, "decode_poster", decode)
    monkeypatch.setattr(scorer, "read_text", lambda picture: made_up.of(names[id(picture)][1]))
    shown = evaluated.shown
    damaged = tmp_path / "damaged.jpg"
    damaged.write_bytes(b"no picture")
    pd.DataFrame({"path": [*shown.paths, *shown.paths, str(damaged)]}).to_csv(tmp_path / "list.csv", index=False)
    given = {"model": str(export.folder / "model.ts"), "images": str(tmp_path / "list.csv")}
    predict_folder(PredictParams(**given, output=str(tmp_path / "found.parquet")))
    assert "The words on each picture are read too" in capsys.readouterr().out
    table = pd.read_parquet(tmp_path / "found.parquet")
    assert len(list((tmp_path / "found.parquet").glob("*.parquet"))) == -(-len(table) // 32)  # seconds of reading each
    scores = table[evaluated.run.genres].iloc[:-1].astype(float).to_numpy()
    assert np.abs(scores - np.tile(shown.scores, (2, 1))).max() < 2e-3
    assert table["error"].iloc[-1] and table["error"].iloc[:-1].eq("").all()


def test_a_model_with_words_needs_the_extra(told, monkeypatch):
    from postergenre.predict.scorer import load_predictor

    monkeypatch.setitem(sys.modules, "rapidocr", None)
    with pytest.raises(ConfigError, match=r'pip install "postergenre\[text\]"'):
        load_predictor(told[1].folder / "model.ts")


def test_the_page_shows_the_words_as_text(told, monkeypatch):
    from postergenre.data.images import decode_poster
    from postergenre.pages import try_it

    evaluated, export, made_up, _ = told
    path = evaluated.shown.paths[0]
    monkeypatch.setattr(try_it, "read_text", lambda picture: made_up.of(path))
    judge = try_it.load_judge(export.folder / "model.ts")
    panel = try_it.ResultPanel(judge)
    judged = try_it.judge_picture(judge, "poster", lambda: decode_poster(path))
    panel.show(judged)
    assert np.abs(judged.scores - evaluated.shown.scores[0]).max() < 2e-3
    assert "Words on the poster: THE" in panel.table.value and HOSTILE not in panel.table.value
    assert "Words that speak for" in panel.table.value


def test_an_export_with_words_is_replaced_by_one_without_only_if_asked(told, tmp_path):
    from postergenre.export.job import export_run
    from postergenre.predict.scorer import load_predictor

    folder = told[1].folder
    shutil.copytree(folder, tmp_path / "kept")
    again = export_run(make_params({**VALUES, "text": True}))
    assert again.summary == told[1].summary
    with pytest.raises(ConfigError, match="without its words.*`overwrite: true`"):
        export_run(make_params(VALUES))
    assert load_predictor(folder / "model.onnx").words is not None
    plain = export_run(make_params({**VALUES, "overwrite": True}))
    with pytest.raises(ConfigError, match="with words.*`overwrite: true`"):
        export_run(make_params({**VALUES, "text": True}))
    assert load_predictor(folder / "model.onnx").words is None and "words" not in plain.summary["made_from"]
    for path in (tmp_path / "kept").glob("*.*"):
        if path.is_file():
            shutil.copy2(path, folder)


KILLED = """
import os, signal, sys
from pathlib import Path
from postergenre.text import reading
read = []
def read_text(picture):
    read.append(1)
    if len(read) == 9:
        os.kill(os.getpid(), signal.SIGKILL)
    return "word"
reading.read_text = read_text
reading.read_posters(Path(sys.argv[1]), sorted(Path(sys.argv[2]).glob("*")), threads=2)
"""


def test_reading_resumes_after_it_was_killed(drawn, tmp_path, monkeypatch):
    from postergenre.text import reading

    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path, drawn / "Images"], cwd=ROOT, check=False)
    assert done.returncode == -9
    stored = len(reading.text_file(tmp_path).read_text().splitlines())
    asked = []
    monkeypatch.setattr(reading, "read_text", lambda picture: asked.append(1) or "word")
    paths = sorted((drawn / "Images").glob("*"))
    assert reading.read_posters(tmp_path, paths) == ["word"] * len(paths)
    assert 0 <= stored < 9 and len(asked) == len(paths) - stored
    assert len(reading._stored_texts(reading.text_file(tmp_path))) == len(paths)


def test_names_are_told_from_other_words():
    from bench.study_text import split_names

    people, others = split_names("TOM HANKS\nThe Green Mile, by Tom\nMEG RYAN in", frozenset({"tom", "meg"}))
    assert people == "TOM HANKS MEG RYAN" and others.split() == ["The", "Green", "Mile", "by", "Tom", "in"]


def test_the_study_chooses_each_weight_on_the_other_split(told, monkeypatch):
    from bench import study_text

    evaluated, _, made_up, _ = told
    plain = replace(evaluated.run, words=None)
    monkeypatch.setattr(study_text, "open_finished", lambda name: plain)
    monkeypatch.setattr(study_text, "read_posters", made_up.read_posters)
    params = study_text.StudyTextParams(experiment_name="told", sizes=[30], repeats=2)
    study = study_text.read_study(params)
    asked = []

    def choose(targets, *given):
        asked.append(len(targets))
        return float(len(targets))

    monkeypatch.setattr(study_text, "choose_weight", choose)
    weights = study_text.judge(study, np.arange(len(study.train.texts)))["weights"]
    n_valid, n_test = (len(part.texts) for part in study.judged.values())
    assert weights == {"valid": n_test, "test": n_valid} and n_valid != n_test and asked == [n_valid, n_test]
    monkeypatch.undo()
    table = study_text.by_size(study, params)
    assert table["training posters"].tolist() == [30, 30, len(study.train.texts)]
    assert (table["gain"] > 0).all() and table["words alone"].iloc[-1] > table["image alone"].iloc[-1]
