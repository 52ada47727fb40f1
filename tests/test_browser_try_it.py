"""`try_it` as a visitor sees it: served by voila, and given posters and rubbish through the browser."""

import base64
import io
import math
import re
import time

import pytest
from browsing import set_parameters
from PIL import Image


@pytest.fixture(scope="module")
def visit(page, served, shown, copied):
    "The page of the fine-tuned run, opened: its address, what was asked of other machines, and the seconds it took."
    images = next(shown.glob("demo_posters_*")) / "Images"
    set_parameters(copied / "nbs" / "try_it.ipynb", model=str(shown / "full" / "model.ts"), examples=str(images))
    address = served("try_it.ipynb")
    asked, kept_back = set(), set()
    page.on("request", lambda request: asked.add(request.url))
    page.on("requestfailed", lambda request: kept_back.add(request.url) if request.failure == "csp" else None)
    started = time.monotonic()
    page.goto(address, timeout=90_000)
    page.get_by_role("button", name="Choose posters").wait_for(timeout=120_000)
    page.locator("tr[data-genre]").first.wait_for(timeout=30_000)
    seconds = time.monotonic() - started
    elsewhere = {url for url in asked - kept_back if not url.startswith((address, "data:", "blob:"))}
    return address, elsewhere, seconds


def give(page, *files) -> None:
    "Chooses files as a visitor does, through the button."
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose posters").click()
    chooser.value.set_files(*files)


def answer_to(page, name: str, words: str):
    "Waits until the page answers to a file, in these words."
    told = page.get_by_role("status").filter(has_text=name).filter(has_text=re.compile(words))
    told.wait_for(timeout=30_000)
    return told.inner_text()


def files_in(*folders) -> set:
    return {path for folder in folders for path in folder.rglob("*")}


def test_an_uploaded_poster_shows_its_genres_and_leaves_no_file(page, visit, shown, copied, shots, pictures):
    before = files_in(shown, copied)
    poster = sorted((next(shown.glob("demo_posters_*")) / "Images").iterdir())[7]
    give(page, {"name": "mine.jpg", "mimeType": "image/jpeg", "buffer": poster.read_bytes()})
    said = answer_to(page, "mine.jpg", "Genres: |No genre").splitlines()[-1]
    rows = page.locator("tr[data-genre]")
    scores = [float(rows.nth(n).locator("td").nth(3).inner_text()) for n in range(rows.count())]
    assert len(scores) >= 5 and scores == sorted(scores, reverse=True)
    marked = [rows.nth(n).get_attribute("data-genre") for n in range(rows.count()) if "✓" in rows.nth(n).inner_text()]
    assert said == (f"Genres: {', '.join(marked)}" if marked else "No genre reaches its threshold.")
    page.screenshot(path=shots / "try_it.png")
    pictures("try_it", page)
    genre = rows.nth(2).get_attribute("data-genre")
    page.locator("select").nth(1).select_option(genre)
    words = f"Yellow is where {genre} is seen|No part of this poster raises the score of {genre}"
    page.get_by_text(re.compile(words)).wait_for()
    assert files_in(shown, copied) == before


@pytest.mark.parametrize(
    "name, words", [("rubbish.jpg", "is empty or not a picture"), ("<img src=x onerror=x>.png", "not a picture")]
)
def test_rubbish_gets_a_sentence(page, visit, shots, name, words):
    give(page, {"name": name, "mimeType": "image/jpeg", "buffer": b"this is no picture"})
    assert answer_to(page, name, words).startswith(name)  # as text, not as an element
    assert page.locator("tr[data-genre]").first.is_hidden()
    page.screenshot(path=shots / "try_it_rubbish.png")


def test_pictures_of_every_kind_get_an_answer(page, visit, tmp_path):
    picture = Image.new("RGB", (1600, 2400), "teal")
    large, huge, moving = io.BytesIO(), io.BytesIO(), io.BytesIO()
    picture.save(large, "PNG", compress_level=0)
    Image.new("1", (10_000, 10_000)).save(huge, "PNG")
    picture.resize((200, 300)).save(moving, "GIF", save_all=True, append_images=[Image.new("RGB", (200, 300))] * 3)
    assert 10.5e6 < len(large.getvalue()) < 20e6  # more than a websocket takes unless it is told to
    for name, content, words in (
        ("large.png", large.getvalue(), "Genres: |No genre"),
        ("huge.png", huge.getvalue(), "has 10000 x 10000 pixels"),
        ("moving.gif", moving.getvalue(), "Genres: |No genre"),
        ("heavy.png", large.getvalue() + bytes(30_000_000), "MB; allowed are 20"),
    ):
        (tmp_path / name).write_bytes(content)
        give(page, tmp_path / name)
        started = time.perf_counter()
        answer_to(page, name, words)
        assert time.perf_counter() - started < 10, name


def test_a_file_far_too_large_gets_a_sentence_and_the_page_lives_on(page, visit, tmp_path, shown):
    with (tmp_path / "film.png").open("wb") as film:
        film.truncate(200_000_000)
    give(page, tmp_path / "film.png")
    answer_to(page, "film.png", r"has 200\.0 MB; allowed are 20")
    assert page.locator("tr[data-genre]").first.is_hidden()
    poster = sorted((next(shown.glob("demo_posters_*")) / "Images").iterdir())[3]
    give(page, {"name": "next.jpg", "mimeType": "image/jpeg", "buffer": poster.read_bytes()})
    answer_to(page, "next.jpg", "Genres: |No genre")


def test_the_page_shows_no_source_and_serves_no_file(page, visit):
    address, elsewhere, _ = visit
    assert not elsewhere
    assert "read_parameters" not in page.content() and "TryParams" not in page.content()
    for path in ("voila/files/pick_lr.ipynb", "voila/files/settings.ini", "voila/files/../voila.json"):
        assert page.request.get(f"{address}/{path}").status in (403, 404), path
    assert page.request.get(address, headers={"Host": "elsewhere.example"}).status == 403


def test_the_title_and_one_line_say_what_this_is(page, visit):
    assert page.title().strip() == "Movie genres of a poster"
    line = page.get_by_text("Model: full/model.ts").inner_text()
    assert re.search(
        r"trained on 1\d\d posters, macro AP 0\.\d{3} on test posters \(95 % interval .* baseline 0\.", line
    )


def dropped(page, poster, name: str):
    "A picture as the browser hands it over when it is dropped or pasted."
    made = """([content, name]) => {
        const transfer = new DataTransfer(), bytes = Uint8Array.from(atob(content), letter => letter.charCodeAt(0));
        transfer.items.add(new File([bytes], name, {type: "image/jpeg"}));
        return transfer;
    }"""
    return page.evaluate_handle(made, [base64.b64encode(poster.read_bytes()).decode(), name])


def test_posters_are_dropped_pasted_and_given_several_at_once(page, visit, shown, shots, tmp_path):
    posters = sorted((next(shown.glob("demo_posters_*")) / "Images").iterdir())[:6]
    page.dispatch_event(".pg-drop", "drop", {"dataTransfer": dropped(page, posters[0], "dropped.jpg")})
    answer_to(page, "dropped.jpg", "Genres: |No genre")
    transfer = dropped(page, posters[1], "pasted.jpg")
    page.evaluate(
        "data => document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data, bubbles: true}))", transfer
    )
    answer_to(page, "pasted.jpg", "Genres: |No genre")
    before = page.locator("[data-click]").count()
    give(page, posters[2:])
    answer_to(page, posters[-1].name, "Genres: |No genre")
    page.wait_for_function(f"document.querySelectorAll('[data-click]').length == {before + 4}")
    page.locator("[data-click]").filter(has_text="dropped.jpg").click()
    answer_to(page, "dropped.jpg", "Genres: |No genre")
    for width, height in ((1920, 1080), (1280, 800)):
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_timeout(500)
        page.screenshot(path=shots / f"try_it_several_{width}.png")
    with page.expect_download() as download:
        page.get_by_text("Download the results").click()
    download.value.save_as(tmp_path / "genres.csv")
    lines = (tmp_path / "genres.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("path,error,genres,") and any(line.startswith("dropped.jpg,,") for line in lines)


def test_a_later_visitor_finds_a_page_of_their_own_that_is_ready(browser, visit):
    "The server keeps a kernel that has run the page; each visitor gets one of their own."
    seconds, limit = [], max(5, visit[2] / 2)
    while len(seconds) < 9 and min(seconds, default=math.inf) > limit:
        time.sleep(5)  # until the next kernel is ready
        started, other = time.monotonic(), browser.new_page()
        other.goto(visit[0], timeout=90_000)
        other.locator("tr[data-genre]").first.wait_for(timeout=90_000)
        seconds.append(time.monotonic() - started)
        assert other.locator("[data-click]").count() == 0  # nothing of other visitors
        other.close()
    print(f"the first visitor waited {visit[2]:.1f} s, a later one {min(seconds):.1f} s")
    assert min(seconds) <= limit, seconds
