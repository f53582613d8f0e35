"""``backbone completion bash | zsh | fish``."""

from __future__ import annotations

import click

from ops.app import App, screen_options

SHELLS = ("bash", "zsh", "fish")
INSTALL = {
    "bash": 'Add to ~/.bashrc:  eval "$(backbone completion bash)"',
    "zsh": 'Add to ~/.zshrc:  eval "$(backbone completion zsh)"',
    "fish": "Write to ~/.config/fish/completions/backbone.fish:  backbone completion fish",
}


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@screen_options
@click.pass_obj
def completion(app: App, shell: str) -> None:
    """Print the completion script of SHELL."""
    from click.shell_completion import get_completion_class

    from ops.cli import cli

    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(cli, {}, "backbone", "_BACKBONE_COMPLETE").source()
    app.screen.document("completion", {"shell": shell, "script": script}, lambda data: data["script"])
    app.screen.say(INSTALL[shell])
