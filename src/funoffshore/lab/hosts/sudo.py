"""``sudo -S`` over SSH: the one program here that talks before its stdin has ended.

Passwords are those of ``/etc/lab-passwords`` (``user:password`` a line), which stands for the host's shadow file.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Protocol

from funoffshore.lab.hosts import programs, shell
from funoffshore.lab.hosts.api import Result
from funoffshore.lab.hosts.machine import Session

TRIES = 3
"""sudoers(5), passwd_tries."""


class Terminal(Protocol):
    """Both directions to whoever is logged in, while the command runs."""

    def say(self, out: bytes, err: bytes = b"") -> None: ...

    def line(self) -> bytes:
        """The next line of stdin with its end; less than that at the end of stdin."""

    def rest(self) -> bytes:
        """All that is left of stdin."""


def talk(session: Session, text: str, terminal: Terminal) -> Result | None:
    """The result of ``sudo -S [-p PROMPT] COMMAND``; None for any other command line."""
    try:
        words = shlex.split(text)
    except ValueError:
        return None
    if words[:2] != ["sudo", "-S"]:
        return None
    words, prompt = words[2:], f"[sudo] password for {session.user}: "
    if words[:1] == ["-p"]:
        prompt, words = words[1], words[2:]
    if session.uid != 0 and not programs.granted(session):
        refused = ask(session, prompt, terminal)
        if refused is not None:
            return refused
    return run(session.as_root(), words, terminal)


def ask(session: Session, prompt: str, terminal: Terminal) -> Result | None:
    """None when the right password came, and its user may use sudo; one character more of stdin is never read."""
    known = programs.passwords(session)
    wrong = 0
    while wrong < TRIES:
        terminal.say(b"", prompt.encode())
        line = terminal.line()
        if not line.endswith(b"\n"):
            break
        if session.user in known and line[:-1].decode("utf-8", "replace") == known[session.user]:
            if may(session):
                return None
            return Result(1, b"", f"{session.user} is not in the sudoers file.\n".encode())
        wrong += 1
        if wrong < TRIES:
            terminal.say(b"", b"Sorry, try again.\n")
    if not wrong:
        return Result(1, b"", b"sudo: no password was provided\nsudo: a password is required\n")
    return Result(1, b"", f"sudo: {wrong} incorrect password attempt{'s' if wrong > 1 else ''}\n".encode())


def may(session: Session) -> bool:
    files = sorted(session.path("/etc/sudoers.d").glob("*"))
    lines = [line for file in files if file.is_file() for line in file.read_text().splitlines()]
    return any(line.split()[:1] == [session.user] for line in lines)


def run(session: Session, words: list[str], terminal: Terminal) -> Result:
    """The command as root. What ``sh -c`` echoes first is heard before the rest of stdin has come."""
    stdin: Callable[[], bytes] = terminal.rest
    if words[:2] == ["sh", "-c"] and len(words) == 3:
        for part in words[2].split(";")[:-1]:
            done = shell.run(session, part)
            terminal.say(done.out, done.err)
        last = words[2].split(";")[-1].strip().removeprefix("exec ")
        return shell.run(session, last, stdin)
    return shell.run(session, shlex.join(words), stdin)
