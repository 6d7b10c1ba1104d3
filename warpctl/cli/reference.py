"""docs/cli.md, made from what --help prints: `python -m warpctl.cli.reference > docs/cli.md`."""

from __future__ import annotations

import sys
from typing import Any

PAGE = "docs/cli.md"
WIDTH = 100
_HEAD = """# Commands

Made from `--help` by `python -m warpctl.cli.reference`; a test checks that it is fresh.

| exit code | means |
| --- | --- |
| 0 | done; `diff` and `plan --detailed-exitcode`: nothing to do |
| 1 | the run or operation failed (`watch`, `apply --wait`: it stalled); `diff` and `plan --detailed-exitcode`: something to do; `status --exit-code`: not succeeded |
| 2 | bad input: a spec, an argument, a run that another process works on; `diff` and `plan --detailed-exitcode`: any error |
| 130 | interrupted by Ctrl-C or SIGTERM; the workers saved, the same command goes on |

Results go to stdout, everything else to stderr. `NO_COLOR=1` or `--no-color` (before the command) means no colour, no bold, no
dim and ASCII symbols. RUN is a spec file, or the name (or namespace/name) of a run of this machine. With `--cluster`, `-n`, `--context` or `--kubeconfig` it is the
name of a WarpRun of a cluster: `status`, `logs`, `report` and `export` then read its Jobs, pods and Events (your kubeconfig's rights) and its
store (your own credentials); where the store cannot be read, `status` and `watch` show what the controller has written down. All commands also
run as `kubectl warprun ...`, where RUN is always a WarpRun of the cluster.
"""


def commands() -> dict[str, Any]:
    """The commands by name, in the order of --help."""
    import typer

    from warpctl.cli.main import app

    group: Any = typer.main.get_command(app)
    return dict(group.commands)


def help_text(name: str) -> str:
    """What `warpctl NAME --help` prints; "" is `warpctl --help`."""
    import typer

    from warpctl.cli.main import app

    group: Any = typer.main.get_command(app)
    context = group.context_class(group, info_name="warpctl", terminal_width=WIDTH, help_option_names=["-h", "--help"])
    if not name:
        return str(group.get_help(context)) + "\n"
    command = group.commands[name]
    inner = command.context_class(command, info_name=name, parent=context, terminal_width=WIDTH)
    return str(command.get_help(inner)) + "\n"


def reference_page() -> str:
    """The whole page."""
    parts = [_HEAD]
    for name in ("", *commands()):
        title = f"warpctl {name}".strip()
        parts.append(f"## {title}\n\n```text\n{help_text(name)}```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    sys.stdout.write(reference_page())
