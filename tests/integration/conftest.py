"""A browser that opens pages and hears whatever they say."""

import shutil

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="session")
def browser():
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is on the path")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        # Debian's binary in a container: no sandbox as root, no large /dev/shm.
        arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        launched = playwright.chromium.launch(executable_path=found, args=arguments)
        yield launched
        launched.close()


@pytest.fixture
def opened(browser):
    """Opens a page and holds it to silence: no error, no warning, no dialog, no request but for the file itself."""
    pages, heard = [], []

    def open_page(path, *, width=1400, scheme="light", **options):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
        page.on("console", lambda message: heard.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: heard.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (heard.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        own = path.as_uri()
        page.on("request", lambda r: None if r.url == own or r.url.startswith("data:") else heard.append(f"request: {r.url}"))
        page.goto(own)
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert heard == []
