"""``backbone undo ID``."""

from __future__ import annotations

import click

from ops.app import App, screen_options


@click.command()
@click.argument("change_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask; needed where there is no terminal.")
@click.option("--confirm", metavar="NAME", help="Name what is changed; severe changes need it.")
@click.option("--reason", metavar="TEXT", help="Why, for the audit; needed in a production context.")
@screen_options
@click.pass_obj
def undo(app: App, change_id: str, yes: bool, confirm: str | None, reason: str | None) -> None:
    """Take the change ID back, or say why that cannot be done.

    What is restored is shown first. It is a change of its own, with an id and audit records.
    """
    from ops.changes import undo_by_id

    undo_by_id(app, change_id, yes=yes, reason=reason, confirm=confirm)
