"""``backbone catalog export html``: its files, what it escapes, what it overwrites and what it leaves alone."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ops.catalog.site import path_of
from tests.ops.projects import TestProject, make_project

HOSTILE = "<script>alert(1)</script> \"' & </title><img src=x onerror=alert(2)> {{ 7*7 }} ]]>"
VOID = {"meta", "link", "input", "br", "wbr", "rect", "path", "img"}


@pytest.fixture
def project(tmp_path: Path) -> TestProject:
    folder = tmp_path / "project"
    folder.mkdir()
    return make_project(folder, "s")


def exported(project: TestProject, out: Path) -> dict[str, str]:
    result = project.run("catalog", "export", "html", "--files", "--out", str(out))
    assert result.exit_code == 0, result.output
    return {str(path.relative_to(out)): path.read_text() for path in sorted(out.rglob("*")) if path.is_file()}


class Checked(HTMLParser):
    """What a page is made of; it must nest rightly."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def checked(text: str) -> Checked:
    page = Checked()
    page.feed(text)
    page.close()
    assert page.open == []
    return page


def test_every_thing_has_its_page_and_every_link_leads_somewhere(project: TestProject, tmp_path: Path) -> None:
    files = exported(project, tmp_path / "site")
    events = {"events/accounts.UserSignedUp.html", "events/backbone.DeliverySettled.html"}
    assert events | {"subscriptions/s-rows.html", "connections/rows.html"} <= set(files)
    assert {"index.html", "lineage.html", "personal-data.html"} <= set(files)
    pages = {name: checked(text) for name, text in files.items() if name.endswith(".html")}
    anchors = {name: {str(attrs["id"]) for _, attrs in page.tags if "id" in attrs} for name, page in pages.items()}
    for name, page in pages.items():
        for tag, attrs in page.tags:
            link = attrs.get("href") or attrs.get("src")
            if link is None:
                continue
            assert not link.startswith(("http:", "//", "/")), f"{name}: {link}"
            if link.startswith("https:"):
                assert tag == "a"
                continue
            target, _, anchor = link.partition("#")
            path = str((Path("/") / Path(name).parent / target).resolve())[1:] if target else name
            assert path in files, f"{name} links to {link}"
            assert not anchor or anchor in anchors[path], f"{name} links to {link}"


def test_of_many_events_the_overview_draws_the_domains(project: TestProject, tmp_path: Path) -> None:
    source = json.loads((project.folder / "schemas/events/accounts/UserErased.avsc").read_text())
    for number in range(70):
        schema = source | {"namespace": f"many{number % 3}", "name": f"Thing{number}Changed"}
        path = project.folder / "schemas/events" / schema["namespace"] / f"{schema['name']}.avsc"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(schema))
    project.write_subscription('["accounts.*", "many0.*", "many1.*", "many2.*"]')
    files = exported(project, tmp_path / "site")
    drawn = files["lineage.html"].partition("<svg")[2].partition("</svg>")[0]
    assert "Thing1Changed" not in drawn
    assert 'href="index.html#domain-many1"' in drawn
    assert drawn.count("<path") == 4 + 1
    assert "many1.Thing1Changed" in files["lineage.html"]
    assert len([name for name in files if name.startswith("events/")]) == 70 + 7 + 3


def test_the_same_project_gives_the_same_files(project: TestProject, tmp_path: Path) -> None:
    assert exported(project, tmp_path / "one") == exported(project, tmp_path / "two")


def test_pages_are_named_by_characters_that_every_file_system_has() -> None:
    assert path_of("connection", "a b/../ü") == "connections/a~20b~2f..~2f~fc.html"
    assert path_of("event", "billing.InvoiceCreated") == "events/billing.InvoiceCreated.html"


def test_hostile_words_in_contracts_and_subscriptions_stay_words(project: TestProject, tmp_path: Path) -> None:
    path = project.folder / "schemas/events/accounts/UserErased.avsc"
    schema = json.loads(path.read_text())
    schema["doc"] = schema["fields"][0]["doc"] = HOSTILE
    schema["fields"][0]["examples"] = [HOSTILE]
    schema["backbone"] |= {"owner": HOSTILE, "contact": HOSTILE}
    path.write_text(json.dumps(schema))
    file = project.folder / "consumers/subscriptions/s-rows.yaml"
    file.write_text(file.read_text().replace("Every event as a row.", json.dumps(HOSTILE)))
    files = exported(project, tmp_path / "site")
    for name, text in files.items():
        assert "\u2028" not in text
        if not name.endswith(".html"):
            continue
        page = checked(text)
        scripts = [attrs for tag, attrs in page.tags if tag == "script"]
        assert [re.sub(r"^(\.\./)?", "", str(attrs.get("src"))) for attrs in scripts] == ["theme.js", "catalogue.js"]
        assert not any(tag in ("img", "style") for tag, _ in page.tags)
        assert not any(key.startswith("on") or key == "style" for _, attrs in page.tags for key in attrs)
    assert HOSTILE in "".join(checked(files["events/accounts.UserErased.html"]).text)
    assert "49" not in "".join(checked(files["subscriptions/s-rows.html"]).text)
    index = files["search-index.js"].removeprefix("self.catalogueIndex = ").removesuffix(";\n")
    assert HOSTILE in {doc for _, _, doc, _, _ in json.loads(index)}


def test_a_policy_lets_run_only_the_folders_own_scripts(project: TestProject, tmp_path: Path) -> None:
    for name, text in exported(project, tmp_path / "site").items():
        if name.endswith(".html"):
            policy = next(
                str(attrs["content"])
                for tag, attrs in checked(text).tags
                if tag == "meta" and attrs.get("http-equiv") == "Content-Security-Policy"
            )
            assert policy.startswith("default-src 'none';")
            assert "unsafe" not in policy


def test_a_second_export_removes_the_pages_of_what_is_gone(project: TestProject, tmp_path: Path) -> None:
    out = tmp_path / "site"
    exported(project, out)
    (out / "notes.txt").write_text("mine")
    (project.folder / "consumers/subscriptions/s-rows.yaml").unlink()
    files = exported(project, out)
    assert "subscriptions/s-rows.html" not in files
    assert files["notes.txt"] == "mine"


@pytest.mark.parametrize("listing", [None, "{", '{"format": "other", "files": []}', "[]"])
def test_a_folder_that_holds_anything_else_is_refused_and_left_as_it_is(
    project: TestProject, tmp_path: Path, listing: str | None
) -> None:
    out = tmp_path / "site"
    out.mkdir()
    (out / "index.html").write_text("mine")
    if listing is not None:
        (out / "catalogue-files.json").write_text(listing)
    result = project.run("catalog", "export", "html", "--files", "--out", str(out))
    assert result.exit_code == 6
    assert "name a new or an empty folder" in result.stderr
    assert (out / "index.html").read_text() == "mine"


def test_a_listing_that_names_other_places_removes_nothing_there(project: TestProject, tmp_path: Path) -> None:
    out = tmp_path / "site"
    exported(project, out)
    precious = tmp_path / "precious.txt"
    precious.write_text("mine")
    listing = out / "catalogue-files.json"
    content = json.loads(listing.read_text())
    listing.write_text(json.dumps(content | {"files": ["../precious.txt", str(precious), *content["files"]]}))
    exported(project, out)
    assert precious.read_text() == "mine"


def test_a_place_that_is_no_folder_is_one_sentence(project: TestProject, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    result = project.run("catalog", "export", "html", "--files", "--out", str(file))
    assert result.exit_code == 6
    result = project.run("catalog", "export", "html", "--files", "--out", str(file / "below"))
    assert result.exit_code == 5
    assert file.read_text() == "mine"
    assert project.run("catalog", "export", "html").exit_code == 2
