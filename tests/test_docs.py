"""What the README and the reference say is so: commands, options, metrics, tests, links and numbers."""

from __future__ import annotations

import ast
import io
import re
import shlex
import subprocess
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

from ops import docs
from ops.cli import SECTIONS, cli
from ops.demo.table import Row, judge, render
from ops.publishing import check_line, read_lines
from ops.watch.metrics import METRICS, MONITOR_METRICS
from schemas.codec import Encoder
from schemas.contract import load_contracts
from schemas.errors import InputError
from schemas.registry import open_registry
from tests.conftest import ROOT

README = docs.README.read_text(encoding="utf-8")
REFERENCE = docs.REFERENCE.read_text(encoding="utf-8")
COMMANDS = {" ".join(("backbone", *words)): command for words, command, _ in docs.commands()}


@cache
def fences(language: str) -> list[str]:
    """The README's code blocks of that language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def typed_commands() -> list[str]:
    """Every command that the README shows: after a ``$`` in a transcript, or whole in backquotes."""
    transcripts = [line[2:] for block in fences("console") for line in block.splitlines() if line.startswith("$ ")]
    prose = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
    return [
        " ".join(text.split())
        for text in (*transcripts, *re.findall(r"`([^`]+)`", prose))
        if text.startswith("backbone ")
    ]


# ---- what is generated -------------------------------------------------------------------------------------------


def test_generated_blocks_and_the_reference_are_current() -> None:
    for path, text in docs.generated().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is not current: python -m ops.docs"


def test_a_block_whose_markers_are_gone_is_one_sentence() -> None:
    with pytest.raises(InputError, match="no block 'settle table'"):
        docs.with_blocks("# nothing here")


def test_check_writes_nothing_and_exits_3_when_something_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme, reference, rules = (tmp_path / name for name in ("README.md", "REFERENCE.md", "RULES.md"))
    readme.write_text(README.replace("| Delivered |", "| Delivred |"))
    monkeypatch.setattr(docs, "ROOT", tmp_path)
    monkeypatch.setattr(docs, "README", readme)
    monkeypatch.setattr(docs, "REFERENCE", reference)
    monkeypatch.setattr(docs, "RULES", rules)
    before = readme.read_text()
    asked = CliRunner().invoke(docs.main, ["--check"])
    assert (asked.exit_code, readme.read_text(), reference.exists()) == (3, before, False)
    assert "README.md is not current" in asked.output
    assert CliRunner().invoke(docs.main, []).exit_code == 0
    assert CliRunner().invoke(docs.main, ["--check"]).exit_code == 0
    assert readme.read_text() == README


def test_every_setting_says_what_it_is_for() -> None:
    for block in ("project file", "connectors", "environment", "metrics"):
        for line in docs.blocks()[block].splitlines():
            assert all(cell.strip() for cell in line.strip("|").split(" | ")), f"{block}: {line}"


def test_every_variable_that_ops_reads_is_told() -> None:
    for name in ("settings.py", "cli.py"):
        for variable in re.findall(r"\"(BACKBONE_[A-Z_]+)\"", (ROOT / "ops" / name).read_text(encoding="utf-8")):
            assert f"`{variable}`" in README


# ---- commands ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_has_help_and_stands_in_the_reference(name: str) -> None:
    command = COMMANDS[name]
    assert command.help, f"{name} says nothing about itself"
    assert f"\n## {name}\n" in REFERENCE
    section = REFERENCE.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    for one in command.params:
        if not isinstance(one, click.Option) or one.hidden:
            continue
        assert one.help, f"{name} {one.opts[-1]} says nothing about itself"
        assert one.opts[-1] in (REFERENCE if one.name in docs.SCREEN_OPTIONS else section)


def test_every_command_has_the_options_of_every_command() -> None:
    for name, command in COMMANDS.items():
        has = {one.name for one in command.params}
        assert not docs.SCREEN_OPTIONS - has or name == "backbone completion", name


def test_every_command_of_the_table_is_there_and_its_summary_is_a_sentence() -> None:
    for entries in SECTIONS.values():
        for name, entry in entries.items():
            assert any(words.split()[1] == name for words in COMMANDS), name
            assert entry.summary.endswith("."), name


def test_the_readme_shows_commands() -> None:
    assert len(typed_commands()) > 20


@pytest.mark.parametrize("line", sorted(set(typed_commands())))
def test_every_command_in_the_readme_is_one(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    while words and words[0] in ("-c", "--context"):
        del words[:2]
    if not words or words in (["COMMAND"], ["--help"]):
        return
    command: click.Command = cli
    context = click.Context(cli, info_name="backbone", obj=None, **cli.context_settings)
    while isinstance(command, click.Group):
        found = command.get_command(context, words[0])
        assert found is not None, f"there is no command {words[0]}"
        command, words = found, words[1:]
        context = click.Context(command, info_name=command.name, parent=context, resilient_parsing=True)
    values, left, _ = command.make_parser(context).parse_args(list(words))
    assert not left, f"{left} is too much"
    for one in command.params:
        given = values.get(one.name or "")
        if isinstance(given, str) and not given.isupper():  # a word in capitals stands for something
            one.type_cast_value(context, given)
        elif one.required and isinstance(one, click.Option) and len(words) > 0:
            assert given is not None, f"{one.opts[0]} is missing"


def test_events_that_are_published_by_hand_fit_their_contract() -> None:
    """The demo once printed an example that was refused: a field had been forgotten."""
    contracts = load_contracts(ROOT / "schemas" / "events")
    demo = ast.parse((ROOT / "ops" / "demo" / "demo.py").read_text(encoding="utf-8"))
    texts = [node.value for node in ast.walk(demo) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    found = re.findall(r"backbone event publish (\S+) --data '(.*?)'", README + "".join(texts))
    assert found
    for name, data in found:
        contract = contracts[name]
        registry = open_registry(f"memory://docs-{uuid.uuid4().hex}")
        registry.register(contract.subject, contract.text)
        for line in read_lines(io.BytesIO(data.encode()), contract):
            check_line(Encoder(registry), contract, line)


# ---- what else is named ------------------------------------------------------------------------------------------


def test_every_metric_that_is_named_exists() -> None:
    known = {metric.name for metric in (*METRICS, *MONITOR_METRICS)} | {"backbone_id"}
    for text in (README, REFERENCE):
        for name in re.findall(r"`(backbone_[a-z_]+)`", text):
            assert name in known, name


def test_every_guarantee_stands_in_the_readme_with_the_tests_that_show_it() -> None:
    table = README.partition("## Guarantees and limits")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines() if "| **" in line]
    assert [row[0] for row in rows] == [*(f"G{number}" for number in range(1, 14)), "–"]
    for number, guarantee, limits, shown_by in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", shown_by)
        assert named or limits.startswith("Not there yet"), f"nothing shows {number} {guarantee[:40]}"
        for file, test in named:
            assert test in functions(file), f"{file} has no {test}"


@cache
def functions(file: str) -> frozenset[str]:
    """The names of the functions in a file of this repository."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("document", ["README.md", "CHANGELOG.md", "ops/REFERENCE.md", "ops/RULES.md"])
def test_relative_links_lead_somewhere(document: str) -> None:
    path = ROOT / document
    text = path.read_text(encoding="utf-8")
    headings = {_anchor(line) for line in text.splitlines() if line.startswith("#")}
    for link in re.findall(r"\]\(([^)]+)\)", text):
        target, _, anchor = link.partition("#")
        if "://" in link:
            continue
        assert (path.parent / target).exists(), link
        if anchor and not target:
            assert anchor in headings, link
        elif anchor:
            other = (path.parent / target).read_text(encoding="utf-8")
            assert anchor in {_anchor(line) for line in other.splitlines() if line.startswith("#")}, link


def _anchor(heading: str) -> str:
    words = re.sub(r"[^\w\s-]", "", heading.lstrip("#").strip().lower())
    return re.sub(r"\s", "-", words)


def test_files_and_folders_that_the_readme_names_exist() -> None:
    prose = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
    for name in re.findall(r"`((?:schemas|producers|consumers|connectors|ops|tests)/[\w./-]*)`", prose):
        assert (ROOT / name).exists(), name


def test_the_subscription_in_the_readme_is_right_and_its_test_passes(tmp_path: Path) -> None:
    (block,) = fences("yaml")
    place = block.splitlines()[0].removeprefix("# ")
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).write_text(block)
    (tmp_path / "schemas").symlink_to(ROOT / "schemas")
    (tmp_path / "backbone.toml").write_text((ROOT / "backbone.toml").read_text())
    assert yaml.safe_load(block)["connection"] in (ROOT / "backbone.toml").read_text()
    for verb in ("check", "test"):
        asked = CliRunner(env={"BACKBONE_PROJECT": str(tmp_path)}).invoke(cli, ["subscription", verb, Path(place).stem])
        assert asked.exit_code == 0, asked.output
        said = [line.rstrip() for line in asked.output.splitlines()]
        assert all(line in README for line in said), said


def test_the_demos_table_in_the_readme_is_one_the_demo_would_print_and_call_right() -> None:
    transcript = next(block for block in fences("console") if block.startswith("$ make demo\n"))
    found = re.findall(
        r"^(\S+) +(HubSpot|Slack|SQLite) +([\d,]+) +([\d,]+) +(-|[\d,]+) +(\d+) +(\d+) +(\d+) +(\d+)$",
        transcript,
        re.MULTILINE,
    )
    assert [row[0] for row in found] == ["crm-contacts", "billing-alerts", "warehouse", "finance-feed"]
    rows = []
    for name, vendor, *cells in found:
        expected, applied, duplicates, dead, lag, _, differing = (
            None if cell == "-" else int(cell.replace(",", "")) for cell in cells
        )
        assert expected is not None
        assert applied is not None
        rows.append(Row(name, vendor, expected, applied, duplicates, dead or 0, lag, differing or 0))
    assert judge(2000, 2000, rows) == []
    assert render(2000, rows) in transcript


def test_what_the_demo_says_on_its_way_is_what_the_readme_shows() -> None:
    tree = ast.parse((ROOT / "ops" / "demo" / "demo.py").read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    patterns = [_pattern(call.args[0]) for call in calls if ast.unparse(call.func) == "self._say"]
    transcript = next(block for block in fences("console") if block.startswith("$ make demo\n"))
    shown = re.findall(r"^ *\d+\.\d s  (.+)$", transcript, re.MULTILINE)
    assert len(shown) > 10
    for line in shown:
        assert any(re.fullmatch(pattern, line) for pattern in patterns), line


def _pattern(node: ast.expr) -> str:
    """The text that a call is given as a pattern: what is filled in matches anything."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    return "".join(
        re.escape(part.value) if isinstance(part, ast.Constant) and isinstance(part.value, str) else ".+"
        for part in parts
    )


# ---- what must not stand in any file -----------------------------------------------------------------------------


def committed() -> Iterator[tuple[Path, str]]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if not path.is_file():
            continue
        try:
            yield path, path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


HOSTS = "|".join(
    ("pypi" r"\.org", "pythonhosted" r"\.org", "repo1?" r"\.maven", "registry" r"\.npmjs", "docker" r"\.io/")
)
MACHINE = "|".join(rf"(?<![\w.$}}/])/{folder}/" for folder in ("work", "root", "home/[a-z]"))
SECRETS = "|".join((
    "-----BEGIN [A-Z ]*PRIVATE" " KEY-----", r"\bxox[abp]-\d{6,}-", r"\bpat-(na|eu)\d-[0-9a-f]{8}-", r"\bghp_\w{30,}",
    r"\bAKIA[0-9A-Z]{16}\b",
))  # fmt: skip


def test_no_file_names_a_registry_of_packages_a_machine_or_a_secret() -> None:
    found = []
    for path, text in committed():
        for kind, pattern in (("package host", HOSTS), ("machine path", MACHINE), ("secret", SECRETS)):
            if kind == "machine path" and path.name == "docker-compose.yml":
                continue  # the paths are the containers'
            for match in re.finditer(pattern, text):
                line = text.count("\n", 0, match.start()) + 1
                found.append(f"{path.relative_to(ROOT)}:{line}: {kind}")
    assert not found, "\n".join(found)
