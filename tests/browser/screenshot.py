"""Take the README's picture: the cycle explorer at work in JupyterLab. `make screenshot`."""

import tempfile
from pathlib import Path

from lab import browsing, opened, run_all, serving

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "04_speculative_decoding.ipynb"
PICTURE = ROOT / "docs" / "panel.png"
PLAIN = ".jp-cell-toolbar, .jp-Collapser { visibility: hidden }"


def main() -> None:
    """Run the notebook, move the panel's controls, and keep what the cell shows."""
    with (
        tempfile.TemporaryDirectory() as folder,
        browsing() as browser,
        serving([NOTEBOOK], Path(folder)) as address,
        opened(browser, address, NOTEBOOK.name, width=960, device_scale_factor=1.5) as page,
    ):
        run_all(page)
        panel = page.locator(".jp-OutputArea-output .widget-vbox").first
        panel.get_by_role("button", name="verify").press("Space")
        while not shows_both_kinds(panel):
            panel.get_by_role("slider").press("ArrowRight")
            page.wait_for_timeout(500)
        page.locator(".jp-Cell:has(.widget-vbox)").first.screenshot(path=PICTURE, style=PLAIN)
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size / 1000:.0f} kB")


def shows_both_kinds(panel) -> bool:
    """Whether it shows a cycle with accepted and rejected drafts, as many cycles have."""
    count = lambda kind: panel.locator(f'span[title="{kind}"]').count()
    return count("accepted") >= 2 and count("rejected") >= 1


if __name__ == "__main__":
    main()
