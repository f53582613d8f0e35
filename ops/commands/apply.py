"""``backbone apply ID``."""

from __future__ import annotations

import click

from ops.app import App, screen_options


@click.command()
@click.argument("change_id", metavar="ID")
@click.option("--confirm", metavar="NAME", help="Name what is changed; severe changes need it.")
@click.option("--reason", metavar="TEXT", help="Why, for the audit; needed in a production context.")
@screen_options
@click.pass_obj
def apply(app: App, change_id: str, confirm: str | None, reason: str | None) -> None:
    """Do the planned change ID, or go on with one that was cut.

    The plan is checked once more; a stale one is refused. The audit record stands before the first step.
    """
    from ops.changes import apply_by_id

    apply_by_id(app, change_id, reason=reason, confirm=confirm)
