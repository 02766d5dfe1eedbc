"""The audit's page in a browser: no barriers, narrow windows, and everything within reach of the keyboard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.audit.before import read_earlier, trend
from ansible_collections.xpu.fleet.plugins.plugin_utils.audit_page import page as render
from ansible_collections.xpu.fleet.tests.page.conftest import SLOW
from ansible_collections.xpu.fleet.tests.unit.plugins.support.audit_fleet import drift, every_state, node, report, save
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

#: What WCAG asks content to fit in; also a window of 1280 pixels at a zoom of 400%.
NARROW: dict[str, Any] = {"viewport": {"width": 320, "height": 640}}
#: Settles once the element is scrolled sideways.
SCROLLED = "e => new Promise(done => (function look() { e.scrollLeft > 0 ? done() : requestAnimationFrame(look); })())"
LONG = "sha256-of-something-without-a-place-to-break-" + "0123456789" * 12

Show = Callable[..., Page]


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Iterator[Show]:
    """Opens the page of a fleet in every state with a history. It asks nobody for anything."""
    asked: list[str] = []
    errors: list[str] = []
    contexts = []

    def show(**options: Any) -> Page:
        earlier = save(tmp_path, "2026-11-22T00:00:00Z", {"arc1": node(model=drift()), "arc2": node(), "gone": node()})
        now = every_state()
        long = {"what": f"content of /etc/{LONG}", "expected": LONG, "found": LONG}
        now["nodes"]["arc2"]["layers"]["model"] = drift(long)
        file = tmp_path / "audit.html"
        file.write_text(render(now, trend(now, [read_earlier(earlier)])), encoding="utf-8")
        context = browser.new_context(**options)
        context.set_default_timeout(SLOW * 1000)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: errors.append(message.text))
        page.goto(file.as_uri())
        assert set(asked) == {file.as_uri()} and errors == []
        return page

    yield show
    for context in contexts:
        context.close()


def focused(page: Page) -> str:
    """What has the focus, as a person would call it."""
    return str(
        page.evaluate(
            "(() => { const e = document.activeElement;"
            " return e.getAttribute('href') || e.getAttribute('aria-label') || e.textContent.trim() })()"
        )
    )


def open_all(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(entry => { entry.open = true })")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("window", [{}, NARROW], ids=["wide", "narrow"])
def test_axe_finds_nothing(show: Show, scheme: str, window: dict[str, Any]) -> None:
    page = show(color_scheme=scheme, **window)
    open_all(page)
    found = Axe().run(page).response["violations"]
    assert [(problem["id"], [entry["html"] for entry in problem["nodes"]]) for problem in found] == []


def test_a_fleet_that_nobody_was_asked_of_has_no_barriers(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "none.html"
    file.write_text(render(report({}, left_out=("arc1",))), encoding="utf-8")
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(file.as_uri())
        assert [problem["id"] for problem in Axe().run(page).response["violations"]] == []


def test_a_narrow_window_scrolls_only_what_is_a_table(show: Show) -> None:
    page = show(**NARROW)
    open_all(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["viewport"]["width"]
    # The table that is wider comes along under the arrow keys; the name of the node stays where it is.
    table = page.get_by_role("region", name="Table of nodes and layers")
    table.focus()
    name = table.get_by_role("rowheader", name="arc1")
    left = name.evaluate("element => element.getBoundingClientRect().left")
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    # The page's policy allows no text to become code later, which wait_for_function would do.
    table.evaluate(SCROLLED)
    assert name.evaluate("element => element.getBoundingClientRect().left") == left


def test_every_link_and_every_detail_is_reached_by_tab(show: Show) -> None:
    page = show()
    wanted = page.evaluate("document.querySelectorAll('a[href], summary, [tabindex=\"0\"]').length")
    page.evaluate(
        "window.reached = new Set(); document.addEventListener('focusin', event => window.reached.add(event.target))"
    )
    # What is shut has nothing to reach inside; it opens under the space bar.
    for _ in range(3 * wanted):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('details:not([open]) > summary')"):
            page.keyboard.press("Space")
        if page.evaluate("window.reached.size") == wanted:
            break
    assert page.evaluate("window.reached.size") == wanted
    assert page.evaluate("document.querySelectorAll('details:not([open])').length") == 0


def test_a_cell_leads_to_its_layer_and_the_keyboard_goes_on_from_there(show: Show) -> None:
    page = show()
    cell = page.get_by_role("table").first.get_by_role("row").filter(has_text="arc2").get_by_role("link", name="drift")
    cell.first.focus()
    page.keyboard.press("Enter")
    layer = page.locator(":target")
    expect(layer).to_contain_text("running kernel")
    expect(layer).to_be_in_viewport()
    page.keyboard.press("Tab")
    expect(layer.locator("summary")).to_be_focused()
    page.keyboard.press("Enter")
    expect(layer.get_by_text("x 1.0")).to_be_visible()
    assert focused(page) == "1 version"


def test_the_focus_is_seen(show: Show) -> None:
    page = show()
    for _ in range(3):
        page.keyboard.press("Tab")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", focused(page)
