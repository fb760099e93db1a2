"""The built site: every public name has an entry, and pages open in a browser, on a phone too.

Build it first: `sphinx-build -W -n -b html docs build/site`.
"""

import functools
import http.server
import importlib
import re
import shutil
import threading
import zlib
from pathlib import Path

import pytest

import lmjax

SITE = Path(__file__).parents[1] / "build/site"
PAGES = sorted(path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html"))
PAGES = [page for page in PAGES if not page.startswith(("_", "genindex", "py-modindex"))]
MODULES = [
    *("attribution", "data", "evaluation", "explanation", "masking", "masks", "metrics", "models"),
    *("removals", "studies", "training"),
]
PHONE = {"width": 390, "height": 844}

pytestmark = pytest.mark.skipif(not PAGES, reason="the site is not built")


def entries():
    """Names of the inventory that Sphinx writes."""
    packed = (SITE / "objects.inv").read_bytes().split(b"\n", 4)[4]
    return {line.split()[0] for line in zlib.decompress(packed).decode().splitlines()}


@pytest.mark.parametrize("module", ["lmjax", *(f"lmjax.{name}" for name in MODULES)])
def test_every_public_name_has_an_entry(module):
    there, found = entries(), importlib.import_module(module)
    for name in found.__all__:
        value = getattr(found, name)
        places = {f"{module}.{name}"}
        places |= {f"lmjax.{name}"} if getattr(lmjax, name, None) is value else set()
        places |= {getattr(value, "__name__", "")}  # of a module
        assert places & there, f"{module}.{name}"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address():
    handler = functools.partial(Quiet, directory=str(SITE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """An empty page of a phone, which keeps its errors."""
    page = browser.new_page(viewport=PHONE)
    page.errors = []
    page.on("console", lambda said: said.type == "error" and page.errors.append(said.text))
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    yield page
    page.close()


def test_pages_open_on_a_phone(page, address):
    """No error, no figure missing, nothing wider than the screen."""
    missing = "Array.from(document.images).filter(i => !i.naturalWidth).map(i => i.src)"
    for name in PAGES:
        page.goto(f"{address}/{name}")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        assert page.evaluate(missing) == [], name
        assert page.errors == [], name


def test_search_finds_a_function(page, address):
    page.goto(f"{address}/search.html?q=permutation_shapley")
    page.wait_for_selector("#search-results li a")
    found = page.locator("#search-results li").all_inner_texts()
    assert any("permutation_shapley" in text for text in found), found
    assert page.errors == []


def test_the_site_can_be_dark(browser, address):
    colours = {}
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)
        page.goto(address)
        colours[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.close()
    brightness = {
        scheme: sum(map(int, re.findall(r"\d+", rgb)[:3])) for scheme, rgb in colours.items()
    }
    assert brightness["dark"] < 150 < 600 < brightness["light"], colours
