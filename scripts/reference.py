"""Writes the reference pages that are generated: exit codes, commands, env file. A test keeps them equal."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import typer

from funoffshore import errors
from funoffshore.config import render

ROOT = Path(__file__).parents[1]


def exit_codes() -> str:
    """The page of exit codes, from the classes of ``errors``."""
    lines = ["# Exit codes", "", "One for each class of error, so that a script can tell them apart.", ""]
    lines += ["| code | class | meaning |", "| --- | --- | --- |", "| 0 | | done, or nothing to do |"]
    for kind in (errors.FoError, *errors.FoError.__subclasses__()):
        meaning = (kind.__doc__ or "").strip().split("\n")[0]
        if kind is errors.FoError:
            meaning = "A bug in fo, or something nobody thought of."
        lines.append(f"| {kind.exit_code} | `{kind.__name__}` | {meaning} |")
    return "\n".join(lines) + "\n"


def commands() -> str:
    """The page of commands, from their ``--help``."""
    from funoffshore.cli import _build

    top = typer.main.get_command(_build())
    lines = ["# Commands", "", "Data goes to stdout, talk to stderr.", ""]
    for path, command in _walk(top, "fo"):
        context = click.Context(command, info_name=path, terminal_width=100, max_content_width=100)
        lines += [f"## {path}", "", "```", command.get_help(context).strip(), "```", ""]
    return "\n".join(lines)


def _walk(command: click.Command, path: str) -> list[tuple[str, click.Command]]:
    found = [(path, command)]
    for name, child in sorted(getattr(command, "commands", {}).items()):
        found += _walk(child, f"{path} {name}")
    return found


def pages() -> dict[Path, str]:
    """Every generated page by its path."""
    reference = ROOT / "docs" / "reference"
    return {
        reference / "exit-codes.md": exit_codes(),
        reference / "commands.md": commands(),
        reference / "config.md": render.reference(),
        ROOT / "config" / "env" / "example.env": render.example(),
    }


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
        print(path.relative_to(ROOT), file=sys.stderr)
