"""``backbone doctor``."""

from __future__ import annotations

import click

from ops.app import App, screen_options
from ops.screen import Column
from ops.wording import in_context

COLUMNS = [Column("verdict", ""), Column("check"), Column("found"), Column("advice", "WHAT TO DO")]


@click.command()
@screen_options
@click.pass_obj
def doctor(app: App) -> None:
    """Check everything the backbone needs here, and say what to do. Exit 3 if something is broken; changes nothing."""
    from ops.doctor import examine
    from schemas.errors import CheckFailedError

    lines = list(examine(app))
    rows = [
        {
            "verdict": line.verdict,
            "check": line.check,
            "found": line.found,
            "advice": in_context(line.advice, app.screen.context) or None,
        }
        for line in lines
    ]
    app.screen.rows("doctor", rows, COLUMNS)
    broken = sum(1 for line in lines if line.verdict == "fail")
    if broken:
        raise CheckFailedError(f"{broken} of {len(lines)} checks fail.")
