"""What the README and the reference say of the code, written from the code: ``python -m ops.docs [--check]``.

Generated are the blocks of README.md between ``<!-- generated: NAME -->`` and ``<!-- end of NAME -->``, and the whole
of ops/REFERENCE.md, ops/RULES.md, ops/ACLS.md and ops/OUTPUTS.md. ``generated()`` is pure but for reading the README
and the schemas in ops/outputs, and importing the commands.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from schemas.errors import InputError

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
REFERENCE = ROOT / "ops" / "REFERENCE.md"
RULES = ROOT / "ops" / "RULES.md"
ACLS = ROOT / "ops" / "ACLS.md"
OUTPUTS = ROOT / "ops" / "OUTPUTS.md"
OUTPUT_SCHEMAS = ROOT / "ops" / "outputs"
"""The schemas of JSON documents; every document that a test prints is held to its own (``tests/outputs.py``)."""
FAULTS = ROOT / "tests" / "faults" / "RESULTS.json"
"""Written by ``make faults``."""
WIDTH = 100

OWN_VARIABLES = (
    ("BACKBONE_PROJECT", "Folder or file of the project; default: `backbone.toml` here or above."),
    ("BACKBONE_CONTEXT", "The context to talk to, as `-c` does; default: `local`."),
    ("BACKBONE_AUTHOR", "Who changes something, for the audit; default: the login name."),
    ("BACKBONE_DEBUG", "`1`: show tracebacks of unexpected errors."),
    (
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "Where spans are sent by OTLP over HTTP (`http://tempo:4318`), with the extra `opentelemetry` installed; the "
        "SDK reads its other variables (`OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER`, …) too. Default: no spans.",
    ),
)
"""What ``ops`` reads of the environment; what services read comes from ``producers.settings``."""

SCREEN_OPTIONS = frozenset({"output", "fields", "sort", "quiet", "verbose", "no_input", "context"})


def generated() -> dict[Path, str]:
    """Every generated file with its content as it must be. Raises InputError when a block's markers are missing."""
    readme = with_blocks(README.read_text(encoding="utf-8"))
    return {README: readme, REFERENCE: reference(), RULES: rules(), ACLS: acls(), OUTPUTS: outputs()}


def with_blocks(text: str) -> str:
    """The README with every generated block as it must be."""
    for name, content in blocks().items():
        begin, end = f"<!-- generated: {name} -->", f"<!-- end of {name} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise InputError(f"README.md has no block '{name}': {begin} and {end} must stand there once each.")
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = f"{before}{begin}\n{content}\n{end}{after}"
    return text


def blocks() -> dict[str, str]:
    """The generated blocks of the README by name, as Markdown."""
    return {
        "settle table": settle_table(),
        "project file": project_file(),
        "connectors": connectors(),
        "environment": environment(),
        "metrics": metrics(),
        "reliability": reliability(),
    }


# ---- blocks ---------------------------------------------------------------------------------------------------


def settle_table() -> str:
    """The table in the docstring of ``connectors/connector.py``."""
    import connectors.connector as door

    lines = (door.__doc__ or "").splitlines()
    rules = [number for number, line in enumerate(lines) if line.startswith("====")]
    starts = [match.start() for match in re.finditer(r"=+", lines[rules[0]])]
    rows = [_columns(line, starts) for line in lines[rules[0] + 1 : rules[2]] if not line.startswith("====")]
    return _table(rows[0], rows[1:])


def project_file() -> str:
    """The keys of backbone.toml."""
    from ops.project_file import ConnectionTable, ContextTable, ProjectTable

    rows = [
        *_keys("project", ProjectTable),
        *_keys("connections.NAME", ConnectionTable),
        *_keys("contexts.NAME", ContextTable),
    ]
    return _table(["key", "default", "meaning"], rows)


def connectors() -> str:
    """The settings of each connector that is part of this project."""
    from connectors.hubspot import CONNECTOR as HUBSPOT
    from connectors.slack import CONNECTOR as SLACK
    from connectors.sql import CONNECTOR as SQL
    from ops.settings import secret_fields

    rows = []
    for kind in (HUBSPOT, SLACK, SQL):
        secrets = secret_fields(kind.settings)
        for name, field in kind.settings.model_fields.items():
            meaning = f"{field.description} A reference." if name in secrets else field.description
            rows.append([kind.name, f"`{name}`", _default(field), meaning or ""])
    return _table(["connector", "key", "default", "meaning"], rows)


def environment() -> str:
    """The variables that services and the command line read."""
    from producers.settings import PublisherSettings, RegistrySettings

    rows = [
        ["services", "`BACKBONE_KAFKA__BOOTSTRAP_SERVERS`", "host:port of one or more brokers. Needed."],
        ["services", "`BACKBONE_KAFKA__…`", "Any other setting of librdkafka: `SASL_PASSWORD` is `sasl.password`."],
    ]
    for name, field in RegistrySettings.model_fields.items():
        needed = " Needed." if field.is_required() else ""
        rows.append(["services", f"`BACKBONE_REGISTRY__{name.upper()}`", f"{field.description}{needed}"])
    plaintext = PublisherSettings.model_fields["allow_plaintext"].description or ""
    rows.append(["services", "`BACKBONE_ALLOW_PLAINTEXT`", plaintext])
    rows += [["`backbone`", f"`{name}`", meaning] for name, meaning in OWN_VARIABLES]
    return _table(["read by", "variable", "meaning"], rows)


def metrics() -> str:
    """The metrics of a worker and those of the monitor."""
    from ops.watch.metrics import METRICS, MONITOR_METRICS

    rows = [
        [whose, f"`{metric.name}`", metric.kind, ", ".join(metric.labels) or "–", metric.meaning]
        for whose, metrics in (("worker", METRICS), ("monitor", MONITOR_METRICS))
        for metric in metrics
    ]
    return _table(["of", "metric", "kind", "labels", "meaning"], rows)


def reliability() -> str:
    """The last whole run of ``make faults``, as it wrote it down: also what did not hold and what did not run."""
    if not FAULTS.is_file():
        return "No whole run is recorded here yet."
    result = json.loads(FAULTS.read_text(encoding="utf-8"))
    words = {"holds": "held", "broken": "BROKEN", "not run": "not run"}
    counts = Counter(words[row["verdict"]] for row in result["rows"])
    said = f"{result['at']}, commit `{result['commit']}`, seed {result['seed']}, {result['seconds']} s"
    summary = ", ".join(f"{counts[word]} {word}" for word in words.values() if counts[word])
    rows = []
    for row in result["rows"]:
        verdict = words[row["verdict"]]
        if row["verdict"] != "holds":
            verdict += f": {row['broken'][0]}"
        numbers = [f"{row[name]:,}" if row["events"] else "–" for name in ("events", "duplicates", "letters")]
        rows.append([row["subject"], row["fault"], row["expected"], *numbers, verdict])
    head = ["of", "what was done", "what must happen", "events", "again", "dead", "verdict"]
    return f"{said} on {result['machine']}, load {result['load']:g}: {summary}.\n\n{_table(head, rows)}"


# ---- reference ------------------------------------------------------------------------------------------------


def reference() -> str:
    """Every command with its help, and once for all what every command has: options and exit codes."""
    import ops.cli

    codes = re.search(r"Exit codes: (.*?)\.\n", f"{ops.cli.__doc__}\n", re.DOTALL)
    assert codes is not None, "ops/cli.py names the exit codes in its docstring"
    meanings = [part.strip().partition(" ") for part in " ".join(codes[1].split()).split("·")]
    found = list(commands())
    screen = next(command for _, command, _ in found if _screen_options(command))
    parts = [
        "# Reference of the command line",
        "Generated by `python -m ops.docs` from the commands themselves; do not edit.",
        "`backbone --help`, `backbone COMMAND --help` and `backbone GROUP COMMAND --help` say the same on the screen.",
        "## Commands",
        "\n".join(f"- [`{_name(path)}`](#{_anchor(path)}): {_summary(command)}" for path, command, _ in found),
        "## Options of every command",
        _block(_options(screen, _screen_options(screen))),
        "Data go to stdout; words, questions, progress and warnings to stderr. With `--output json` stdout is one "
        'document, also on an error: `{"schema", "context", "at", "data", "warnings"}` or `"error"`. What data '
        "holds: [OUTPUTS.md](OUTPUTS.md). Changes are planned first: they print an id and the line that does it, "
        "`backbone apply ID`; `--apply` does both in one.",
        "## Exit codes",
        _table(["code", "means"], [[code, meaning] for code, _, meaning in meanings]),
    ]
    for path, command, context in found:
        own = [one for one in command.params if one.name not in SCREEN_OPTIONS]
        help_text = "\n\n".join(filter(None, (_usage(command, context), _help(command), _options(command, own))))
        parts += [f"## {_name(path)}", _block(help_text)]
    return "\n\n".join(parts) + "\n"


# ---- rules ----------------------------------------------------------------------------------------------------


def rules() -> str:
    """Every rule with its anchor, by the kind of file it is about."""
    from ops.rules import GOOD_PROJECT, KINDS
    from schemas.rules import GOOD_CONTRACT

    parts = [
        "# Rules",
        "Generated by `python -m ops.docs` from the rules themselves; do not edit.",
        "Every finding ends with the id of its rule in square brackets. `backbone rule show ID` says the same as this "
        "page on the screen; `--output json` and `github` carry the id as `rule`.",
        "Examples are the shortest that are found. Where one is a part of a file, the rest is right: for contracts it "
        "is one field, or some attributes, of this event:",
        _fenced("json", GOOD_CONTRACT),
        "for subscriptions the other keys are there, and for backbone.toml this stands above:",
        _fenced("toml", GOOD_PROJECT),
    ]
    for kind in KINDS:
        parts += [f"## {kind.title}", f"Checked by `{kind.command}`."]
        parts.append("\n".join(f"- [{rule.id}](#{rule.id}): {rule.means}" for rule in kind.rules))
        for rule in kind.rules:
            warning = " A warning: the file is used all the same." if rule.severity == "warning" else ""
            seen = " Editors mark it while you write." if rule.in_editor else ""
            parts += [f"### {rule.id}", f"{rule.means} {rule.why}{warning}{seen}"]
            if rule.frame == "situation":
                parts += [f"Breaks it: {rule.breaks}", f"Mended: {rule.mend}"]
            else:
                parts += ["Breaks it:", _fenced(kind.language, rule.breaks)]
                parts += ["Mended:", _fenced(kind.language, rule.mend)]
    return "\n\n".join(parts) + "\n"


def _fenced(language: str, text: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```"


# ---- permissions ----------------------------------------------------------------------------------------------


def acls() -> str:
    """What each role needs of Kafka, for any topic and any subscription."""
    from ops.permissions import ROLES, permissions

    parts = [
        "# Permissions in Kafka",
        "Generated by `python -m ops.docs` from `ops/permissions.py`; do not edit.",
        "Each role is a user of its own with these permissions and no other. TOPIC stands for each topic that it "
        "publishes to or reads, NAME for each of its subscriptions. `backbone run` without a name is worker, ledger "
        "and monitor in one and needs what the three need. Of your project, with the names as they are: "
        "`backbone topic acls ROLE`, and as lines for Kafka's own tool "
        "`backbone topic acls ROLE --principal User:NAME`. What others own is theirs to permit: the dead letters of "
        "Kafka Connect or Spring (`deadletter list TOPIC`) want Read of that topic besides.",
    ]
    for role, meaning in ROLES.items():
        rows = [
            [one.resource, f"`{one.name}`", ", ".join(one.operations), one.why]
            for one in permissions(role, ["TOPIC"], {"NAME": ["TOPIC"]})
        ]
        parts += [f"## {role}", f"{meaning[:1].upper()}{meaning[1:]}.", _table(["on", "name", "may", "for"], rows)]
    return "\n\n".join(parts) + "\n"


# ---- JSON documents ------------------------------------------------------------------------------------------


def outputs() -> str:
    """What ``data`` of every JSON document holds, field by field, from the schemas in ops/outputs."""
    parts = [
        "# JSON documents",
        "Generated by `python -m ops.docs` from the JSON Schemas in `ops/outputs`; do not edit.",
        "`--output json` prints one document, `--output ndjson` one a line (of a list: one for each row): `schema` "
        "names what `data` is, `context` and `at` where and when (UTC) it was printed, `warnings` are sentences; "
        "`error` (`code`, the exit code, and `message`) is there where the command failed. Within `v1` fields are "
        "added and never taken away, renamed or given another type; so ignore what you do not know. A value that "
        "is not known, or that there is none of, is null. Times are UTC, ISO 8601; `_seconds` and `_s` are "
        "seconds.",
    ]
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(OUTPUT_SCHEMAS.glob("*.json"))]
    names = [one["$id"] for one in found]
    parts.append("\n".join(f"- [{name}](#{re.sub(r'[^a-z0-9_-]', '', name)}): {one['title']}"
                           for name, one in zip(names, found, strict=True)))  # fmt: skip
    for one in found:
        rows = list(_fields(one, ""))
        parts += [f"## {one['$id']}", f"Printed by {one['title']}."]
        parts.append(_table(["field", "type", "always there"], rows) if rows else "Of a form that others have written.")
    return "\n\n".join(parts) + "\n"


def _fields(schema: dict[str, Any], place: str) -> Iterator[list[str]]:
    """The fields of a schema and of what is below it: place, type, and whether it is always there."""
    if "items" in schema:
        yield from _fields(schema["items"], f"{place}[]")
    for name, one in schema.get("properties", {}).items():
        inner = f"{place}.{name}" if place else name
        yield [f"`{inner}`", _type(one), "yes" if name in schema.get("required", ()) else ""]
        yield from _fields(one, inner)


def _type(schema: dict[str, Any]) -> str:
    if schema.get("description") == "free":
        return "what it is about says"
    types = schema.get("type", [])
    words = [types] if isinstance(types, str) else [*sorted(one for one in types if one != "null")]
    if schema.get("additionalProperties"):
        words = ["object by name"]
    return " or ".join(words) or "any"


def commands() -> Iterator[tuple[tuple[str, ...], click.Command, click.Context]]:
    """Every command that does something, in the order of ``backbone --help``: its words, itself and its context."""
    from ops.cli import cli

    def walk(group: click.Group, context: click.Context, words: tuple[str, ...]) -> Iterator[Any]:
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            inner = click.Context(command, info_name=name, parent=context)
            if isinstance(command, click.Group):
                yield from walk(command, inner, (*words, name))
            else:
                yield (*words, name), command, inner

    root = click.Context(cli, info_name="backbone", help_option_names=["-h", "--help"])
    yield from walk(cli, root, ())


def _screen_options(command: click.Command) -> list[click.Parameter]:
    return [one for one in command.params if one.name in SCREEN_OPTIONS]


def _usage(command: click.Command, context: click.Context) -> str:
    pieces = " ".join(command.collect_usage_pieces(context))
    return f"{context.command_path} {pieces}".rstrip()


def _help(command: click.Command) -> str:
    formatter = click.HelpFormatter(width=WIDTH)
    command.format_help_text(click.Context(command), formatter)
    lines = formatter.getvalue().strip("\n").splitlines()
    return "\n".join(line.removeprefix("  ") for line in lines)


def _options(command: click.Command, options: Sequence[click.Parameter]) -> str:
    found = (one.get_help_record(click.Context(command)) for one in options)
    records = [record for record in found if record and record[1]]  # arguments stand in the usage
    if not records:
        return ""
    formatter = click.HelpFormatter(width=WIDTH)
    formatter.write_dl(records)
    return formatter.getvalue().rstrip("\n")


def _summary(command: click.Command) -> str:
    return command.get_short_help_str(limit=200)


def _name(path: Iterable[str]) -> str:
    return " ".join(("backbone", *path))


def _anchor(path: Iterable[str]) -> str:
    return "-".join(("backbone", *path))


# ---- Markdown -------------------------------------------------------------------------------------------------


def _keys(table: str, model: type[BaseModel]) -> list[list[str]]:
    from pydantic import BaseModel

    rows = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            rows += _keys(f"{table}.{name}", field.annotation)
        else:
            rows.append([f"`{table}.{name}`", _default(field), field.description or ""])
    return rows


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    default = field.get_default(call_default_factory=True)
    if default is None or default == {} or default == ():
        return "–"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _columns(line: str, starts: Sequence[int]) -> list[str]:
    ends = [*starts[1:], len(line) + 1]
    cells = (line[start:end].strip() for start, end in zip(starts, ends, strict=True))
    return [re.sub(r"``(.+?)``", r"`\1`", cell) for cell in cells]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _block(text: str) -> str:
    return f"```text\n{text}\n```"


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit 3 if a file is not current.")
def main(check: bool) -> None:
    """Write what is generated of README.md, ops/REFERENCE.md, ops/RULES.md, ops/ACLS.md and ops/OUTPUTS.md."""
    try:
        files = generated()
    except InputError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    stale = [path for path, text in files.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        name = path.relative_to(ROOT)
        if check:
            click.echo(f"{name} is not current. Do it: .venv/bin/python -m ops.docs", err=True)
        else:
            path.write_text(files[path], encoding="utf-8")
            click.echo(f"{name} written")
    sys.exit(3 if stale and check else 0)


if __name__ == "__main__":
    main()
