"""The web pages as a reader has them: from a disk, the network cut, by keyboard, on a phone.

Needs Debian's Chromium (``make browser``) and the pages (``make html``); skips where one is absent.
One browser serves all tests, and most of them look at what a single tour of the pages recorded.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from webpages import (
    CHAPTERS,
    FORMULAS_DONE,
    OPEN_SOLUTIONS,
    WIDTHS,
    Page,
    built_pages,
    chromium,
    in_article,
    page_of,
    show,
)

pytestmark = pytest.mark.browser

ENOUGH_CONTRAST = 4.5  # WCAG 2.2, level AA, for text of ordinary size
OVERHANG = """() => {
  const room = document.documentElement.clientWidth;
  const out = [...document.querySelectorAll("article *")].filter(
    (e) => e.getBoundingClientRect().right > room + 1 && !e.closest("pre, table, mjx-container"));
  return [document.documentElement.scrollWidth - window.innerWidth,
          out.slice(0, 3).map((e) => e.outerHTML.slice(0, 90)).join(" | ")];
}"""
# Text against what lies behind it: colors are painted on a canvas, so any notation of CSS will do.
CONTRASTS = """() => {
  const brush = Object.assign(document.createElement("canvas"), {width: 1, height: 1})
    .getContext("2d", {willReadFrequently: true});
  const paint = (colors) => {
    brush.clearRect(0, 0, 1, 1);
    for (const color of colors) { brush.fillStyle = color; brush.fillRect(0, 0, 1, 1); }
    return [...brush.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => rgb.map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const seen = new Map();
  const ratio = (element) => {
    const behind = [];
    for (let e = element; e; e = e.parentElement) behind.push(getComputedStyle(e).backgroundColor);
    const colors = ["white", ...behind.reverse()], ink = getComputedStyle(element).color;
    const key = colors.join() + ink;
    if (!seen.has(key)) {
      const [a, b] = [light(paint([...colors, ink])), light(paint(colors))];
      seen.set(key, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
    }
    return seen.get(key);
  };
  const found = {};
  for (const element of document.querySelectorAll("main *, .bd-sidebar-primary *")) {
    const written = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!written || element.closest("svg, script, mjx-assistive-mml")) continue;
    if (!element.checkVisibility({checkOpacity: true, checkVisibilityCSS: true})) continue;
    const kind = element.tagName.toLowerCase() + "." + [...element.classList].join(".")
      + " in " + (element.parentElement.closest("[class]")?.className || "");
    found[kind] = Math.min(found[kind] ?? 99, ratio(element));
  }
  return found;
}"""
FOCUS = """() => {
  const e = document.activeElement, s = getComputedStyle(e);
  return [e.textContent.trim(), parseFloat(s.outlineWidth), s.outlineStyle, s.boxShadow];
}"""


@dataclass
class Visit:
    """What was seen when a page was opened once and shown at each width."""

    requests: list[str]
    complaints: list[str]
    formulas: int
    failures: int
    overhang: dict[str, tuple[int, str]]


@pytest.fixture(scope="module")
def pages() -> dict[str, Page]:
    return built_pages()


@pytest.fixture(scope="module")
def context(pages) -> Iterator:
    """One Chromium without a network for all tests."""
    with chromium() as context:
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        yield context


@pytest.fixture
def tab(context) -> Iterator:
    page = context.new_page()
    yield page
    page.close()


def listen(tab) -> tuple[list[str], list[str]]:
    requests, complaints = [], []
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    return requests, complaints


@pytest.fixture(scope="module")
def visits(context, pages) -> dict[str, Visit]:
    tab, found = context.new_page(), {}
    requests, complaints = listen(tab)
    for name in pages:
        requests.clear()
        complaints.clear()
        show(tab, name)
        overhang = {}
        for device, width in WIDTHS.items():
            tab.set_viewport_size({"width": width, "height": 900})
            overhang[device] = tuple(tab.evaluate(OVERHANG))
        formulas = tab.locator("article mjx-container").count()
        failures = tab.locator("mjx-merror, [data-mjx-error]").count()
        found[name] = Visit(list(requests), list(complaints), formulas, failures, overhang)
    tab.close()
    return found


def test_no_page_asks_the_network_for_anything(visits):
    for name, visit in visits.items():
        assert visit.requests, name
        assert [url for url in visit.requests if not url.startswith(("file:", "data:"))] == [], name


def test_no_page_complains_in_the_console(visits):
    assert {name: v.complaints for name, v in visits.items() if v.complaints} == {}


def test_every_formula_is_set(pages, visits):
    for name, visit in visits.items():
        written = [e for e in pages[name].with_class("math") if in_article(e)]
        assert (visit.formulas, visit.failures) == (len(written), 0), name
    assert sum(visit.formulas for visit in visits.values()) > 50


@pytest.mark.parametrize("device", WIDTHS)
def test_no_page_scrolls_sideways(visits, device):
    wide = {name: visit.overhang[device] for name, visit in visits.items()}
    assert {name: found for name, found in wide.items() if found[0] > 0 or found[1]} == {}


def test_search_works_from_the_disk_and_shows_where_the_word_stands(tab):
    requests, complaints = listen(tab)
    show(tab, "search.html", "?q=token")
    tab.wait_for_selector("text=Search finished")
    tab.wait_for_selector("ul.search li p.context")
    titles = tab.locator("ul.search li > a").all_inner_texts()
    assert any("Tokenization" in title for title in titles) and all(t.strip() for t in titles)
    assert "token" in tab.locator("ul.search li p.context").first.inner_text().lower()
    for address in tab.locator("ul.search li > a").evaluate_all("all => all.map(a => a.href)"):
        assert Path(unquote(urlsplit(address).path)).is_file()
    assert complaints == []
    assert all(url.startswith("file:") for url in requests)


def test_the_keyboard_alone_opens_the_search(tab, pages):
    show(tab, page_of(CHAPTERS[0]))
    tab.keyboard.press("Control+k")
    tab.wait_for_selector(".search-button__wrapper.show input")
    tab.keyboard.type("embedding")
    tab.keyboard.press("Enter")
    tab.wait_for_selector("ul.search li")
    assert "search.html?q=embedding" in tab.url


def test_the_copy_button_puts_the_code_of_the_cell_into_the_clipboard(tab):
    chapter = CHAPTERS[0]
    cells = json.loads(chapter.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]).strip() for cell in cells if cell["cell_type"] == "code"]
    show(tab, page_of(chapter))
    for index in (0, 1):
        cell = tab.locator("div.cell_input").nth(index)
        cell.hover()
        cell.locator("button.copybtn").click()
        copied = tab.evaluate("navigator.clipboard.readText()").strip()
        assert copied.count("\n") >= 1
        assert copied in code


def switch_to(tab, theme: str) -> None:
    for _ in range(3):
        if tab.evaluate("document.documentElement.dataset.theme") == theme:
            return
        tab.locator(".theme-switch-button").first.click()
    assert tab.evaluate("document.documentElement.dataset.theme") == theme


def test_text_stands_out_from_what_is_behind_it_by_day_and_by_night(tab, pages):
    weak, kinds = {}, Counter()
    for name in pages:
        show(tab, name)
        tab.evaluate(OPEN_SOLUTIONS)
        for theme in ("light", "dark"):
            switch_to(tab, theme)
            for kind, ratio in tab.evaluate(CONTRASTS).items():
                kinds[kind.split(".")[0]] += 1
                if ratio < ENOUGH_CONTRAST:
                    weak[f"{name}, {theme}: {kind}"] = round(ratio, 2)
    assert weak == {}
    assert {"p", "h1", "h2", "a", "span", "pre", "dt"} <= set(kinds)


def test_figures_stay_on_white_when_the_page_is_dark(tab):
    show(tab, page_of(CHAPTERS[0]))
    switch_to(tab, "dark")
    colors = tab.locator("article figure img").evaluate_all(
        "all => all.map(image => getComputedStyle(image).backgroundColor)"
    )
    assert len(colors) >= 5 and set(colors) == {"rgb(255, 255, 255)"}
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"


def test_the_arrow_keys_turn_the_page_but_not_from_inside_a_box_that_scrolls(tab):
    first, second = (page_of(chapter) for chapter in CHAPTERS[:2])
    show(tab, first)
    tab.keyboard.press("ArrowRight")
    tab.wait_for_url(f"**/{second}")
    tab.keyboard.press("ArrowLeft")
    tab.wait_for_url(f"**/{first}")
    tab.set_viewport_size({"width": WIDTHS["phone"], "height": 900})
    tab.evaluate(FORMULAS_DONE)
    wide = tab.evaluate_handle(
        "[...document.querySelectorAll('article pre')].find(e => e.scrollWidth > e.clientWidth)"
    ).as_element()
    wide.evaluate("box => { box.tabIndex = 0; box.focus(); }")
    tab.keyboard.press("ArrowRight")
    tab.wait_for_function("box => box.scrollLeft > 0", arg=wide)
    assert tab.url.endswith(first)


def test_a_solution_opens_by_keyboard_and_by_a_link_to_it(tab):
    show(tab, page_of(CHAPTERS[0]))
    solution = tab.locator(".solution").first
    body, button = (
        solution.locator("p:not(.admonition-title)").first,
        solution.locator("button").first,
    )
    assert not body.is_visible() and button.get_attribute("aria-expanded") == "false"
    button.focus()
    tab.keyboard.press("Enter")
    assert body.is_visible() and button.get_attribute("aria-expanded") == "true"
    tab.keyboard.press("Space")
    assert not body.is_visible()
    tab.evaluate("name => { location.hash = name; }", solution.get_attribute("id"))
    body.wait_for(state="visible")


def test_code_that_scrolls_in_an_opened_solution_is_a_stop_of_the_tab_key(tab):
    show(tab, page_of(CHAPTERS[0]))
    tab.evaluate(OPEN_SOLUTIONS)
    code = "[...document.querySelectorAll('.solution pre')]"
    wide = f"{code}.filter((e) => e.scrollWidth > e.clientWidth)"
    assert tab.evaluate(f"{wide}.length") > 0
    tab.wait_for_function(f"{wide}.every((e) => e.tabIndex === 0)")


def test_tab_reaches_the_skip_link_first_and_the_focus_can_be_seen(tab):
    show(tab, page_of(CHAPTERS[0]))
    seen = []
    for _ in range(12):
        tab.keyboard.press("Tab")
        seen.append(tab.evaluate(FOCUS))
    assert seen[0][0] == "Skip to main content"
    assert [e for e in seen if (e[1] < 2 or e[2] == "none") and e[3] == "none"] == []


def test_only_formulas_that_scroll_are_stops_of_the_tab_key(tab, pages):
    name = max(pages, key=lambda name: len(pages[name].with_class("math")))
    show(tab, name)
    n_all = tab.locator("mjx-container").count()
    scroll = tab.locator("mjx-container[tabindex='0']").evaluate_all(
        "stops => stops.map((e) => e.scrollWidth > e.clientWidth)"
    )
    assert n_all > 10 and all(scroll) and len(scroll) < n_all / 10
