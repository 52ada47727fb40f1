"""What tests in a browser share: servers on the loopback address, parameters of a page, and JupyterLab's menus."""

import json
import re
import socket
import subprocess
import time
from pathlib import Path
from typing import Any


def free_port() -> int:
    "A port of the loopback address that nobody listens on."
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def wait_for_server(port: int, server: subprocess.Popen, seconds: float = 60) -> None:
    "Returns once somebody listens on the port; a request would make voila run a notebook."
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert server.poll() is None, f"the server of port {port} ended with {server.returncode}"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        except OSError:
            time.sleep(0.3)
    raise AssertionError(f"nobody listened on port {port} within {seconds} s")


def set_parameters(notebook: Path, **values: Any) -> None:
    "Gives a notebook other parameters, as papermill does: in a cell below the one tagged `parameters`."
    content = json.loads(notebook.read_text(encoding="utf-8"))
    cells = [cell for cell in content["cells"] if cell["id"] != "injected"]
    place = next(n for n, cell in enumerate(cells) if "parameters" in cell["metadata"].get("tags", []))
    source = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    given = {"cell_type": "code", "id": "injected", "execution_count": None, "metadata": {}, "outputs": []}
    cells.insert(place + 1, {**given, "source": source})
    notebook.write_text(json.dumps({**content, "cells": cells}), encoding="utf-8")


def run_all(page, address: str, notebook: str) -> None:
    "Opens a notebook of nbs/ in JupyterLab and has all its cells run; returns at once, so wait for what they show."
    from playwright.sync_api import TimeoutError as NotYet

    page.goto(f"{address}/lab/tree/nbs/{notebook}?reset", wait_until="domcontentloaded")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=90_000)
    page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', timeout=90_000)
    for _ in range(240):  # it says idle before it has a kernel, and would then run nothing, or ask which is meant
        sessions = page.request.get(f"{address}/api/sessions").json()
        if any(s["path"].endswith(notebook) and s["kernel"] and s["kernel"]["connections"] for s in sessions):
            break
        page.wait_for_timeout(250)
    numbered = page.locator(".jp-CodeCell .jp-InputPrompt").filter(has_text=re.compile(r"\[\d+\]"))
    begun = numbered.or_(page.locator(".jp-CodeCell .jp-OutputArea-child")).first  # no number where code is collapsed
    for _ in range(6):
        try:
            select = page.locator(".jp-Dialog").get_by_role("button", name="Select", exact=True)
            if select.is_visible():
                select.click()
            page.get_by_role("menuitem", name="Run", exact=True).click(timeout=5_000)
            page.get_by_text("Run All Cells", exact=True).click(timeout=5_000)
            begun.wait_for(timeout=15_000)
            return
        except NotYet:
            continue
    raise AssertionError(f"{notebook} was not run")
