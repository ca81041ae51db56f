"""Print docs/cli.md: what `moorline --help` says, of every verb.

    python scripts/cli_reference.py > docs/cli.md

tests/test_docs.py fails when the file is not what this prints.
"""

from __future__ import annotations

import sys

import click

from moorline.cli import moorline

WIDTH = 90

HEAD = """\
# The command line

Made from the commands' own help by `python scripts/cli_reference.py > docs/cli.md`.

**Output.** stdout is data, stderr is talk. `publish` prints only the build's id, `export` only the
folder, so `MOORLINE_ID=$(moorline publish public)` works; `deploy` and `rollback` print nothing on
stdout. With `--json` there is exactly one object on stdout, for a failure too:
`{"error": ..., "exit": ..., "problems": [{"path": ..., "problem": ...}], "live": ...}`. Progress is
a bar on a terminal and a plain line every five seconds in a log; `-q` silences it and the summary.
`NO_COLOR` is honoured.

**Configuration.** A flag wins over a variable, a variable over `moorline.toml` in the current
folder (or the file that `--config` names), that over the default. Every key is in
[moorline.toml](moorline.toml). The variables, where an empty one counts as not set:

| variable | stands for |
|---|---|
| `MOORLINE_STORE` | `--store`, or `path` in the table `[store]` |
| `MOORLINE_TARGET` | `--target`, or `root` in the table `[target]` |
| `MOORLINE_APP` | `--app`, or `app` |
| `MOORLINE_CONFIG` | `--config` |
| `MOORLINE_ID` | `publish --id` |

**Exit codes.** 0 done; 1 failed; 2 usage or configuration, nothing was done; 3 content does not
match its manifest; 4 not found; 5 busy or conflict (an id taken by other content, a lock held, a
deployment overtaken); 6 went live, a hook failed, the old release was put back; 7 the same, but
putting back failed; 130 interrupted by Ctrl-C or SIGTERM.

**Shell completion.** bash 4.4 or newer, zsh and fish:

    eval "$(_MOORLINE_COMPLETE=bash_source moorline)"     # in ~/.bashrc
    eval "$(_MOORLINE_COMPLETE=zsh_source moorline)"      # in ~/.zshrc
    _MOORLINE_COMPLETE=fish_source moorline | source      # in ~/.config/fish/config.fish
"""


def section(title: str, command: click.Command, context: click.Context) -> str:
    return f"\n## {title}\n\n```text\n{command.get_help(context).rstrip()}\n```\n"


def reference() -> str:
    settings = {**moorline.context_settings, "terminal_width": WIDTH, "max_content_width": WIDTH}
    root = click.Context(moorline, info_name="moorline", **settings)
    text = HEAD + section("moorline", moorline, root)
    for name in moorline.list_commands(root):
        command = moorline.commands[name]
        context = click.Context(command, info_name=name, parent=root)
        text += section(f"moorline {name}", command, context)
    return text


if __name__ == "__main__":
    sys.stdout.write(reference())
