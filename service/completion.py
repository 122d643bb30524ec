"""The command dtn completion: what makes a shell complete dtn's commands and options."""

import click
from click.shell_completion import get_completion_class

from service.cli import main

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_DTN_COMPLETE"  # by which the script asks dtn; click looks for it under this name


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the script that makes SHELL complete dtn's commands and options.

    \b
    bash: eval "$(dtn completion bash)", in ~/.bashrc
    zsh:  eval "$(dtn completion zsh)", in ~/.zshrc
    fish: dtn completion fish > ~/.config/fish/completions/dtn.fish
    """
    script = get_completion_class(shell)
    if script is None:  # SHELLS are all of them click's
        raise click.UsageError(f"nothing is known of {shell}")
    click.echo(script(main, {}, "dtn", VARIABLE).source())
