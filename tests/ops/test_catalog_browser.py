"""The catalogue's pages as a reader meets them: in a real Chromium, from disk, with keyboard, in both colours.

Pictures of what was looked at stay in ``.backbone/test-output/catalogue``.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.ops import browser
from tests.ops.browser import Page
from tests.ops.projects import TestProject, make_project

pytestmark = pytest.mark.skipif(browser.found() is None, reason="there is no Chromium: apt-get install chromium")

PICTURES = ROOT / ".backbone" / "test-output" / "catalogue"
PAGES = (
    "index.html",
    "lineage.html",
    "personal-data.html",
    "events/billing.InvoiceCreated.html",
    "subscriptions/crm-contacts.html",
    "connections/hubspot.html",
)


@pytest.fixture(scope="module")
def devtools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with browser.chromium(tmp_path_factory.mktemp("chromium")) as address:
        yield address


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The pages of this repository, as an address."""
    out = tmp_path_factory.mktemp("site") / "catalogue"
    done = TestProject(ROOT, "x").run("catalog", "export", "html", "--files", "--out", str(out))
    assert done.exit_code == 0, done.output
    return out.as_uri()


@pytest.fixture
async def page(devtools: str) -> AsyncIterator[Page]:
    async with browser.tab(devtools) as opened:
        await opened.look()
        yield opened
        assert opened.complaints == []
        foreign = [one for one in opened.requests if not one.startswith(("file:", "about:", "data:"))]
        assert foreign == []


SEEN = "[...document.querySelectorAll('#hits [role=option] .name')].map((one) => one.textContent)"


async def test_search_finds_by_keyboard_alone(page: Page, site: str) -> None:
    await page.open(f"{site}/index.html")
    await page.press("/")
    assert await page.run("document.activeElement.id") == "search"
    await page.press(*"invoicecr")
    await page.until(f"({SEEN})[0] === 'billing.InvoiceCreated'")
    assert "found" in await page.run("document.getElementById('found').textContent")
    state = await page.run("[...'expanded activedescendant'.split(' ')].map((n) => search_(n))".replace(
        "search_(n)", "document.getElementById('search').getAttribute('aria-' + n)"
    ))  # fmt: skip
    assert state == ["true", "hit-0"]
    await page.press("ArrowDown", "ArrowUp", "ArrowDown")
    assert await page.run("document.getElementById('search').getAttribute('aria-activedescendant')") == "hit-1"
    chosen = await page.run("document.querySelector('#hits [aria-selected=true] .name').textContent")
    await page.picture(PICTURES / "search.png", whole=False)
    await page.press("Enter")
    await page.until("location.pathname.endsWith('/events/billing.InvoiceCreated.html')")
    assert chosen.startswith("billing.InvoiceCreated.")


async def test_search_works_on_inner_pages_finds_roughly_and_says_when_there_is_nothing(page: Page, site: str) -> None:
    await page.open(f"{site}/subscriptions/crm-contacts.html")
    await page.press("/", *"hubspt")
    await page.until(f"({SEEN}).includes('hubspot')")
    await page.press("Escape")
    assert await page.run("document.getElementById('hits').hidden")
    await page.press(*"qqqqqq")
    await page.until("document.getElementById('found').textContent === 'Nothing found'")
    await page.press("Escape", *"tombstone")
    await page.until(f"({SEEN}).includes('accounts.UserErased')")


async def test_the_first_tab_skips_to_the_content(page: Page, site: str) -> None:
    await page.open(f"{site}/index.html")
    await page.press("Tab")
    assert await page.run("document.activeElement.className") == "skip"
    await page.press("Enter")
    await page.until("document.activeElement.id === 'content'")
    await page.press("Tab")
    inside = "document.getElementById('content').contains(document.activeElement)"
    assert await page.run(inside)
    assert await page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"


async def test_both_colours_are_drawn_and_the_readers_choice_stays(page: Page, site: str) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    found = {}
    for dark in (False, True):
        await page.look(dark=dark)
        await page.open(f"{site}/index.html")
        found[dark] = await page.run(ground)
    assert found[False] != found[True]
    assert await page.run("document.getElementById('theme').textContent") == "Light"
    await page.run("document.getElementById('theme').click()")
    assert await page.run(ground) == found[False]
    await page.open(f"{site}/lineage.html")
    assert await page.run(ground) == found[False]
    await page.run("localStorage.clear()")


async def test_the_lines_of_the_card_with_the_focus_stand_out(page: Page, site: str) -> None:
    await page.open(f"{site}/lineage.html")
    lit = "document.querySelectorAll('svg.graph path.lit').length"
    assert await page.run(lit) == 0
    await page.run("document.querySelector('.card.subscription a').focus()")
    name = await page.run("document.activeElement.textContent")
    cells = f"[...document.querySelectorAll('tbody tr')].filter((row) => row.cells[1].textContent === '{name}').length"
    await page.until(f"{lit} === {cells} + 1")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390], ids=["desktop", "phone"])
async def test_every_kind_of_page_is_readable(page: Page, site: str, width: int, dark: bool) -> None:
    """Named, in order, in contrast, within the screen; and a picture for people."""
    for name in PAGES:
        await page.look(width=width, height=900, dark=dark)
        await page.open(f"{site}/{name}")
        assert await page.run("document.documentElement.scrollWidth") <= width, name
        assert await page.run(OUTLINE) == [], name
        assert await page.run(UNNAMED) == [], name
        assert await page.run(FAINT) == [], name
        colours = "dark" if dark else "light"
        await page.picture(PICTURES / f"{Path(name).stem}-{width}-{colours}.png")


OUTLINE = """(() => {
  const found = [];
  let before = 0;
  for (const one of document.querySelectorAll("h1,h2,h3,h4")) {
    const level = Number(one.tagName[1]);
    if (level > before + 1) found.push(`${one.tagName} after h${before}: ${one.textContent}`);
    before = level;
  }
  if (document.querySelectorAll("h1").length !== 1) found.push("not one h1");
  for (const part of ["header", "main", "footer", "nav[aria-label]", "[role=search]"])
    if (document.querySelectorAll(part).length !== 1) found.push(`not one ${part}`);
  const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
  if (new Set(ids).size !== ids.length) found.push("an id stands twice");
  if (!document.documentElement.lang || !document.title) found.push("no language or title");
  return found;
})()"""
"""What is wrong with headings and landmarks."""

UNNAMED = """(() => {
  const named = (one) => one.getAttribute("aria-label") || one.textContent.trim() || (one.labels && one.labels.length)
    || (one.getAttribute("aria-labelledby") || "").split(" ").some((id) => id && document.getElementById(id));
  const found = [...document.querySelectorAll("a,button,input,svg,[role=region],[role=listbox],pre[tabindex]")]
    .filter((one) => !named(one)).map((one) => one.outerHTML.slice(0, 80));
  for (const one of document.querySelectorAll("svg"))
    if (!one.querySelector("title") || !one.querySelector("desc")) found.push("a drawing without title or description");
  for (const one of document.querySelectorAll("table"))
    if (!one.querySelector("thead th[scope=col]")) found.push("a table without heads");
  for (const one of document.querySelectorAll("[aria-labelledby],[aria-controls]"))
    for (const id of (one.getAttribute("aria-labelledby") || one.getAttribute("aria-controls")).split(" "))
      if (!document.getElementById(id)) found.push(`nothing is called ${id}`);
  return found;
})()"""
"""Controls and pictures without a name."""

FAINT = """(() => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", {
    willReadFrequently: true });
  const rgb = (colour, under) => {
    canvas.fillStyle = under; canvas.fillRect(0, 0, 1, 1);
    canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (parts) => {
    const [r, g, b] = parts.map((p) => (p /= 255) <= 0.04045 ? p / 12.92 : ((p + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (one) => {
    const layers = [];
    for (let at = one; at; at = at.parentElement) layers.unshift(getComputedStyle(at).backgroundColor);
    return layers.reduce((under, layer) => `rgb(${rgb(layer, under).join(",")})`, "rgb(255,255,255)");
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const one = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !one.getClientRects().length) continue;
    if (one.closest("title,desc,.unseen,script")) continue;
    const style = getComputedStyle(one);
    const drawn = one.closest("svg");
    const under = drawn
      ? getComputedStyle(one.closest("g").querySelector("rect")).fill : ground(one);
    const [a, b] = [light(rgb(drawn ? style.fill : style.color, under)), light(rgb(under, "rgb(255,255,255)"))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push(`${ratio.toFixed(2)}: ${one.textContent.trim().slice(0, 40)}`);
  }
  return [...new Set(found)];
})()"""
"""Text whose contrast is below that of WCAG 2 AA."""


BAD = """<!doctype html><html><title>x</title><body style="background: #fff"><h1>One</h1><h3>Three</h3>
<p style="color: #999">faint</p><a href="x"></a><svg><rect width="9" height="9"/></svg>
<table><tr><td>1</td></tr></table>
<p id="twice"></p><p id="twice"></p></body></html>"""


async def test_the_checks_find_what_is_wrong(devtools: str, tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text(BAD)
    async with browser.tab(devtools) as page:
        await page.open((tmp_path / "bad.html").as_uri())
        outline = " ".join(await page.run(OUTLINE))
        assert all(words in outline for words in ("H3 after h1: Three", "not one main", "an id stands twice"))
        unnamed = " ".join(await page.run(UNNAMED))
        assert all(words in unnamed for words in ("<a href", "<svg>", "without title", "a table without heads"))
        assert [one.rpartition(": ")[2] for one in await page.run(FAINT)] == ["faint"]


async def test_hostile_words_run_nothing(page: Page, tmp_path: Path) -> None:
    words = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"
    project = make_project(tmp_path, "h")
    path = project.folder / "schemas/events/accounts/UserErased.avsc"
    schema: dict[str, Any] = json.loads(path.read_text())
    schema["doc"] = words
    path.write_text(json.dumps(schema))
    out = tmp_path / "site"
    assert project.run("catalog", "export", "html", "--files", "--out", str(out)).exit_code == 0
    for name in ("index.html", "events/accounts.UserErased.html"):
        await page.open((out / name).as_uri())
        assert await page.run("typeof window.hacked") == "undefined"
        assert words in await page.run("document.body.textContent")
        await page.press("/", *"usererased")
        await page.until(f"({SEEN})[0] === 'accounts.UserErased'")
        assert await page.run("typeof window.hacked") == "undefined"


async def test_without_scripts_the_pages_are_whole(page: Page, site: str) -> None:
    await page.ask("Emulation.setScriptExecutionDisabled", value=True)
    await page.ask("Page.navigate", url=f"{site}/index.html")
    await page.until("document.querySelectorAll('main table').length > 2")
    assert await page.run("document.querySelector('[role=search]').hidden && document.getElementById('theme').hidden")
