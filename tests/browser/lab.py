"""A JupyterLab server of its own, and a browser at work in it, for the tests and for the README's picture.

The server has a folder of its own for everything it would else keep in the user's home. It puts its
application object on the page (`window.jupyterapp`), which is how cells are run and themes changed;
what a reader does by hand, moving a panel's controls, is done with the keyboard.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# Every cell is on the page, seen or not, and nobody asks about news.
SETTINGS = {
    "notebook-extension/tracker": '{"windowingMode": "none"}',
    "apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false}',
}


def chromium() -> str | None:
    """The browser's path, if there is one."""
    paths = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
    return next(filter(None, paths), None)


@contextmanager
def browsing() -> Iterator[Browser]:
    """A browser without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=QUIET)
        yield browser
        browser.close()


@contextmanager
def serving(notebooks: Sequence[Path], folder: Path) -> Iterator[str]:
    """A server on copies of `notebooks` in `folder`, which run in FAST mode; gives its address."""
    work = folder / "work"
    work.mkdir()
    for notebook in notebooks:
        shutil.copy(notebook, work)
    port, token = _free_port(), secrets.token_hex(16)
    options = [f"--port={port}", "--ServerApp.port_retries=0", "--expose-app-in-browser"]
    options += ["--ip=127.0.0.1", "--no-browser", "--allow-root", "--log-level=ERROR"]
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={work}", *options]
    with (folder / "lab.log").open("w") as log:
        server = subprocess.Popen(
            command, env=os.environ | _environment(folder, token), stdout=log, stderr=subprocess.STDOUT
        )
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_for(f"{address}/api?token={token}", server, log.name)
        yield f"{address}/doc/tree/{{name}}?token={token}&reset"
    finally:
        server.terminate()
        server.wait()


@contextmanager
def opened(browser: Browser, address: str, name: str, width: int = 1280, **options) -> Iterator[Page]:
    """The notebook `name` on a page, its kernel ready; the kernel goes when the page does."""
    page = browser.new_page(viewport={"width": width, "height": 900}, **options)
    page.goto(address.format(name=name))
    _wait_for_idle(page, 60)
    yield page
    page.evaluate("jupyterapp.serviceManager.sessions.shutdownAll()")
    page.close()


def run_all(page: Page, seconds: int = 600) -> list[dict]:
    """Run all cells, wait until the kernel is idle; gives the outputs as the file would hold them."""
    page.evaluate(
        """() => {
            window.ran = false;
            jupyterapp.commands.execute('notebook:run-all-cells').finally(() => { window.ran = true; });
        }"""
    )
    page.wait_for_function("window.ran", timeout=1000 * seconds)
    _wait_for_idle(page, seconds)
    cells = page.evaluate("jupyterapp.shell.currentWidget.content.model.toJSON().cells")
    return [output for cell in cells for output in cell.get("outputs", [])]


def set_theme(page: Page, theme: str) -> None:
    """Change JupyterLab's theme: a key of `THEMES`."""
    name = THEMES[theme]
    page.evaluate("theme => jupyterapp.commands.execute('apputils:change-theme', { theme })", name)
    page.wait_for_selector(f'body[data-jp-theme-name="{name}"]', state="attached")


def unrolled(page: Page, width: int) -> None:
    """Make the window so wide, and so high that the whole notebook is in it."""
    page.set_viewport_size({"width": width, "height": 900})
    page.wait_for_timeout(300)  # the text flows anew
    cells = page.locator(".jp-WindowedPanel-outer")
    height = cells.evaluate("cells => cells.scrollHeight")
    assert height < 16_000, f"a notebook of {height} pixels, more than a screenshot holds"
    page.set_viewport_size({"width": width, "height": height + 100})
    cells.evaluate("cells => cells.scrollTo(0, 0)")
    page.wait_for_timeout(300)


def _wait_for_idle(page: Page, seconds: int) -> None:
    idle = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
    page.wait_for_function(idle, timeout=1000 * seconds)


def _environment(folder: Path, token: str) -> dict[str, str]:
    """Environment variables that keep the server out of the user's own settings."""
    settings = folder / "settings"
    for name, text in SETTINGS.items():
        path = settings / f"@jupyterlab/{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return {
        "JUPYTER_TOKEN": token,
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(settings),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        "IPYTHONDIR": str(folder / "ipython"),
        "TANDEM_EDU_FAST": "1",
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_for(address: str, server: subprocess.Popen, log: str, seconds: int = 60) -> None:
    """Until the server answers."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if server.poll() is not None:
            raise RuntimeError(f"JupyterLab ended with {server.returncode} before it answered: see {log}")
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(f"JupyterLab did not answer within {seconds} s")
