"""``backbone editor``: beside ``completion``, which is for the shell."""

from __future__ import annotations

from pathlib import Path

import click

from ops.app import App, screen_options


@click.command()
@click.option("--check", "checking", is_flag=True, help="Write nothing; exit 3 if a file is not current.")
@screen_options(github=True)
@click.pass_obj
def editor(app: App, checking: bool) -> None:
    """Write the JSON Schemas that let editors complete and check backbone.toml, subscriptions and contracts.

    They know this project's events, connections and connectors: write them again when these change. -v says how
    editors find them.
    """
    from ops.catalog.editor_schemas import EVENT_FILE, HOW_FOUND, editor_schemas, stale
    from ops.files import file_error

    schemas = editor_schemas(app)
    if checking:
        app.screen.findings("editor", stale(schemas), checked=f"{len(schemas)} schemas")
        return
    written = []
    for path, text in schemas.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise file_error(error, path) from None
        written.append(_shown(path, app.project.root))
    app.screen.document("editor", {"written": written}, lambda data: "\n".join(data["written"]))
    events = next((name for name in written if name.endswith(EVENT_FILE)), EVENT_FILE)
    app.screen.detail(HOW_FOUND.replace("EVENTS", f"./{events}"))


def _shown(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
