"""`pick_lr` as people use it: a range is moved with the slider, or dragged over the curve, and written to a file."""

import os
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from browsing import run_all, set_parameters
from ruamel.yaml import YAML

from postergenre.train.finder import smooth

READOUT = r"(\d\.\de[-+]\d+) to (\d\.\de[-+]\d+)"


@pytest.fixture(scope="module")
def picker(page, lab, shown):
    "The page with three range tests, one of them flat; yields the params file, and puts it back at the end."
    address, folder = lab
    rates = np.geomspace(1e-6, 0.5, 100)
    fall = 0.6 - 0.3 / (1 + np.exp(-3 * (np.log10(rates) + 3))) + 0.5 * np.clip(np.log10(rates) + 1.2, 0, None) ** 2
    for name, losses in (("lrf_slow", fall + 0.05), ("lrf_fall", fall), ("lrf_flat", 0 * rates + 0.5)):
        made = shutil.copytree(shown / "lrf_full", shown / name)  # the last is the newest, and without a suggestion
        noisy = losses + np.random.default_rng(0).normal(0, 0.01, 100) * (name != "lrf_flat")
        table = pd.DataFrame({"step": range(100), "lr": rates, "loss": noisy, "smoothed": smooth(noisy)})
        table.to_csv(made / "lr_find.csv", index=False)
        os.utime(made / "summary.json")
    target = folder / "params" / "head.yaml"
    before = target.read_bytes()
    set_parameters(
        folder / "nbs" / "pick_lr.ipynb",
        beside=["lrf_slow"],
        params_file="params/head.yaml",
    )
    run_all(page, address, "pick_lr.ipynb")
    page.wait_for_selector(".noUi-handle", state="attached", timeout=120_000)
    page.wait_for_selector(".jupyter-matplotlib-canvas-div canvas", timeout=30_000)
    page.wait_for_timeout(1000)  # the curve is drawn
    yield target
    target.write_bytes(before)
    for name in ("lrf_slow", "lrf_fall", "lrf_flat"):
        shutil.rmtree(shown / name)


def read_out(page) -> tuple[str, str]:
    "The range that the slider shows."
    return re.fullmatch(READOUT, page.locator(".pg-range").first.inner_text()).groups()


def settled(page, before: tuple[str, str]) -> tuple[str, str]:
    "The range that the slider shows once it is another than before, and has stood still; the same where it was there."
    seen = [before]
    for _ in range(40):
        page.wait_for_timeout(250)
        seen.append(read_out(page))
        if seen[-1] != before and seen[-4:] == seen[-1:] * 4:
            break
    return seen[-1]


def written(target) -> tuple[str, str]:
    "The range in the params file."
    content = YAML(typ="safe").load(target.read_text(encoding="utf-8"))
    return f"{content['optimizer_kwargs']['lr']:.1e}", f"{content['scheduler_kwargs']['max_lr']:.1e}"


def test_a_flat_curve_is_not_written_before_the_range_was_moved(page, picker, shots):
    choice, write = page.locator(".widget-dropdown select").first, page.get_by_role("button", name="Write range")
    assert choice.locator("option").first.inner_text().split()[0] == "lrf_flat"  # the newest
    assert page.get_by_text("No suggestion: the curve is flat").first.is_visible()
    assert write.is_disabled() and page.get_by_text("Move the range first.").is_visible()
    page.screenshot(path=shots / "pick_lr_flat.png")
    page.locator(".noUi-handle").nth(1).focus()
    page.keyboard.press("ArrowLeft")
    page.get_by_text("This would change in head.yaml").wait_for(timeout=20_000)
    assert write.is_enabled() and not page.get_by_text("Move the range first.").is_visible()


def test_the_range_picked_with_the_slider_is_in_the_params_file(page, picker, shots):
    options = page.locator(".widget-dropdown select").first.locator("option")
    names = [text.split()[0] for text in options.all_inner_texts()]
    page.locator(".widget-dropdown select").first.select_option(index=names.index("lrf_fall"))
    page.get_by_text("lrf_fall:", exact=True).wait_for(timeout=20_000)
    page.locator(".jupyter-matplotlib-canvas-div canvas").last.wait_for(timeout=20_000)
    page.wait_for_timeout(1000)  # the curve is drawn
    before = picker.read_text(encoding="utf-8")
    handles = page.locator(".noUi-handle")
    assert handles.count() == 2
    handles.nth(1).focus()
    shown = read_out(page)
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
        page.wait_for_timeout(300)
    shown = settled(page, shown)
    page.get_by_text("This would change in head.yaml").wait_for(timeout=20_000)
    assert picker.read_text(encoding="utf-8") == before
    page.get_by_role("button", name="Write range").click()
    page.get_by_text("saved to head.yaml").wait_for(timeout=20_000)
    assert written(picker) == shown
    after = picker.read_text(encoding="utf-8")
    changed = [line for line in after.splitlines() if line not in before.splitlines()]
    assert 1 <= len(changed) <= 2 and after.count("#") == before.count("#")  # comments are kept
    handles.nth(1).focus()
    page.keyboard.press("ArrowLeft")
    page.get_by_text(f"saved is {shown[0]} to {shown[1]}").wait_for(timeout=20_000)
    assert written(picker) == shown


def test_a_range_dragged_over_the_curve_is_in_the_params_file_and_can_be_taken_back(page, picker, shots, pictures):
    before = picker.read_bytes()
    canvas = page.locator(".jupyter-matplotlib-canvas-div canvas").last
    page.get_by_text("This would change in").scroll_into_view_if_needed()
    box = canvas.bounding_box()
    y, shown = box["y"] + 0.4 * box["height"], [read_out(page)]

    def drag(start: float, end: float) -> None:
        "Moves the mouse between shares of the canvas' width, button down, no faster than a hand."
        page.mouse.move(box["x"] + start * box["width"], y)
        page.mouse.down()
        for step in range(1, 7):
            page.mouse.move(box["x"] + (start + (end - start) * step / 6) * box["width"], y)
            page.wait_for_timeout(60)
        page.wait_for_timeout(200)
        page.mouse.up()
        shown.append(settled(page, shown[-1]))

    for number in (0, 1):  # out of the way, to the left rim
        page.locator(".noUi-handle").nth(number).focus()
        page.keyboard.press("Home")
    shown.append(settled(page, shown[-1]))
    drag(0.3, 0.4)  # beside it: a new span
    drag(0.35, 0.5)  # from within: moved as a whole
    new, moved = ([float(rate) for rate in pair] for pair in shown[-2:])
    assert new[0] < new[1] < moved[1] and new[0] < moved[0], shown
    assert abs(new[1] / new[0] / (moved[1] / moved[0]) - 1) < 0.3, shown  # as wide as it was
    page.screenshot(path=shots / "pick_lr_dragged.png")
    pictures("pick_lr", page.locator(".jp-NotebookPanel-notebook"))
    page.get_by_role("button", name="Write range").click()
    page.get_by_text("saved to head.yaml").wait_for(timeout=20_000)
    assert written(picker) == shown[-1] != shown[0]
    page.get_by_role("button", name="Undo").scroll_into_view_if_needed()
    page.screenshot(path=shots / "pick_lr_written.png")
    page.get_by_role("button", name="Write range").click()  # again
    page.get_by_text("it was there already").wait_for(timeout=20_000)
    for seen in ("saved to head.yaml", "What changed in head.yaml:"):
        box = page.get_by_text(seen).last.bounding_box()
        assert 0 < box["y"] < 770, (seen, box)  # on the screen, without scrolling
    page.get_by_role("button", name="Undo").click()
    page.get_by_text("head.yaml is as it was").wait_for(timeout=20_000)
    assert picker.read_bytes() == before
