"""Runs a system's program and says what it said when it fails."""

from __future__ import annotations

import subprocess


class CommandError(RuntimeError):
    """A program ended badly; the text holds its own last words."""


def run(*argv: object) -> str:
    """Standard output. Raises CommandError."""
    words = [str(word) for word in argv]
    done = subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise CommandError(f"{' '.join(words[:4])} ended with {done.returncode}: {' / '.join(said[-3:])}")
    return done.stdout
