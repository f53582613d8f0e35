"""``backbone rule list | show``: the page behind the id that every finding ends with.

Rules are about contracts, subscriptions and backbone.toml alike, so they belong to none of these nouns.
"""

from __future__ import annotations

from typing import Any

import click

from ops.app import App, screen_options
from ops.screen import Column

COLUMNS = [Column("rule"), Column("about"), Column("severity"), Column("means")]


@click.group(no_args_is_help=True)
def rule() -> None:
    """What the ids at the ends of findings mean."""


@rule.command(name="list")
@screen_options
@click.pass_obj
def list_(app: App) -> None:
    """Every rule, by the kind of file it is about.

    JSON: rule, about, severity (error, warning), means, docs.
    """
    from ops.rules import KINDS, page_of

    rows = [
        {
            "rule": one.id,
            "about": kind.title.lower(),
            "severity": one.severity,
            "means": one.means,
            "docs": page_of(one.id),
        }
        for kind in KINDS
        for one in kind.rules
    ]
    app.screen.rows("rules", rows, COLUMNS)


@rule.command()
@click.argument("name", metavar="RULE")
@screen_options
@click.pass_obj
def show(app: App, name: str) -> None:
    """What a rule means, why it is there, what breaks it and how to mend it."""
    from ops.rules import kind_of, page_of, rule_of

    one = rule_of(name)
    data = {
        "rule": one.id,
        "about": kind_of(one).title.lower(),
        "severity": one.severity,
        "means": one.means,
        "why": one.why,
        "breaks": one.breaks,
        "mend": one.mend,
        "command": kind_of(one).command,
        "docs": page_of(one.id),
    }
    app.screen.document("rule", data, _text)


def _text(data: dict[str, Any]) -> str:
    def indented(text: str) -> str:
        return "\n".join(f"  {line}".rstrip() for line in text.splitlines())

    return "\n".join(
        (
            f"{data['rule']}: {data['severity']} in {data['about']}",
            data["means"],
            data["why"],
            "\nBreaks it:",
            indented(data["breaks"]),
            "\nMended:",
            indented(data["mend"]),
            f"\nFound by: {data['command']}",
        )
    )
