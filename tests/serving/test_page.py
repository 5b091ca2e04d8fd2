"""The page in a real browser: images, files that are not images, and nothing sent elsewhere."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reszoo.serving.server import Server

CHROMIUM = (
    os.environ.get("RESZOO_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM:
        pytest.skip("no Chromium (set RESZOO_CHROMIUM)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, server: Server) -> Iterator[Any]:
    context = browser.new_context()
    page = context.new_page()
    page.troubles, page.asked = [], []
    page.on(
        "console",
        lambda said: page.troubles.append(said.text) if said.type in ("error", "warning") else None,
    )
    page.on("pageerror", lambda error: page.troubles.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(f"{server.url}/")
    page.wait_for_selector("#about:not([hidden])")
    yield page
    assert all(url.startswith((server.url, "blob:", "data:")) for url in page.asked), page.asked
    context.close()


def send(page: Any, *files: tuple[str, bytes]) -> None:
    before = page.locator("#answers > li").count()
    page.set_input_files(
        "#files", [{"name": name, "mimeType": "image/png", "buffer": body} for name, body in files]
    )
    page.locator("#answers > li").nth(before + len(files) - 1).wait_for()
    page.get_by_text("classified.").wait_for()


def test_an_image_is_sent_and_answered(
    page: Any, server: Server, exported: Any, picture: bytes
) -> None:
    """Names of files and classes are text, never markup."""
    send(page, ("my photo's.png", picture), ("<img src=x onerror=alert(1)>.png", picture))
    answer = page.locator("#answers > li").filter(has_text="my photo's.png")
    labels = answer.locator(".label").all_inner_texts()
    assert len(labels) == 5 and set(labels) <= set(exported.class_names)
    shares = [float(one.strip("<> %")) for one in answer.locator(".share").all_inner_texts()]
    assert shares == sorted(shares, reverse=True) and 20 < sum(shares) <= 100.3
    assert answer.locator("img").evaluate("image => image.naturalWidth") == 30
    curl = page.locator("#curl").inner_text()
    assert f"{server.model_url}:predict" in curl and ".png'" in curl
    assert page.locator("#status").inner_text() == "2 images classified." and not page.troubles
    assert page.locator("#answers h2", has_text="<img src=x onerror=alert(1)>.png").count() == 1
    assert page.locator("#answers img[src=x]").count() == 0
    assert page.locator("b", has_text="猫").count() == 0
    assert "<b>猫</b>" in page.locator("#classes").text_content()


def test_files_that_are_not_images_are_explained_and_the_others_answered(
    page: Any, picture: bytes
) -> None:
    bomb = picture[:16] + b"\0\1\0\0" * 2 + picture[24:]
    send(
        page,
        ("a.png", picture),
        ("b.png", b"no picture"),
        ("c.png", b""),
        ("d.png", picture[:60]),
        ("e.png", bomb),
    )
    found = {
        item.locator("h2").inner_text(): item.locator(".bad").all_inner_texts()
        for item in page.locator("#answers > li").all()
    }
    undecodable = ["Could not be decoded: a JPEG or PNG is needed."]
    assert found == {
        "a.png": [], "b.png": undecodable, "c.png": undecodable, "d.png": undecodable,
        "e.png": ["Too large: it holds more pixels than the model will decode."],
    }  # fmt: skip
    assert page.locator("#status").inner_text() == "5 images classified." and not page.troubles


def test_a_file_that_no_request_could_hold_is_not_sent(page: Any) -> None:
    page.evaluate(
        """() => { const file = new File([new Uint8Array(50 * 2 ** 20)], "large.png"), all = new DataTransfer();
        all.items.add(file); document.getElementById("drop").dispatchEvent(
          new DragEvent("drop", { dataTransfer: all, bubbles: true, cancelable: true })); }"""
    )
    page.wait_for_selector("#answers .bad")
    assert page.locator("#answers .bad").inner_text() == "Not sent: a file may have 48 MiB at most."
    assert not any(url.endswith(":predict") for url in page.asked)


def test_an_image_dropped_anywhere_is_sent(page: Any, picture: bytes) -> None:
    page.evaluate(
        """bytes => { const all = new DataTransfer(); all.items.add(new File([new Uint8Array(bytes)], "dropped.png"));
        document.querySelector("footer").dispatchEvent(
          new DragEvent("drop", { dataTransfer: all, bubbles: true, cancelable: true })); }""",
        list(picture),
    )
    page.wait_for_selector("#answers .row")
    assert page.locator("#answers h2").inner_text() == "dropped.png"


def test_a_server_that_is_gone_is_explained(browser: Any, export: Path, picture: bytes) -> None:
    context = browser.new_context()
    page = context.new_page()
    with Server(export) as server:
        page.goto(f"{server.url}/")
        page.wait_for_selector("#about:not([hidden])")
    send(page, ("a.png", picture))
    assert (
        page.locator("#answers .bad").inner_text()
        == "No answer: does reszoo serve-check still run?"
    )
    context.close()


@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_window_in_either_scheme(
    browser: Any, server: Server, picture: bytes, width: int, scheme: str
) -> None:
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800})
    page = context.new_page()
    page.goto(f"{server.url}/")
    page.wait_for_selector("#about:not([hidden])")
    send(page, (f"{'long' * 40}.png", picture))
    page.locator("#about > summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    paper, ink = (
        page.evaluate(f"getComputedStyle(document.body).{name}")
        .removeprefix("rgb(")
        .removesuffix(")")
        .split(", ")
        for name in ("backgroundColor", "color")
    )
    lightness = [sum(map(int, one)) for one in (paper, ink)]
    assert (
        lightness == sorted(lightness, reverse=scheme == "light")
        and abs(lightness[0] - lightness[1]) > 400
    )
    if folder := os.environ.get("RESZOO_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/serve-check-{scheme}-{width}.png", full_page=True)
    context.close()


def test_the_page_sends_the_token_of_its_address(
    browser: Any, export: Path, picture: bytes
) -> None:
    token = "0123456789abcdef"
    context = browser.new_context()
    with Server(export, token=token) as server:
        page = context.new_page()
        page.goto(f"{server.url}/")
        page.get_by_text("A token is required").wait_for()
        page.goto(f"{server.url}/#token={token}")
        page.wait_for_selector("#about:not([hidden])")
        send(page, ("a.png", picture))
        assert page.locator("#answers .label").count() == 5
        assert token not in page.locator("#curl").inner_text()
    context.close()
