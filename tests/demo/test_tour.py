"""The tour as a user runs it: without a browser, and in a real one."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from realmframe.demo.headless import execute
from realmframe.demo.processes import devices
from realmframe.demo.run import tour_source
from tests.demo.conftest import APP_ID, FLIGHTS, find_chromium, jupyter_lab

pytestmark = [pytest.mark.process, pytest.mark.slow]


def _environment(url: str) -> dict[str, str]:
    return {"REALMFRAME_URL": url, "REALMFRAME_APP": APP_ID}


def test_headless(demo_url: str, demo_folder: Path, tmp_path: Path) -> None:
    """Every cell of the tour runs, shows real numbers, and sees what the devices change."""
    notebook = tmp_path / "tour.ipynb"
    shutil.copyfile(tour_source(), notebook)
    texts: list[str] = []
    with devices(demo_url, APP_ID, demo_folder / "headless", ("UA", "B6"), 5.0):
        result = execute(notebook, _environment(demo_url), emit=texts.append)
    shown = "\n".join(texts)
    assert result.error is None, shown
    assert f"{FLIGHTS:,} flights" in shown
    assert "3,322 planes" in shown
    assert result.changes_seen > 0


_READY = """() => {
    const context = window.jupyterapp?.shell.currentWidget?.sessionContext;
    const kernel = context?.session?.kernel;
    return context?.isReady && kernel?.connectionStatus === 'connected' && kernel?.status === 'idle';
}"""
_CELLS = "window.jupyterapp.shell.currentWidget.content.model.sharedModel.toJSON().cells"
_FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")


def _outputs(page: Any, until: str, seconds: float) -> str:
    """Wait until the outputs hold a text, or an error; give them all as one text."""
    ends = time.monotonic() + seconds
    outputs = ""
    while until not in outputs and "'error'" not in outputs and time.monotonic() < ends:
        time.sleep(0.5)
        outputs = str([cell.get("outputs") for cell in page.evaluate(_CELLS)])
    return outputs


@pytest.mark.browser
@pytest.mark.timeout(420)
def test_in_the_browser(demo_url: str, demo_folder: Path, tmp_path: Path) -> None:
    """JupyterLab in Chromium runs the tour to its last cell, with widgets on the page and no error."""
    chromium = find_chromium()
    from playwright.sync_api import sync_playwright

    shutil.copyfile(tour_source(), tmp_path / "tour.ipynb")
    with (
        devices(demo_url, APP_ID, demo_folder / "browser", ("UA",), 5.0),
        jupyter_lab(tmp_path, _environment(demo_url)) as lab,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium, args=list(_FLAGS))
        try:
            page = browser.new_page(viewport={"width": 1400, "height": 1000})
            page.goto(lab.replace("/lab?", "/lab/tree/tour.ipynb?"))
            page.wait_for_function(_READY, timeout=120_000)
            page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
            outputs = _outputs(page, "closed flights.realm", 150)
            page.screenshot(path=str(tmp_path / "tour.png"))
            assert "'error'" not in outputs
            assert "closed flights.realm" in outputs
            assert f"{FLIGHTS:,} flights" in outputs
            assert "application/vnd.jupyter.widget-view+json" in outputs
            # The widget manager really drew something: a live table is a widget, not only its data.
            assert page.locator(".jupyter-widgets").count() > 0
        finally:
            browser.close()
