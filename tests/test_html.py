"""The web pages as they are written: links, names, descriptions, and nothing from elsewhere.

They are looked at as they lie in _build/html; ``make html`` writes them, and ``make test`` does so
before it runs this. What a browser makes of them is in test_html_browser.py.
"""

from __future__ import annotations

import re
from collections import Counter
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
import yaml
from webpages import CHAPTERS, ROOT, SITE, Page, built_pages, in_article, page_of

CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def pages() -> dict[str, Page]:
    return built_pages()


def test_every_link_and_anchor_within_the_book_leads_somewhere(pages):
    targets = {name: set(page.ids()) for name, page in pages.items()}
    dead = []
    for page in pages.values():
        for address in page.addresses():
            place, anchor = urldefrag(address)
            if urlsplit(address).scheme:
                continue
            here = unquote(urlsplit(place).path)
            target = (page.path.parent / here).resolve() if here else page.path
            name = target.relative_to(SITE.resolve()).as_posix() if here else page.name
            if not target.is_file() or (anchor and unquote(anchor) not in targets.get(name, set())):
                dead.append(f"{page.name}: {address}")
    assert not dead, "\n".join(dead)


def test_the_book_opens_at_a_page_that_exists(pages):
    address = re.search(r"url=([^\"]+)\"", (SITE / "index.html").read_text(encoding="utf-8"))
    assert (SITE / address.group(1)).is_file()


def test_every_image_says_what_it_shows(pages):
    silent = []
    for page in pages.values():
        for image in (e for e in page.elements if e.tag == "img"):
            text = image.attributes.get("alt")
            if text is None or (in_article(image) and len(text) < 10):
                silent.append(f"{page.name}: {image.attributes['src']}")
    assert silent == []


def test_an_id_stands_once_on_its_page(pages):
    for page in pages.values():
        if page.name == "search.html":
            continue  # the theme puts its pop-up search field on this page, too
        assert [name for name, count in Counter(page.ids()).items() if count > 1] == [], page.name


def test_every_page_has_a_title_of_its_own(pages):
    titles = Counter(page.title for page in pages.values())
    assert {title for title, count in titles.items() if count > 1 or not title.strip()} == set()


def test_every_page_has_a_description_and_a_card_made_from_its_words(pages):
    base = CONFIG["html"]["baseurl"].rstrip("/")
    for page in pages.values():
        (description,) = page.meta("description")
        assert 20 <= len(description) <= 200, page.name
        assert page.meta("og:description") == [description]
        assert page.meta("og:url") == [f"{base}/{page.name}"]
        assert page.meta("og:title") and page.meta("og:title")[0] in page.title
        (picture,) = page.meta("og:image")
        assert (SITE / picture.removeprefix(f"{base}/")).is_file()
    described = [page.meta("description")[0] for page in pages.values()]
    assert len(set(described)) == len(described)


def test_a_chapter_opens_in_binder_and_in_colab(pages):
    repository = CONFIG["repository"]["url"].removeprefix("https://github.com/")
    branch, launch = CONFIG["repository"]["branch"], CONFIG["launch_buttons"]
    for chapter in CHAPTERS:
        where = f"chapters/{chapter.name}"
        addresses = pages[page_of(chapter)].addresses()
        binder = f"{launch['binderhub_url']}/v2/gh/{repository}/{branch}?urlpath=lab/tree/{where}"
        assert binder in addresses
        assert f"{launch['colab_url']}/github/{repository}/blob/{branch}/{where}" in addresses


def test_the_pages_take_scripts_styles_and_pictures_from_their_own_folder(pages):
    loading = {"script": "src", "img": "src", "iframe": "src", "source": "src"}
    for page in pages.values():
        for element in page.elements:
            key = loading.get(element.tag)
            if element.tag == "link" and element.attributes.get("rel") in ("stylesheet", "preload"):
                key = "href"
            assert not urlsplit(element.attributes.get(key or "", "")).netloc, page.name


def test_the_fonts_of_the_style_sheet_are_beside_it(pages):
    sheet = SITE / "_static" / "book.css"
    fonts = re.findall(r"url\(([^)]+)\)", sheet.read_text(encoding="utf-8"))
    assert len(fonts) >= 4
    assert [font for font in fonts if not (sheet.parent / font).is_file()] == []
