"""The built site: every public name has an entry, and pages open in a browser, on a phone too.

Build it first: `sphinx-build -W -n -b html docs build/site`.
"""

import functools
import http.server
import importlib
import re
import threading
import zlib
from pathlib import Path

import pytest

import lmjax
from tests.support.browser import browser

SITE = Path(__file__).parents[1] / "build/site"
PAGES = sorted(path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html"))
PAGES = [page for page in PAGES if not page.startswith(("_", "genindex", "py-modindex"))]
MODULES = [
    *("attribution", "data", "evaluation", "explanation", "masking", "masks", "metrics", "models"),
    *("removals", "studies", "training"),
]
PHONE = (390, 844)

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


class Address(str):
    """An address in the place of the path of a file."""

    def as_uri(self):
        return str(self)


@pytest.fixture(scope="module")
def site():
    """The address of the site: search does not work in files."""
    handler = functools.partial(Quiet, directory=str(SITE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Address(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def test_pages_open_on_a_phone(page, site):
    """No error, no figure missing, nothing from elsewhere, nothing wider than the screen."""
    missing = "Array.from(document.images).filter(i => !i.naturalWidth).map(i => i.src)"
    for name in PAGES:
        page.open(Address(f"{site}/{name}"), size=PHONE)
        assert page.run("document.documentElement.scrollWidth <= innerWidth"), name
        assert page.run(missing) == [], name
        assert page.errors == [], name
        assert [each for each in page.requests if not each.startswith(site)] == [], name


def test_search_finds_a_function(page, site):
    page.open(Address(f"{site}/search.html?q=permutation_shapley"))
    page.wait("document.querySelector('#search-results li a')")
    assert "permutation_shapley" in page.text("#search-results")
    assert page.errors == []


def test_the_site_can_be_dark(page, site):
    colours = []
    for dark in (False, True):
        page.open(Address(f"{site}/index.html"), dark=dark)
        colours.append(page.run("getComputedStyle(document.body).backgroundColor"))
    light, dark = (sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in colours)
    assert dark < 150 < 600 < light, colours
