"""The site builds without a warning, with every notebook and every public name in it."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tandem_edu

ROOT = Path(__file__).parents[1]
MISSING = [name for name in ("sphinx", "myst_nb", "furo") if importlib.util.find_spec(name) is None]
WHY = f"the site needs {', '.join(MISSING)}: pip install -e '.[site]'"

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(MISSING), reason=WHY)]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", folder / "trees"]
    subprocess.run([*command, ROOT / "docs", folder / "html"], check=True)
    return folder / "html"


def test_every_public_name_leads_to_its_description(site):
    page = (site / "api" / "index.html").read_text("utf-8")
    linked = re.findall(r'href="\w+\.html#tandem_edu\.[\w.]+"[^>]*><code[^>]*><span[^>]*>te\.(\w+)<', page)
    assert sorted(linked) == sorted(tandem_edu._MODULE_OF)


def test_every_notebook_is_there_with_its_pictures(site):
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        page = (site / "notebooks" / f"{notebook.stem}.html").read_text("utf-8")
        assert notebook.stem == "exercises" or "data:image/png" in page
        assert "Traceback" not in page


def test_the_results_page_shows_the_pictures_of_the_results(site):
    page = (site / "results.html").read_text("utf-8")
    shown = {Path(address).name for address in re.findall(r'<img[^>]* src="(_images/[^"]+)"', page)}
    drawn = {picture.name for picture in (ROOT / "results").glob("*.png")}
    assert drawn and drawn <= shown


def test_no_page_needs_a_network(site):
    """Scripts and styles are all the site's own (badges are pictures with an alternative text)."""
    needed = re.compile(r'<(?:script[^>]* src|link rel="stylesheet"[^>]* href)="([^"]+)"')
    addresses = {
        address for page in site.rglob("*.html") for address in needed.findall(page.read_text("utf-8"))
    }
    assert addresses and not [address for address in addresses if "//" in address]
