"""The interactive notebooks as people use them: JupyterLab in a headless browser."""

import os
import re
import shutil
import socket
import subprocess
import time
import urllib.request

import pytest
from conftest import BIN, ROOT
from ruamel.yaml import YAML

CHROMIUM = shutil.which("chromium")
FLAGS = "no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-component-update"
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine (apt-get install chromium)")


@pytest.fixture(scope="module")
def page():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    flags = [f"--{flag}" for flag in [*FLAGS.split(), "disable-sync", "disable-dev-shm-usage"]]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=flags)
        yield browser.new_page(viewport={"width": 1280, "height": 800})
        browser.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory, chain, environment):
    "JupyterLab on a copy of the project; yields its address and the copy."
    folder = tmp_path_factory.mktemp("lab")
    for name in ("nbs", "params", "settings.ini"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        copy(ROOT / name, folder / name)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")
    own = {name: str(folder / f".{name}") for name in places}
    options = [f"--port={port}", "--ip=127.0.0.1", f"--ServerApp.root_dir={folder}", "--IdentityProvider.token="]
    options += ["--no-browser", "--allow-root", "--LabApp.news_url=None"]
    server = subprocess.Popen(
        [str(BIN / "jupyter"), "lab", *options],
        env={**os.environ, **environment, **own, "PATH": f"{BIN}:{os.environ['PATH']}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{address}/api/status", timeout=1)
                break
            except OSError:
                time.sleep(0.5)
        yield address, folder
    finally:
        server.terminate()
        server.wait(30)


def run_all(page, address: str, notebook: str) -> None:
    "Opens a notebook and runs all its cells."
    page.goto(f"{address}/lab/tree/nbs/{notebook}?reset", wait_until="domcontentloaded")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=90_000)
    page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', timeout=90_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()


def test_the_range_picked_with_the_slider_is_in_the_params_file(lab, page, tmp_path):
    address, folder = lab
    notebook, target = folder / "nbs" / "pick_lr.ipynb", folder / "params" / "head.yaml"
    text = notebook.read_text(encoding="utf-8").replace('\\"smoke_lr_find\\"', '\\"lrf_head\\"')
    text = text.replace("params_file: str = None", 'params_file: str = \\"params/head.yaml\\"')
    notebook.write_text(text, encoding="utf-8")
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
    page.screenshot(path=str(tmp_path / "pick_lr.png"))
    after = target.read_text(encoding="utf-8")
    low, high = re.fullmatch(r"(\d\.\de[-+]\d+)\D+(\d\.\de[-+]\d+)", shown).groups()
    written = YAML(typ="safe").load(after)
    assert f"{written['optimizer_kwargs']['lr']:.1e}" == low, (shown, after)
    assert f"{written['scheduler_kwargs']['max_lr']:.1e}" == high, (shown, after)
    changed = [line for line in after.splitlines() if line not in before.splitlines()]
    assert 1 <= len(changed) <= 2 and after.count("#") == before.count("#")  # comments are kept
