"""``backbone init``: what is written, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from ops.cli import cli
from ops.init.project import project_files, project_name, write_project
from ops.project_file import read_file
from schemas.errors import InputError
from tests.ops.projects import TestProject


def init(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["init", *arguments])


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_new_project_passes_all_its_checks_and_says_what_to_type_next(tmp_path: Path) -> None:
    result = init(str(tmp_path / "Web Shop"))
    assert result.exit_code == 0, result.output
    assert "backbone local up" in result.stdout
    assert names(tmp_path / "Web Shop") == {
        ".github/workflows/check.yml", ".gitignore", "README.md", "backbone.toml", "events/shop/OrderPlaced.avsc",
        "subscriptions/order-alerts.yaml",
    }  # fmt: skip
    project = TestProject(tmp_path / "Web Shop", "")
    assert read_file(project.folder / "backbone.toml").project.name == "web-shop"
    assert project.document("schema", "check")["data"] == []
    assert project.document("subscription", "check")["data"] == []
    assert {test["result"] for test in project.document("subscription", "test")["data"]} == {"passed"}
    assert project.run("schema", "generate").exit_code == 0
    assert (project.folder / "models" / "shop.py").is_file()
    assert project.run("schema", "generate", "--check").exit_code == 0


def test_a_project_of_a_registry_has_no_event_of_its_own(tmp_path: Path) -> None:
    assert init(str(tmp_path / "crm"), "--schemas", "registry", "--name", "acme-crm").exit_code == 0
    assert names(tmp_path / "crm") == {
        ".github/workflows/check.yml", ".gitignore", "README.md", "backbone.toml", "subscriptions/.gitkeep"
    }  # fmt: skip
    found = read_file(tmp_path / "crm" / "backbone.toml").project
    assert (found.name, found.schemas) == ("acme-crm", "registry")


@pytest.mark.parametrize("variant", ["own", "registry"])
def test_what_stands_in_comments_to_be_filled_in_is_right(tmp_path: Path, variant: str) -> None:
    text = project_files("acme", variant)[Path("backbone.toml")]  # type: ignore[index,arg-type]
    begin = text.index("# [contexts.")
    filled = text[:begin] + "\n".join(line.removeprefix("# ") for line in text[begin:].splitlines())
    (tmp_path / "backbone.toml").write_text(filled)
    assert set(read_file(tmp_path / "backbone.toml").contexts) == {"local", "prod" if variant == "own" else "company"}


@pytest.mark.parametrize("variant", ["own", "registry"])
def test_the_workflow_is_one_and_no_template_word_is_left(variant: str) -> None:
    files = project_files("acme", variant)  # type: ignore[arg-type]
    assert "check" in yaml.safe_load(files[Path(".github/workflows/check.yml")])["jobs"]
    assert not [path for path, text in files.items() if "@name@" in text or path.name.startswith("dot-")]


def test_a_folder_that_holds_something_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    result = init(str(tmp_path), "--name", "acme")
    assert result.exit_code == 6
    assert "is not empty (mine.txt is there)" in result.stderr
    assert names(tmp_path) == {"mine.txt"}


def test_an_empty_folder_or_a_new_repository_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a" / ".git").mkdir(parents=True)
    assert init(str(tmp_path / "a")).exit_code == 0
    (tmp_path / "b").mkdir()
    assert init(str(tmp_path / "b")).exit_code == 0


def test_a_file_in_its_place_is_said(tmp_path: Path) -> None:
    (tmp_path / "acme").write_text("")
    result = init(str(tmp_path / "acme"))
    assert result.exit_code == 2
    assert "is a file: name a folder" in result.stderr


@pytest.mark.parametrize("name", ["", "Acme", "1x", "a b", "a" * 61, "../x"])
def test_a_wrong_name_is_one_sentence(tmp_path: Path, name: str) -> None:
    result = init(str(tmp_path / "acme"), "--name", name)
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: --name: ")
    assert not (tmp_path / "acme").exists()


def test_a_folder_whose_name_gives_none_asks_for_one(tmp_path: Path) -> None:
    result = init(str(tmp_path / "2026"))
    assert result.exit_code == 2
    assert "give --name NAME" in result.stderr


def test_a_folder_that_cannot_be_made_is_one_sentence() -> None:
    result = init("/proc/acme")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: The folder /proc/acme cannot be written: ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_one_sentence(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    result = init(str(tmp_path / "acme"))
    assert result.exit_code == 4
    assert "Traceback" not in result.output


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    files = {Path("a"): "x", Path("b/c"): "y", Path("a/d"): "a file is no folder"}
    with pytest.raises(OSError, match="a"):
        write_project(tmp_path, files)
    assert names(tmp_path) == set()


@given(st.text(max_size=70))
def test_any_folder_is_a_project_name_or_a_sentence(text: str) -> None:
    try:
        name = project_name(Path("/x") / text.replace("/", " ").replace("\0", ""), None)
    except InputError as error:
        said = str(error)
    else:
        assert name[0].isalpha()
        return
    assert "give --name" in said
