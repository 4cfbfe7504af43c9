"""The notebooks in a real JupyterLab and a real browser: they run, and the keyboard moves their panels.

Keeps pictures of every notebook in `artefacts/`, at two widths and in both themes.
"""

import importlib.util
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from lab import THEMES, browsing, chromium, opened, run_all, serving, set_theme, unrolled

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
ARTEFACTS = ROOT / "artefacts"
WIDTHS = (1280, 800)
MISSING = [name for name in ("playwright", "jupyterlab") if importlib.util.find_spec(name) is None]
MISSING += [] if chromium() else ["chromium (apt-get install chromium)"]

ASKED_FOR = bool(os.environ.get("TANDEM_EDU_BROWSER"))
"""Then a browser that is missing is a failure."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING) and not ASKED_FOR, reason=f"a browser test needs {', '.join(MISSING)}"),
]


@pytest.fixture(scope="module")
def browser():
    with browsing() as browser:
        yield browser


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with serving(NOTEBOOKS, tmp_path_factory.mktemp("lab")) as address:
        yield address


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_runs_and_its_panels_follow_the_keyboard(browser, address, notebook):
    with opened(browser, address, notebook.name) as page:
        outputs = run_all(page)
        assert not [output for output in outputs if output["output_type"] == "error"]
        assert page.get_by_text("Error displaying widget").count() == 0
        panels = page.locator(".jp-OutputArea-output .widget-vbox:has(.widget-html)")
        for panel in panels.all():
            check_sliders(panel)
            check_buttons(panel)
        assert panels.count() or page.locator(".widget-html img").count()  # the dashboard has no controls
        take_pictures(page, notebook.stem)


def check_sliders(panel) -> None:
    """Each slider, one step with an arrow key: another picture and another alternative text."""
    for slider in panel.get_by_role("slider").all():
        low, now, high = (slider.get_attribute(f"aria-value{which}") for which in ("min", "now", "max"))
        if low == high:  # there is but one layer to choose
            continue
        before = pictures(panel)
        press_and_wait(panel, slider, "ArrowLeft" if now == high else "ArrowRight", words)
        assert pictures(panel) != before or not before, "other words, and the same picture"


def check_buttons(panel) -> None:
    """In each row of buttons, one that is not pressed yet: something else is shown."""
    for row in panel.locator(".widget-toggle-buttons:has(button:not(.mod-active))").all():
        everything = lambda panel: panel.locator(".widget-html").inner_html()
        press_and_wait(panel, row.locator("button:not(.mod-active)").first, "Space", everything)


def press_and_wait(panel, control, key: str, read: Callable, seconds: float = 5) -> None:
    """Press a key on a control, and wait until `read` of the panel gives something else."""
    before, end = read(panel), time.monotonic() + seconds
    control.focus()
    control.press(key)
    while read(panel) == before:
        assert time.monotonic() < end, f"{key} was pressed, and nothing changed"
        panel.page.wait_for_timeout(50)


def pictures(panel) -> list[str]:
    """The images of a panel."""
    return panel.locator(".widget-html img").evaluate_all("all => all.map(image => image.src)")


def words(panel) -> list[str]:
    """What a panel says to those who cannot see its pictures or colours."""
    labelled = panel.locator(".widget-html").locator("img, [aria-label]")
    return labelled.evaluate_all("all => all.map(one => one.alt ?? one.ariaLabel)")


def take_pictures(page, name: str) -> None:
    """The whole notebook, at each width and in each theme."""
    ARTEFACTS.mkdir(exist_ok=True)
    for width in WIDTHS:
        for theme in THEMES:
            set_theme(page, theme)
            unrolled(page, width)
            page.screenshot(path=ARTEFACTS / f"{name}-{width}-{theme}.png")
