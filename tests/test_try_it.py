"""The page for a poster of one's own: what it keeps to itself, and what it refuses."""

import io
import json
import os
import sys

import pytest
from conftest import ROOT
from PIL import Image

WATCHED: dict[str, list | None] = {"writes": None}  # a list of paths while somebody looks


def note_writes(event: str, arguments: tuple) -> None:
    "An audit hook of Python, which sees every file that is opened."
    if event == "open" and WATCHED["writes"] is not None:
        path, mode, flags = arguments
        if (isinstance(mode, str) and set(mode) & set("wax+")) or (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            WATCHED["writes"].append(path)


@pytest.fixture(scope="module")
def page(chain):
    from postergenre.pages.try_it import TryPage, load_judge
    from postergenre.predict.sources import pictures_in

    examples = pictures_in(next(chain.glob("demo_posters_*")) / "Images")
    return TryPage(load_judge(chain / "full" / "model.ts"), examples[:3])


def upload(page, name: str, content: bytes) -> str:
    page.zone.take(page.zone, {"name": name, "size": len(content)}, [memoryview(content)])
    return page.panel.message.value


def test_an_upload_is_written_nowhere(page):
    content = next(path for _, path in page.example.options if path).read_bytes()
    upload(page, "warm.jpg", content)  # libraries may write caches of their own the first time
    sys.addaudithook(note_writes)
    WATCHED["writes"] = []
    with open(os.devnull, "w"):
        assert WATCHED["writes"] == [os.devnull]  # it does see them
    WATCHED["writes"] = []
    try:
        said = upload(page, "mine.jpg", content), upload(page, "rubbish.jpg", b"no picture")
    finally:
        writes, WATCHED["writes"] = WATCHED["writes"], None
    assert "enre" in said[0] and "not a picture" in said[1] and writes == []
    assert not any(
        isinstance(value, bytes | memoryview) for judged in page.uploads.results for value in vars(judged).values()
    )


def test_the_scores_are_those_of_the_predict_job(page, chain):
    import numpy as np

    from postergenre.predict.scorer import load_predictor, score_pictures

    path = page.example.options[1][1]
    predictor = load_predictor(chain / "full" / "model.ts")
    scores, _ = score_pictures(predictor, [path], num_workers=0)
    with Image.open(path) as picture:
        assert np.abs(page.judge.scores(picture.convert("RGB")) - scores[0]).max() < 1e-5
    assert page.judge.eager is not None, page.judge.reason


def test_a_transformer_gives_a_map_and_a_network_without_one_a_sentence(page):
    from dataclasses import replace

    from torch import nn

    from postergenre.model.classifier import create_model
    from postergenre.pages.try_it import TryPage

    def shown(eager):
        return TryPage(replace(page.judge, eager=eager), [page.example.options[1][1]]).panel

    transformer = create_model("test_vit", len(page.judge.predictor.genres), page.judge.predictor.img_size, False)
    weight = transformer.head.linear.weight
    words, evidence = [], nn.init.normal_(weight.detach().clone())
    for sign in (1, -1):  # evidence for a genre with one sign is evidence against it with the other
        weight.data = sign * evidence
        seen = shown(transformer)
        words.append(seen.where.words.value)
        assert seen.where.image.value
    assert any("Yellow is where" in said for said in words)
    transformer.backbone.num_features = -1  # no layer has so many channels
    seen = shown(transformer)
    assert not seen.where.image.value and "VisionTransformer has none for images of" in seen.where.words.value
    assert "<tr data-genre" in seen.table.value


def test_a_large_upload_is_told_and_reaches_the_kernel():
    served = json.loads((ROOT / "voila.json").read_text(encoding="utf-8"))
    room = served["Voila"]["tornado_settings"]["websocket_max_message_size"]
    from postergenre.params import TryParams

    assert room >= 5 * 1e6 * TryParams().largest_upload  # larger ones are refused in words, not by a lost connection
    assert f'"websocket_max_message_size": {room}' in (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
def test_a_picture_that_would_fill_the_memory_is_refused_at_once(page):
    import time

    buffer = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(buffer, "PNG")
    started = time.perf_counter()
    assert "has 100,000,000 pixels; the limit is 80,000,000" in upload(page, "huge.png", buffer.getvalue())
    assert time.perf_counter() - started < 5  # decoding it takes longer


def test_a_picture_that_cannot_be_scored_is_told(page, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("out of memory on the device\nand a long trace")

    monkeypatch.setattr(type(page.judge), "scores", fail)
    content = next(path for _, path in page.example.options if path).read_bytes()
    assert "out of memory on the device" in (said := upload(page, "mine.jpg", content))
    assert "long trace" not in said and page.panel.result.layout.display == "none"


def test_an_old_export_beside_new_weights_gets_no_map(chain, tmp_path):
    import shutil

    from postergenre.pages.try_it import load_judge

    shutil.copy(chain / "full" / "model.ts", tmp_path)
    weights = json.loads((chain / "full" / "export.json").read_text())["made_from"]["weights"]
    shutil.copy(chain / "full" / weights, tmp_path)
    assert load_judge(tmp_path / "model.ts").eager is not None
    with (tmp_path / weights).open("ab") as file:
        file.write(b"\0")
    judge = load_judge(tmp_path / "model.ts")
    assert judge.eager is None and "Export the run again" in judge.reason
