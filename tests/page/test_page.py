"""The chat page as a person uses it."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.tests.page.conftest import Open, Picture, Service, wait_for
from ansible_collections.xpu.fleet.tests.unit.xpuserve.fakes import MODEL
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect
from xpuserve.keys import Keys

#: What the note below an answer has once the answer is whole: the server counts last. A burst has no speed.
WHOLE = " tokens · "
KEY = "secret-of-anna-0123456789"
PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
CODE = "Like this:\n\n```python\nfor n in range(3):\n    print('" + "x" * 200 + "')\n```\n\nIt prints."


def ask(page: Page, text: str) -> None:
    page.get_by_label("Your question").fill(text)
    page.keyboard.press("Enter")


def answers(page: Page) -> Locator:
    return page.locator(".answer > .text")


def notes(page: Page) -> Locator:
    return page.locator(".answer .note")


def wait_for_prompt(service: Service, prompt: str) -> None:
    """Wait until this is what the model was asked last: an answer is on the page before its request has come."""
    wait_for(lambda: [asked for asked, _sampling in service.backend.seen[-1:]] == [prompt])


def state(page: Page) -> Locator:
    return page.locator("#state")


def button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


def stored(page: Page, storage: str) -> str:
    return str(page.evaluate(f"JSON.stringify({storage})"))


def keys(directory: Path) -> Keys:
    path = directory / "api_keys"
    path.touch(0o600)
    path.write_text(KEY + "\n")
    return Keys(path)


def test_a_question_is_answered_and_model_and_speed_are_shown(visit: Open, service: Service) -> None:
    page = visit()
    expect(page.get_by_role("heading", level=1)).to_have_text(MODEL)
    expect(state(page)).to_have_text("ready")
    expect(page).to_have_title(f"{MODEL} · chat")
    ask(page, "WAIT")
    expect(answers(page)).to_have_text("Pa")
    service.backend.may_answer.set()
    expect(answers(page)).to_have_text(service.backend.answer)
    tokens = len(service.backend.answer)
    speed = rf"^{MODEL} · {tokens} tokens · [\d.]+ tok/s · first token after \d+\.\d\d s$"
    expect(notes(page)).to_have_text(re.compile(speed))
    expect(page.get_by_label("Your question")).to_be_empty()
    ask(page, "And then?")
    expect(answers(page)).to_have_count(2)
    wait_for_prompt(service, f"WAIT\n{service.backend.answer}\nAnd then?")


def test_an_answer_is_shown_while_it_comes(visit: Open, service: Service) -> None:
    page = visit()
    ask(page, "WAIT")
    expect(answers(page)).to_have_text("Pa")
    expect(page.locator(".answer")).to_have_attribute("aria-busy", "true")
    expect(button(page, "Send")).to_be_hidden()
    service.backend.may_answer.set()
    expect(answers(page)).to_have_text(service.backend.answer)
    expect(page.locator(".answer")).not_to_have_attribute("aria-busy", "true")
    expect(button(page, "Send")).to_be_visible()


@pytest.mark.parametrize("way", ["button", "Escape"])
def test_a_stopped_answer_stays_and_the_server_stops_too(visit: Open, service: Service, way: str) -> None:
    page = visit()
    ask(page, "WAIT")
    expect(answers(page)).to_have_text("Pa")
    if way == "button":
        button(page, "Stop").click()
    else:
        page.keyboard.press(way)
    expect(notes(page)).to_contain_text("stopped")
    expect(answers(page)).to_have_text("Pa")
    service.backend.may_answer.set()
    wait_for(lambda: service.engine.running == 0)
    assert service.backend.tokens < len(service.backend.answer)
    ask(page, "Where?")
    expect(answers(page).last).to_have_text(service.backend.answer)
    wait_for_prompt(service, "WAIT\nPa\nWhere?")


def test_two_clicks_on_send_do_not_stop_the_answer(visit: Open, service: Service) -> None:
    page = visit()
    page.get_by_label("Your question").fill("WAIT")
    button(page, "Send").dblclick()
    expect(answers(page)).to_have_text("Pa")
    service.backend.may_answer.set()
    expect(answers(page)).to_have_text(service.backend.answer)


def test_chats_outlive_a_reload_and_are_deleted_for_good(visit: Open, service: Service) -> None:
    page = visit()
    ask(page, "Where is Paris?")
    expect(notes(page)).to_contain_text(WHOLE)
    button(page, "New chat").click()
    expect(answers(page)).to_have_count(0)
    ask(page, "Second")
    expect(notes(page)).to_contain_text(WHOLE)
    wait_for_prompt(service, "Second")

    page.reload()
    expect(answers(page)).to_have_text(service.backend.answer)
    expect(page.locator(".question p")).to_have_text("Second")
    button(page, "Where is Paris?").click()
    expect(page.locator(".question p")).to_have_text("Where is Paris?")
    expect(notes(page)).to_contain_text(WHOLE)

    page.on("dialog", lambda dialog: dialog.accept())
    button(page, "Delete the chat: Where is Paris?").click()
    expect(answers(page)).to_have_count(0)
    assert "Paris?" not in stored(page, "localStorage")
    page.reload()
    expect(page.locator("#list li")).to_have_count(1)
    button(page, "Settings").click()
    button(page, "Delete all chats").click()
    expect(page.locator("#list li")).to_have_count(0)
    assert stored(page, "localStorage") == "{}"


def test_what_came_before_a_reload_stays(visit: Open, service: Service) -> None:
    page = visit()
    ask(page, "WAIT")
    expect(answers(page)).to_have_text("Pa")
    page.reload()
    expect(answers(page)).to_have_text("Pa")
    service.backend.may_answer.set()
    wait_for(lambda: service.engine.running == 0)
    assert service.backend.tokens < len(service.backend.answer)


def test_a_question_without_an_answer_can_be_asked_again_after_a_reload(visit: Open, service: Service) -> None:
    page = visit()
    ask(page, "EARLY")
    expect(page.get_by_role("alert")).to_contain_text("The server failed: the engine failed")
    expect(page.get_by_role("alert")).to_contain_text(re.compile("under request [0-9a-f]{32}"))
    page.reload()
    expect(page.get_by_role("alert")).to_have_text("This question has no answer yet.")
    button(page, "Try again").click()
    expect(page.get_by_role("alert")).to_contain_text("The server failed")
    # What was never answered is not part of what the model sees next.
    ask(page, "Where?")
    expect(answers(page)).to_have_text(service.backend.answer)
    wait_for_prompt(service, "Where?")


def test_chats_of_two_tabs_do_not_overwrite_each_other(visit: Open, service: Service) -> None:
    page = visit()
    other = page.context.new_page()
    other.goto(service.url)
    ask(page, "First")
    ask(other, "Second")
    expect(notes(other)).to_contain_text(WHOLE)
    expect(page.locator("#list .open")).to_have_text(["Second", "First"])


def test_an_answer_that_fails_on_the_way_can_be_tried_again(visit: Open, service: Service) -> None:
    page = visit()
    ask(page, "CRASH")
    expect(answers(page)).to_have_text("Par")
    expect(notes(page)).to_contain_text("incomplete")
    button(page, "Try again").click()
    wait_for(lambda: len(service.backend.seen) == 2)
    expect(page.get_by_role("alert")).to_be_visible()
    wait_for_prompt(service, "CRASH")
    expect(answers(page)).to_have_count(1)


def test_everything_can_be_done_by_keyboard(visit: Open, service: Service) -> None:
    page = visit()
    expect(state(page)).to_have_text("ready")
    question = page.get_by_label("Your question")
    expect(question).to_be_focused()
    page.keyboard.type("WAIT")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    expect(question).to_have_value("WAIT\ntwo")
    page.keyboard.press("Tab")
    expect(button(page, "Send")).to_be_focused()
    page.keyboard.press("Enter")
    # The focus goes where its button went, and back.
    expect(button(page, "Stop")).to_be_focused()
    expect(answers(page)).to_have_text("Pa")
    page.keyboard.press("Enter")
    expect(notes(page)).to_contain_text("stopped")
    expect(question).to_be_focused()
    service.backend.may_answer.set()

    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
        if reached[-1]:  # and not the browser's own, after the last
            expect(page.locator(":focus")).to_have_css("outline", re.compile("solid 3px"))
    assert {"new-chat", "open", "remove", "open-settings", "log", "question", "send"} <= set(reached)

    button(page, "Settings").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(button(page, "Settings")).to_be_focused()


def test_enter_of_an_input_method_sends_nothing(visit: Open, service: Service) -> None:
    page = visit()
    page.get_by_label("Your question").fill("Where")
    page.locator("#question").dispatch_event("keydown", {"key": "Enter", "isComposing": True})
    expect(page.get_by_label("Your question")).to_have_value("Where")
    assert service.backend.seen == []


@pytest.mark.parametrize(("scheme", "page_colour"), [("light", "rgb(255, 255, 255)"), ("dark", "rgb(20, 23, 27)")])
def test_colours_are_those_the_person_prefers(visit: Open, scheme: str, page_colour: str) -> None:
    page = visit(color_scheme=scheme)
    expect(page.locator("body")).to_have_css("background-color", page_colour)


def test_a_phone_shows_all_without_scrolling_sideways(visit: Open, service: Service) -> None:
    service.backend.answer = CODE
    page = visit(**PHONE)
    ask(page, "x" * 300)
    expect(notes(page)).to_contain_text(WHOLE)
    assert page.evaluate("document.scrollingElement.scrollWidth") == 360
    assert page.evaluate("document.getElementById('log').scrollWidth") == 360
    for name in ("Chats", "New chat", "Send"):
        box = button(page, name).bounding_box()
        assert box
        assert box["x"] + box["width"] <= 360
        assert box["height"] >= 40
    expect(page.locator("#chats")).to_be_hidden()
    button(page, "Chats").tap()
    expect(page.locator("#chats")).to_be_visible()
    assert page.evaluate("document.scrollingElement.scrollWidth") == 360
    page.keyboard.press("Escape")
    expect(page.locator("#chats")).to_be_hidden()
    expect(button(page, "Chats")).to_be_focused()
    button(page, "Chats").tap()
    page.locator("#list .open").tap()
    expect(page.locator("#chats")).to_be_hidden()


def test_a_key_is_asked_for_and_kept_as_long_as_the_tab(visit: Open, service: Service, tmp_path: Path) -> None:
    service.keys = keys(tmp_path)
    page = visit()
    dialog = page.get_by_role("dialog", name="This server asks for an API key")
    expect(dialog).to_be_visible()
    for wrong, message in [("secret-of-nobody-000000", "does not know this key"), ("two words", "no spaces")]:
        page.get_by_label("API key", exact=True).fill(wrong)
        page.keyboard.press("Enter")
        expect(dialog.get_by_role("alert")).to_contain_text(message)
    page.keyboard.press("Escape")
    expect(state(page)).to_have_text("An API key is needed")
    ask(page, "Where?")  # is asked again by itself with the key
    expect(dialog).to_be_visible()
    page.get_by_label("API key", exact=True).fill(KEY)
    button(page, "Use key").click()
    expect(answers(page)).to_have_text(service.backend.answer)
    expect(page.get_by_role("heading", level=1)).to_have_text(MODEL)
    expect(state(page)).to_have_text("ready")
    expect(page.get_by_role("alert")).to_have_count(0)
    assert KEY in stored(page, "sessionStorage")
    assert KEY not in stored(page, "localStorage")
    assert KEY not in page.content()

    page.reload()
    expect(state(page)).to_have_text("ready")
    button(page, "Settings").click()
    button(page, "Forget API key").click()
    expect(dialog).to_be_visible()
    assert KEY not in stored(page, "sessionStorage")


def test_a_key_that_comes_late_asks_no_question_of_another_chat(visit: Open, service: Service) -> None:
    page = visit()
    ask(page, "Where?")
    expect(notes(page)).to_contain_text(WHOLE)
    button(page, "New chat").click()
    page.route("**/v1/chat/completions", lambda route: route.fulfill(status=401, json={"error": {"message": "a key"}}))
    ask(page, "When?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    page.unroute("**/v1/chat/completions")
    button(page, "Where?").click()
    button(page, "Enter API key").click()
    page.get_by_label("API key", exact=True).fill(KEY)
    button(page, "Use key").click()
    expect(state(page)).to_have_text("ready")
    expect(page.locator(".answer")).to_have_count(1)
    button(page, "When?").click()
    button(page, "Try again").click()
    expect(answers(page)).to_have_text(service.backend.answer)
    assert [prompt for prompt, _ in service.backend.seen] == ["Where?", "When?"]


def test_a_busy_server_is_asked_again_when_it_said(visit: Open, service: Service) -> None:
    page = visit()
    others = [page.context.new_page() for _ in range(2)]
    for other in others:
        other.goto(service.url)
        ask(other, "WAIT")
    wait_for(lambda: service.engine.waiting == 1)
    page.clock.install()
    ask(page, "Where?")
    expect(page.get_by_role("alert")).to_contain_text("The server is busy")
    again = page.locator(".again")
    expect(again).to_have_text("Try again in 1 s")
    again.click()  # too early
    assert service.engine.waiting == 1
    page.clock.fast_forward(1500)
    expect(again).to_have_text("Try again")
    service.backend.may_answer.set()
    for other in others:
        expect(notes(other)).to_contain_text(WHOLE)
    again.click()
    expect(answers(page)).to_have_text(service.backend.answer)
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_model_that_loads(visit: Open, service: Service) -> None:
    service.backend.may_load.clear()
    page = visit()
    expect(state(page)).to_have_text("The model is being loaded")
    ask(page, "Where?")
    expect(page.get_by_role("alert")).to_contain_text("The model is not ready")
    expect(page.locator(".again")).to_have_text(re.compile("Try again in [45] s"))
    service.backend.may_load.set()
    expect(state(page)).to_have_text("ready")


def test_a_server_that_goes_away_and_comes_back(visit: Open, service: Service) -> None:
    page = visit()
    ask(page, "WAIT")
    expect(answers(page)).to_have_text("Pa")
    service.stop()
    expect(page.get_by_role("alert")).to_contain_text("The connection broke before the answer was complete")
    expect(state(page)).to_contain_text("The server does not answer")
    expect(answers(page)).to_have_text("Pa")
    service.backend.may_answer.set()
    button(page, "Try again").click()
    expect(page.get_by_role("alert")).to_contain_text("Check that it runs")
    service.start()
    expect(state(page)).to_have_text("ready")
    button(page, "Try again").click()
    expect(answers(page)).to_have_text(service.backend.answer)
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_page_that_is_older_than_the_model_asks_the_new_one(visit: Open, service: Service) -> None:
    page = visit()
    expect(state(page)).to_have_text("ready")
    page.route("**/v1/models", lambda route: route.fulfill(json={"data": [{"id": MODEL}]}))
    page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(status=404, json={"error": {"message": "no", "code": "model_not_found"}}),
        times=1,
    )
    ask(page, "Where?")
    expect(answers(page)).to_have_text(service.backend.answer)


def test_a_chat_longer_than_the_context_loses_its_beginning(visit: Open, service: Service) -> None:
    page = visit()
    for n in range(3):
        ask(page, f"{n}" + "x" * 850)
        expect(notes(page)).to_have_count(n + 1)
        expect(notes(page).last).to_contain_text(WHOLE)
    expect(notes(page).nth(1)).not_to_contain_text("without the first")
    expect(notes(page).last).to_contain_text("without the first turn")
    assert service.backend.seen[-1][0].startswith("1xxx")
    ask(page, "y" * 3000)
    expect(page.get_by_role("alert")).to_contain_text("too long for the model")


def test_settings_reach_the_model_and_outlive_a_reload(visit: Open, service: Service) -> None:
    page = visit()
    button(page, "Settings").click()
    page.get_by_label("How the model is to behave").fill("Be brief.")
    page.get_by_label("Temperature").fill("0.7")
    page.get_by_label("Longest answer").fill("5")
    button(page, "Save").click()
    page.reload()
    ask(page, "Where?")
    expect(answers(page)).to_have_text("Paris")
    expect(notes(page)).to_contain_text("cut at the longest answer")
    prompt, sampling = service.backend.seen[-1]
    assert prompt == "Be brief.\nWhere?"
    assert (sampling.temperature, sampling.max_tokens) == (0.7, 5)


def test_what_a_model_writes_is_never_html(visit: Open, service: Service) -> None:
    hostile = (
        "<img src=x onerror=alert(1)> <script>alert(2)</script> [a](javascript:alert(3))\n\n"
        "```html\n</code></pre><b>bold</b>\n```\n# <i>head</i>\n- <u>item</u> **<s>strong</s>** `<q>`"
    )
    service.backend.answer = hostile
    page = visit()
    page.on("dialog", lambda dialog: pytest.fail("a script of the model ran"))
    ask(page, "<b>me</b>")
    expect(notes(page)).to_contain_text(WHOLE)
    expect(answers(page).locator("img, script, a, b, i, u, s, q")).to_have_count(0)
    expect(answers(page).locator("pre")).to_have_text("</code></pre><b>bold</b>")
    expect(answers(page)).to_contain_text("[a](javascript:alert(3))")
    expect(page.locator(".question p")).to_have_text("<b>me</b>")


MARKDOWN = [
    ("a\nb\n\nc", "<p>a\nb</p><p>c</p>"),
    ("# Head #\ntext", "<h3>Head</h3><p>text</p>"),
    ("1. a\n2. b\n   - c\n   - d\n3. e", "<ol start=1><li>a<li>b<ul><li>c<li>d</ul><li>e</ol>"),
    ("* a\n\n* b\n\nc", "<ul><li>a<li>b</ul><p>c</p>"),
    ("  - a\n- b", "<ul><li>a<li>b</ul>"),
    ("- a\n  more", "<ul><li>a\nmore</ul>"),
    ("**b *i* b** `c` 2 * 3 * 4 a_b", "<p><strong>b <em>i</em> b</strong> <code>c</code> 2 * 3 * 4 a_b</p>"),
    ("# C#", "<h3>C#</h3>"),
    ("`a`` ```", "<p>`a`` ```</p>"),
    ("`**x**` ``a`b`` **open", "<p><code>**x**</code> <code>a`b</code> **open</p>"),
]


@pytest.mark.parametrize(("text", "html"), MARKDOWN)
def test_markdown(visit: Open, text: str, html: str) -> None:
    page = visit()
    made = page.evaluate(
        """async (text) => {
            const { render } = await import("/static/markdown.js");
            const element = document.createElement("div");
            for (let n = 1; n <= text.length; n++) render(element, text.slice(0, n));  // as it streams in
            return element.innerHTML;
        }""",
        text,
    )
    short = made.replace("</li>", "").replace(' start="1"', " start=1")
    assert short == html


RENDERED = """async (texts) => {
    const { render } = await import("/static/markdown.js");
    return texts.map((text) => {
        const element = document.createElement("div");
        render(element, text);
        return element.textContent;
    });
}"""


def test_nothing_a_model_writes_takes_longer_than_it_is_long(visit: Open) -> None:
    """Each of these took a pattern at least as many steps as the square of its length: hours, where it is a moment."""
    many = 200_000
    hostile = [
        *("~" * many + "`", "`" * many, "*" * many, "**a " * (many // 4), "*a " * (many // 3), "*a*b" * (many // 4)),
        *("# " + "#" * many + "x", "- " + " " * many + "\u2028", " " * many + "x", "*a **b " * (many // 7) + "** *"),
        "".join("`" * (n + 1) + "a" for n in range(600)),
    ]
    shown = visit().evaluate(RENDERED, hostile)
    assert [text.count("a") for text in shown] == [text.count("a") for text in hostile]


def test_no_text_is_lost_whatever_marks_are_around_it(visit: Open) -> None:
    dice = random.Random(20)  # noqa: S311
    parts = [
        "a",
        "b",
        " ",
        "*",
        "**",
        "`",
        "``",
        "\n",
        "\n\n",
        "# ",
        "- ",
        "1. ",
        "~~~",
        "```",
        "\r",
        "_",
        "\u2028",
        "<i>",
        "&",
    ]
    texts = ["".join(dice.choices(parts, k=dice.randrange(40))) for _ in range(5000)]
    opens = re.compile(r"^\s*(```|~~~)", re.MULTILINE)
    texts = [text for text in texts if not opens.search(text.replace("\r", "\n"))]  # whose first line names a language
    assert len(texts) > 1000
    shown = visit().evaluate(RENDERED, texts)
    assert [re.sub(r"[^ab<>&]", "", text) for text in shown] == [re.sub(r"[^ab<>&]", "", text) for text in texts]


@pytest.mark.parametrize(
    ("text", "language", "code"),
    [
        ("```python\nx = 1\n\ny\n```\nafter", "python", "x = 1\n\ny"),
        ("~~~\na\n```\nb\n~~~", "code", "a\n```\nb"),
        ("````md\n```\nin\n```\n````", "md", "```\nin\n```"),
        ("- item\n  ```sh\n  ls\n    -l\n  ```", "sh", "ls\n  -l"),
        ("```c++\nunfinished", "c++", "unfinished"),
    ],
)
def test_code_blocks(visit: Open, service: Service, text: str, language: str, code: str) -> None:
    service.backend.answer = text
    page = visit()
    ask(page, "Code?")
    expect(notes(page)).to_contain_text(WHOLE)
    expect(page.locator("figcaption span")).to_have_text(language)
    assert page.locator("pre code").text_content() == code


@pytest.mark.parametrize("clipboard", [True, False])
def test_code_is_copied_with_and_without_the_browsers_clipboard(visit: Open, service: Service, clipboard: bool) -> None:
    service.backend.answer = "```\nls -l\n```"
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    if not clipboard:  # as over plain HTTP from another machine
        page.evaluate("navigator.clipboard.writeText = undefined")
    ask(page, "Code?")
    expect(notes(page)).to_contain_text(WHOLE)
    button(page, "Copy").click()
    expect(button(page, "Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == "ls -l"


def test_a_screen_reader_is_told_each_paragraph_once(visit: Open, service: Service) -> None:
    service.backend.answer = "1\n2\n\nThree."
    page = visit()
    told = page.locator("#announced")
    expect(told).to_have_attribute("aria-live", "polite")
    expect(page.get_by_role("log")).to_have_attribute("aria-live", "off")
    ask(page, "WAIT")
    expect(told.locator("span")).to_have_text(["The model answers. ", "1 "])
    service.backend.may_answer.set()
    expect(notes(page)).to_contain_text(WHOLE)
    assert " ".join(told.all_inner_texts()).split() == ["The", "model", "answers.", "1", "2", "Three."]


FULL = "Storage.prototype.setItem = () => { throw new DOMException('', 'QuotaExceededError'); }"
OFF = """for (const name of ["localStorage", "sessionStorage"])
    Object.defineProperty(window, name, { get() { throw new DOMException("", "SecurityError"); } });"""


@pytest.mark.parametrize("trouble", [FULL, OFF], ids=["full", "off"])
def test_a_browser_that_keeps_nothing_says_so(visit: Open, service: Service, tmp_path: Path, trouble: str) -> None:
    service.keys = keys(tmp_path)
    page = visit(script=trouble)
    page.get_by_label("API key", exact=True).fill(KEY)
    page.keyboard.press("Enter")
    expect(state(page)).to_have_text("ready")
    ask(page, "Where?")
    expect(answers(page)).to_have_text(service.backend.answer)
    expect(state(page)).to_contain_text("This browser keeps no chats")
    ask(page, "And then?")
    expect(answers(page)).to_have_text([service.backend.answer] * 2)
    wait_for_prompt(service, f"Where?\n{service.backend.answer}\nAnd then?")


def test_what_a_model_thought_is_folded(visit: Open, service: Service) -> None:
    service.backend.fake_tokenizer.template = "{{ '<think>' }}"
    service.backend.answer = "<think>\nI look.\n</think>\n\nIn Paris."
    page = visit()
    ask(page, "Where?")
    expect(answers(page)).to_have_text("In Paris.")
    thought = page.get_by_text("I look.")
    expect(thought).to_be_hidden()
    page.get_by_text("Thought", exact=True).click()
    expect(thought).to_be_visible()


def accessible(page: Page) -> None:
    found = Axe().run(page).response["violations"]
    assert [(problem["id"], [node["html"] for node in problem["nodes"]]) for problem in found] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", [{}, PHONE], ids=["desktop", "phone"])
def test_what_a_person_has_to_look_at(
    visit: Open, service: Service, picture: Picture, scheme: str, device: dict[str, Any]
) -> None:
    """The pictures are kept; no test says whether the page is good to look at."""
    name = f"{'phone' if device else 'desktop'}-{scheme}"
    page = visit(color_scheme=scheme, **device)
    expect(state(page)).to_have_text("ready")
    picture(page, f"{name}-empty")
    service.backend.answer = CODE + "\n\n# Head\n- a\n- b `c` **d**"
    ask(page, "How do I count to three?")
    expect(notes(page)).to_contain_text(WHOLE)
    ask(page, "WAIT")
    expect(button(page, "Stop")).to_be_visible()
    picture(page, f"{name}-answers")
    service.backend.may_answer.set()
    expect(answers(page).last).to_contain_text("It prints.")
    if device:
        button(page, "Chats").tap()
        picture(page, f"{name}-chats")
    button(page, "Settings").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    picture(page, f"{name}-settings")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", [{}, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing(visit: Open, service: Service, scheme: str, device: dict[str, Any]) -> None:
    service.backend.answer = CODE + "\n\n# Head\n- a\n- b `c` **d**"
    page = visit(color_scheme=scheme, **device)
    expect(state(page)).to_have_text("ready")
    accessible(page)
    ask(page, "WAIT")
    expect(button(page, "Stop")).to_be_visible()
    accessible(page)
    service.backend.may_answer.set()
    expect(notes(page)).to_contain_text(WHOLE)
    accessible(page)
    ask(page, "EARLY")
    expect(page.get_by_role("alert")).to_be_visible()
    accessible(page)
    if device:
        button(page, "Chats").tap()
        accessible(page)
    button(page, "Settings").click()
    accessible(page)
    page.keyboard.press("Escape")
    page.route("**/v1/*", lambda route: route.fulfill(status=401, json={"error": {"message": "a key is needed"}}))
    page.reload()
    expect(page.get_by_role("dialog")).to_be_visible()
    accessible(page)
