"""The web pages under axe-core: no serious fault of accessibility, whatever the screen.

Every page is looked at on a desktop by day and on a phone by night, its solutions open: the layout
follows from the width, the colors from the theme, and test_html_browser.py measures all colors in
both. What opens over a page is looked at on one. Needs what test_html_browser.py needs.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from webpages import OPEN_SOLUTIONS, WIDTHS, built_pages, chromium, show

pytestmark = pytest.mark.browser

RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
GRAVE = ("serious", "critical")
SCREENS = (("desktop", "light"), ("phone", "dark"))
# The theme looks 0.3 s after a change which boxes scroll, and makes them stops of the tab key.
SETTLED = """async () => {
  await new Promise(requestAnimationFrame);
  await new Promise((done) => setTimeout(done, 350));
}"""
# What makes axe slow and tells it nothing new is taken out. Texts of one kind have one contrast: of
# each path of tags, classes and styles the first in the book is measured, and among the 20,000
# words in color of a chapter's code those of a kind seen before become plain. The drawing of a
# formula, hidden from readers who hear the page, leaves its room alone.
THINNED = """(known) => {
  const seen = new Set(known), names = new Map(), fresh = [];
  const kind = (e) => {
    if (e && !names.has(e))
      names.set(e, `${kind(e.parentElement)} ${e.tagName} ${e.className} ${e.style.cssText}`);
    return names.get(e);
  };
  for (const e of document.querySelectorAll("body *:not(mjx-container *, script)")) {
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
    if (seen.has(kind(e))) {
      if (e.matches("pre span")) e.replaceWith(...e.childNodes);
      continue;
    }
    seen.add(kind(e));
    fresh.push(kind(e));
    for (const shown of [e, e.closest("a")]) shown?.setAttribute("data-first", "");
  }
  document.querySelectorAll("pre").forEach((box) => box.normalize());
  const drawings = [...document.querySelectorAll("mjx-math")];
  const rooms = drawings.map((drawing) => drawing.getBoundingClientRect());
  drawings.forEach((drawing, i) => {
    drawing.style.cssText += `; display: inline-block; width: ${rooms[i].width}px`;
    drawing.replaceChildren();
  });
  axe.configure({rules: [
    {id: "color-contrast", selector: "[data-first]"},
    {id: "link-in-text-block", selector: "a[data-first]"},
  ]});
  return fresh;
}"""
OPENERS = {
    "contents": ".primary-toggle",
    "sections": ".secondary-toggle",
    "search": ".search-button",
    "menu": ".dropdown-download-buttons > button",
}


@pytest.fixture(scope="module")
def tab() -> Iterator:
    built_pages()  # skips where there are none
    with chromium() as context:
        context.set_default_timeout(60_000)
        yield context.new_page()


def show_to_axe(tab, name: str, device: str, seen: set[str]) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    tab.set_viewport_size({"width": WIDTHS[device], "height": 900})
    show(tab, name, "?q=token" if name == "search.html" else "")
    tab.evaluate(OPEN_SOLUTIONS)
    tab.evaluate(axe.axe_script)
    seen.update(tab.evaluate(THINNED, list(seen)))


def faults(tab, device: str, theme: str) -> list[str]:
    """What axe finds on the page as it stands: rule, what it asks for, and the element."""
    tab.set_viewport_size({"width": WIDTHS[device], "height": 900})
    tab.emulate_media(color_scheme=theme)
    tab.wait_for_function("(name) => document.documentElement.dataset.theme === name", arg=theme)
    tab.evaluate(SETTLED)
    options = {"runOnly": list(RULES), "resultTypes": ["violations"]}
    found = tab.evaluate("options => axe.run(options).then(r => r.violations)", options)
    return [
        f"{device}, {theme}: {rule['id']} ({rule['impact']}: {rule['help']}): {node['html']}"
        for rule in found if rule["impact"] in GRAVE for node in rule["nodes"]
    ]  # fmt: skip


def test_axe_finds_no_serious_fault_on_any_page(tab):
    found, seen = [], set()
    for name in built_pages():
        show_to_axe(tab, name, SCREENS[0][0], seen)
        for device, theme in SCREENS:
            found += [f"{name}, {fault}" for fault in faults(tab, device, theme)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("opened", OPENERS)
def test_axe_finds_no_serious_fault_in_what_opens_over_a_page(tab, opened):
    found = []
    for device, theme in (("tablet", "light"), ("phone", "dark")):
        show_to_axe(tab, "preface.html", device, set())
        tab.locator(OPENERS[opened]).evaluate("button => button.click()")
        found += faults(tab, device, theme)
    assert not found, "\n".join(found)
