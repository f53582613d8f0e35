"""What a person or a program sees: data on stdout, words on stderr; tables, JSON documents or JSON lines.

One ``Screen`` a process run. In JSON mode stdout holds exactly one document (NDJSON: one a line), also on error::

    {"schema": "backbone.lag/v1", "context": "prod", "at": "2026-05-01T12:00:00Z", "data": …, "warnings": []}

Within ``v1`` fields are only added. Outside the context ``local`` the first word of every human screen is the
context's name. rich is imported only when a table is drawn. Not thread-safe: the main thread writes.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import IO, Any, Literal, TypeAlias

from ops.progress import Progress
from ops.wording import duration, in_context, plain_json, printable, shown
from schemas.errors import CheckFailedError, InputError, RefusedError
from schemas.findings import Finding, did_you_mean

__all__ = [
    "Column", "Output", "OUTPUTS", "Row", "Screen", "duration", "interactive", "plain_json", "printable",
    "requested_output", "shown", "silence_stdout",
]  # fmt: skip

Output: TypeAlias = Literal["table", "json", "ndjson", "github"]
OUTPUTS: tuple[Output, ...] = ("table", "json", "ndjson")
_LONG_WORD = re.compile(r"\S{300,}")
"""What was typed may be anything: the sentence shows where it begins."""
_FOR_PEOPLE = ("table", "github")
Row: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: ``field`` of the row, its ``title`` (default: the field in capitals), and how its value
    is written for people (``show``; default: numbers with separators, None as ``-``, lists with commas).
    Numbers stand right by themselves."""

    field: str
    title: str = ""
    show: Callable[[Any], str] | None = None

    def heading(self) -> str:
        return self.title or self.field.replace("_", " ").upper()

    def text(self, row: Row) -> str:
        value = row.get(self.field)
        return printable(self.show(value) if self.show is not None and value is not None else shown(value))


@dataclass(slots=True)
class Screen:
    """Where a command writes. The options of ``ops.app.screen_options`` set the fields before the command runs."""

    output: Output = "table"
    fields: tuple[str, ...] = ()
    sort: tuple[str, ...] = ()
    quiet: bool = False
    verbose: bool = False
    no_input: bool = False
    context: str = "local"
    warnings: list[str] = field(default_factory=list)
    emitted: bool = False
    """whether a JSON document stands on stdout already"""
    _headed: bool = False

    # ---- data -------------------------------------------------------------------------------------------------

    def rows(
        self, schema: str, rows: Sequence[Row], columns: Sequence[Column], *, title: str = "", empty: str = ""
    ) -> None:
        """Show a list: a table, one document with a list, or a line for each row.

        ``schema`` is the noun (``lag`` becomes ``backbone.lag/v1``). ``--fields`` picks and orders columns,
        ``--sort a,-b`` orders rows. ``empty`` is said on stderr when there are none. Raises InputError for a field
        that no row has.
        """
        known = list(dict.fromkeys([*(c.field for c in columns), *(name for row in rows for name in row)]))
        wanted = self._wanted(known, strict=bool(rows))
        ordered = self._sorted(rows, known)
        if self.output not in _FOR_PEOPLE:
            picked = [{name: row.get(name) for name in wanted} if self.fields else dict(row) for row in ordered]
            if self.output == "json":
                self._document(schema, picked)
            else:
                for row in picked:
                    self._document(schema, row)
            return
        self._head(title)
        if not rows:
            self.say(empty or "Nothing to show.")
            return
        by_field = {column.field: column for column in columns}
        chosen = [by_field.get(name, Column(name)) for name in wanted] if self.fields else list(columns)
        self._draw(self.table(ordered, chosen))

    def stream(
        self, schema: str, rows: Iterable[Row], columns: Sequence[Column], *, line: Callable[[Row], str] | None = None
    ) -> int:
        """Show rows as they come, flushed one by one (JSON mode: one document at the end); how many there were.

        ``line`` writes a row for people; default: the columns' values with two spaces between. Ctrl-C passes
        through, in JSON mode after the document of what came so far.
        """
        collected: list[Row] = []
        count = 0
        wanted: list[str] = []
        try:
            for row in rows:
                count += 1
                if self.fields and not wanted:
                    wanted = self._wanted(list(dict.fromkeys([*(c.field for c in columns), *row])), strict=True)
                picked: Row = {name: row.get(name) for name in wanted} if wanted else row
                if self.output == "json":
                    collected.append(picked)
                elif self.output == "ndjson":
                    self._document(schema, picked)
                else:
                    self._head("")
                    if line is not None and not wanted:
                        self._print(line(picked))
                    else:
                        chosen = [Column(name) for name in wanted] if wanted else columns
                        self._print("  ".join(column.text(picked) for column in chosen))
        finally:
            if self.output == "json":
                self._document(schema, collected)
        return count

    def document(
        self,
        schema: str,
        data: Any,
        render: Callable[[Any], Any] | None = None,
        warnings: Sequence[str] = (),
        *,
        title: str = "",
    ) -> None:
        """Show one thing. ``render(data)`` makes what people see: a string, a rich renderable (``screen.table``) or a
        list of them; default ``name  value`` lines. ``--fields`` picks top-level names of a mapping."""
        for warning in warnings:
            self.warn(warning)
        if self.fields and isinstance(data, Mapping):
            data = {name: data[name] for name in self._wanted(list(data), strict=True)}
            render = None
        if self.output not in _FOR_PEOPLE:
            self._document(schema, data)
            return
        self._head(title)
        if render is None:
            self._print(_lines(data))
            return
        rendered = render(data)
        for part in rendered if isinstance(rendered, list | tuple) else [rendered]:
            if isinstance(part, str):
                self._print(part)
            else:
                self._draw(part)

    def findings(self, schema: str, findings: Sequence[Finding], *, checked: str) -> None:
        """Show findings (``--output github``: workflow annotations) and end the command with CheckFailedError when
        one is an error. ``checked`` says what was looked at (``7 contracts``)."""
        errors = sum(1 for finding in findings if finding.severity == "error")
        if self.output == "github":
            for finding in findings:
                self._print(_annotation(finding), raw=True)
        else:
            from ops.rules import page_of

            names = ("file", "line", "path", "severity", "rule", "message")
            rows = [
                {name: getattr(finding, name) for name in names} | {"docs": page_of(finding.rule)}
                for finding in findings
            ]
            columns = [
                Column("file"),
                Column("line"),
                Column("path"),
                Column("severity"),
                Column("message"),
                Column("rule"),
            ]
            self.rows(schema, rows, columns, empty=f"{checked}: nothing to say")
        if findings and self.output == "table":
            self.say(f"What a rule means: backbone rule show {findings[0].rule}")
        if errors:
            raise CheckFailedError(f"{checked}: {errors} error{'s' if errors != 1 else ''} found.")

    def table(self, rows: Sequence[Row], columns: Sequence[Column], *, title: str = "") -> Any:
        """A rich table of rows, to be used inside ``render``."""
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", title_justify="left")
        table.title = printable(title) if title else None
        for column in columns:
            right = any(_is_number(row.get(column.field)) for row in rows)
            table.add_column(column.heading(), justify="right" if right else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(column.text(row)) for column in columns))
        return table

    # ---- words ------------------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """Words for a person, on stderr; silent with ``-q``."""
        if not self.quiet:
            self._head("")
            self._word(text)

    def detail(self, text: str) -> None:
        """Words for a person who asked for more (``-v``)."""
        if self.verbose:
            self._head("")
            self._word(text)

    def warn(self, text: str) -> None:
        """A warning: on stderr, and in the JSON document that follows."""
        self.warnings.append(text)
        self._word(f"Warning: {text}")

    def error(self, code: int, message: str) -> None:
        """The sentence a command ends with, on stderr; in JSON mode also the document, if none stands yet."""
        message = in_context(_LONG_WORD.sub(lambda word: f"{word[0][:60]}…{word[0][-2:]}", message), self.context)
        self._word(f"Error: {message}")
        if self.output not in _FOR_PEOPLE and not (self.emitted and self.output == "json"):
            self._document("error", None, error={"code": code, "message": message})

    def confirm(self, question: str, *, yes: bool = False) -> bool:
        """Ask a person; ``yes`` answers for them. Without a terminal (or with ``--no-input``) RefusedError says that
        ``--yes`` is needed. False for anything but a yes."""
        if yes:
            return True
        if self.no_input or not interactive():
            raise RefusedError("There is no terminal to ask on. Nothing was changed. Give --yes to do it.")
        name = "" if self.context == "local" else f"{self.context} · "
        sys.stderr.write(f"{printable(name + question)} [y/N] ")
        sys.stderr.flush()
        answer = sys.stdin.readline()
        return answer.strip().lower() in ("y", "yes")

    @contextmanager
    def progress(self, total: int | None, unit: str = "events") -> Iterator[Progress]:
        """``done/total rate eta`` on stderr while something long runs: a moving line on a terminal, one line at the
        end elsewhere, nothing with ``-q``. An unknown total shows no percentage."""
        progress = Progress(total, unit, stream=None if self.quiet else sys.stderr, moving=_is_terminal(sys.stderr))
        try:
            yield progress
        finally:
            progress.end()

    # ---- inside -----------------------------------------------------------------------------------------------

    def _wanted(self, known: list[str], *, strict: bool) -> list[str]:
        if not self.fields:
            return known
        for name in self.fields:
            if strict and name not in known:
                hint = did_you_mean(name, known)
                raise InputError(f"--fields: there is no field '{name}' here.{hint} There are: {', '.join(known)}.")
        return list(self.fields)

    def _sorted(self, rows: Sequence[Row], known: list[str]) -> list[Row]:
        ordered = list(rows)
        for key in reversed(self.sort):
            name = key.removeprefix("-")
            if rows and name not in known:
                hint = did_you_mean(name, known)
                raise InputError(f"--sort: there is no field '{name}' here.{hint} There are: {', '.join(known)}.")
            present = [row for row in ordered if row.get(name) is not None]
            absent = [row for row in ordered if row.get(name) is None]
            try:
                present.sort(key=lambda row: row[name], reverse=key.startswith("-"))
            except TypeError:
                present.sort(key=lambda row: plain_json(row[name]), reverse=key.startswith("-"))
            ordered = present + absent
        return ordered

    def _document(self, schema: str, data: Any, *, error: Mapping[str, Any] | None = None) -> None:
        name = schema if "/" in schema else f"backbone.{schema}/v1"
        document = {
            "schema": name,
            "context": self.context,
            "at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "data": data,
            "warnings": list(self.warnings),
        }
        if error is not None:
            document["error"] = dict(error)
        self.emitted = True
        self._print(plain_json(document, indent=2 if self.output == "json" else None), raw=True)

    def _head(self, title: str) -> None:
        if self._headed or self.output != "table" or self.quiet:
            return
        self._headed = True
        first = "" if self.context == "local" else self.context
        line = " · ".join(part for part in (first, title) if part)
        if line:
            self._word(line)

    def _print(self, text: str, *, raw: bool = False) -> None:
        sys.stdout.write((text if raw else printable(text, lines=True)) + "\n")
        sys.stdout.flush()

    def _draw(self, renderable: Any) -> None:
        from rich.console import Console

        width = None if _is_terminal(sys.stdout) else 10_000
        console = Console(file=sys.stdout, width=width, markup=False, highlight=False, emoji=False, soft_wrap=False)
        with console.capture() as capture:
            console.print(renderable)
        # rich pads every cell to its column's width: nobody wants the spaces at the ends of lines
        sys.stdout.write("\n".join(line.rstrip() for line in capture.get().split("\n")))
        sys.stdout.flush()

    def _word(self, text: str) -> None:
        sys.stderr.write(printable(in_context(text, self.context), lines=True) + "\n")
        sys.stderr.flush()


def requested_output(arguments: Sequence[str]) -> Output:
    """The output mode that a command line asks for, read without parsing it: errors of parsing need it too."""
    for place, argument in enumerate(arguments):
        if argument == "--":
            break
        value = argument.partition("=")[2] if argument.startswith("--output=") else ""
        if argument == "--output" and place + 1 < len(arguments):
            value = arguments[place + 1]
        for output in OUTPUTS:
            if value == output:
                return output
    return "table"


def interactive() -> bool:
    """Whether a person can be asked: stdin and stderr are terminals."""
    return _is_terminal(sys.stdin) and _is_terminal(sys.stderr)


def _annotation(finding: Finding) -> str:
    """A finding as GitHub's workflow command (its documentation, "Workflow commands": %, CR and LF are escaped). It
    shows it beside a line only where the file is named from the top of the repository."""
    from ops.git import from_top

    def data(text: str) -> str:
        return printable(text, lines=True).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")

    def attribute(text: str) -> str:
        return data(text).replace(":", "%3A").replace(",", "%2C")

    line = "" if finding.line is None else f",line={finding.line}"
    where = f"{finding.path}: " if finding.path else ""
    place = f"file={attribute(from_top(finding.file))}{line},title={attribute(finding.rule)}"
    return f"::{finding.severity} {place}::{data(where + finding.message)}"


def _lines(data: Any) -> str:
    if isinstance(data, Mapping):
        width = max((len(str(name)) for name in data), default=0)
        return "\n".join(f"{name!s:<{width}}  {shown(value)}" for name, value in data.items())
    if isinstance(data, list | tuple):
        return "\n".join(shown(item) for item in data)
    return shown(data)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_terminal(stream: IO[str]) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False


def silence_stdout() -> None:
    """After the reader of our output went away: nothing more may be written, not even at exit."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(devnull, sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (lives to the end of the process)
    finally:
        os.close(devnull)
