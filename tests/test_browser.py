"""The interactive notebooks as people use them: JupyterLab in a headless browser."""

import re

from browsing import run_all, set_parameters
from ruamel.yaml import YAML


def test_the_range_picked_with_the_slider_is_in_the_params_file(page, lab, shots):
    address, folder = lab
    notebook, target = folder / "nbs" / "pick_lr.ipynb", folder / "params" / "head.yaml"
    set_parameters(notebook, experiment_name="lrf_head", params_file="params/head.yaml")
    before = target.read_text(encoding="utf-8")
    run_all(page, address, "pick_lr.ipynb")
    page.wait_for_selector(".noUi-handle", state="attached", timeout=120_000)
    handles = page.locator(".noUi-handle")
    assert handles.count() == 2
    handles.nth(1).focus()
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
        page.wait_for_timeout(1000)  # the kernel draws the curve anew
    shown = page.locator(".widget-readout").first.inner_text()
    page.get_by_role("button", name="Write range").click()
    page.get_by_text("saved to head.yaml").wait_for(timeout=20_000)
    page.screenshot(path=shots / "pick_lr.png")
    after = target.read_text(encoding="utf-8")
    low, high = re.fullmatch(r"(\d\.\de[-+]\d+)\D+(\d\.\de[-+]\d+)", shown).groups()
    written = YAML(typ="safe").load(after)
    assert f"{written['optimizer_kwargs']['lr']:.1e}" == low, (shown, after)
    assert f"{written['scheduler_kwargs']['max_lr']:.1e}" == high, (shown, after)
    changed = [line for line in after.splitlines() if line not in before.splitlines()]
    assert 1 <= len(changed) <= 2 and after.count("#") == before.count("#")  # comments are kept
