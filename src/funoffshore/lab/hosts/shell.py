"""A small sh for ``ssh host '<command>'``: words, quotes, ``&&``, ``||``, ``;``, ``|``, ``!``, ``>``, ``2>&1``.

What it does not know (loops, substitutions, globs) is a syntax error or a plain word, never a guess.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from funoffshore.lab.hosts import circumstances
from funoffshore.lab.hosts.api import Result
from funoffshore.lab.hosts.machine import Session

OPERATORS = ("&&", "||", ";", "|", "\n")
REDIRECTIONS = ("2>&1", "2>>", "2>", "&>", ">>", ">", "<")
HUNGRY = ("cat", "grep", "head", "tail", "tee", "sha256sum", "wc", "sh", "bash", "python3", "base64", "chpasswd")
"""Programs that read stdin when no file is named."""


class SyntaxTrouble(Exception):
    """What sh would call a syntax error."""


@dataclass(frozen=True, slots=True)
class Token:
    """A word, or an operator or redirection."""

    text: str
    word: bool


@dataclass
class Command:
    """One simple command with its redirections."""

    argv: list[str] = field(default_factory=list)
    redirections: list[tuple[str, str]] = field(default_factory=list)


class Reader:
    """Splits text into tokens; variables are expanded from ``environment``."""

    def __init__(self, text: str, environment: dict[str, str]) -> None:
        self._text = text
        self._at = 0
        self._environment = environment

    def tokens(self) -> list[Token]:
        found: list[Token] = []
        while self._at < len(self._text):
            rest = self._text[self._at :]
            sign = next((s for s in (*REDIRECTIONS, *OPERATORS) if rest.startswith(s)), None)
            if rest[0] in " \t":
                self._at += 1
            elif rest[0] == "#":
                self._at += len(rest.split("\n", 1)[0])
            elif sign:
                self._at += len(sign)
                found.append(Token(sign, word=False))
            elif rest[0] in "()&`":
                raise SyntaxTrouble(f'"{rest[0]}" unexpected')
            else:
                found.append(Token(self._word(), word=True))
        return found

    def _word(self) -> str:
        word = ""
        while self._at < len(self._text) and self._text[self._at] not in " \t\n;|&<>()":
            sign = self._text[self._at]
            self._at += 1
            if sign == "'":
                word += self._until("'")
            elif sign == '"':
                word += self._double()
            elif sign == "\\":
                word += self._text[self._at : self._at + 1].replace("\n", "")
                self._at += 1
            elif sign == "$":
                word += self._variable()
            else:
                word += sign
        return word

    def _until(self, end: str) -> str:
        stop = self._text.find(end, self._at)
        if stop < 0:
            raise SyntaxTrouble("Unterminated quoted string")
        piece, self._at = self._text[self._at : stop], stop + 1
        return piece

    def _double(self) -> str:
        piece = ""
        while self._at < len(self._text):
            sign = self._text[self._at]
            self._at += 1
            if sign == '"':
                return piece
            if sign == "\\" and self._text[self._at : self._at + 1] in ("$", "`", '"', "\\", "\n"):
                piece += self._text[self._at].replace("\n", "")
                self._at += 1
            elif sign == "$":
                piece += self._variable()
            else:
                piece += sign
        raise SyntaxTrouble("Unterminated quoted string")

    def _variable(self) -> str:
        if self._text[self._at : self._at + 1] == "(":
            raise SyntaxTrouble('"(" unexpected')
        if self._text[self._at : self._at + 1] == "{":
            self._at += 1
            return self._environment.get(self._until("}"), "")
        end = self._at
        while end < len(self._text) and (self._text[end].isalnum() or self._text[end] in "_?"):
            end += 1
        name, self._at = self._text[self._at : end], end
        return self._environment.get(name, "") if name else "$"


def run(session: Session, text: str, stdin: Callable[[], bytes] = lambda: b"") -> Result:
    """Runs ``text`` as ``sh -c`` would. ``stdin`` is read at most once, and only when something asks for it."""
    environment = {"HOME": home(session), "USER": session.user, "?": "0"}
    try:
        tokens = Reader(text, environment).tokens()
        lines = pipelines(tokens)
    except SyntaxTrouble as why:
        return Result(2, b"", f"sh: 1: Syntax error: {why}\n".encode())
    out, err, code, glue = b"", b"", 0, ";"
    for line, after in lines:
        if glue in (";", "\n") or (glue == "&&") == (code == 0):
            result = pipeline(session, line, stdin)
            out, err, code = out + result.out, err + result.err, result.code
            if len(line) == 1 and line[0].argv[:1] == ["exit"]:
                break
        glue = after
    return Result(code, out, err)


def home(session: Session) -> str:
    for line in session.files.read("/etc/passwd").splitlines():
        fields = line.split(":")
        if fields[0] == session.user and len(fields) > 5:
            return fields[5]
    return "/"


def pipelines(tokens: list[Token]) -> list[tuple[list[Command], str]]:
    """Each pipeline with the operator behind it."""
    lines: list[tuple[list[Command], str]] = []
    line, command = [Command()], Command()
    line = [command]
    rest = iter(tokens)
    for token in rest:
        if token.word:
            command.argv.append(token.text)
        elif token.text in REDIRECTIONS:
            target = Token("", word=True) if token.text == "2>&1" else next(rest, Token("newline", word=False))
            if not target.word:
                raise SyntaxTrouble(f"{target.text} unexpected")
            command.redirections.append((token.text, target.text))
        elif token.text == "|":
            command = Command()
            line.append(command)
        else:
            if command.argv or command.redirections:
                lines.append((line, token.text))
            elif token.text not in ("\n",) and not lines:
                raise SyntaxTrouble(f'"{token.text}" unexpected')
            command = Command()
            line = [command]
    if command.argv or command.redirections:
        lines.append((line, ";"))
    return lines


def pipeline(session: Session, line: list[Command], stdin: Callable[[], bytes]) -> Result:
    """The last command's exit status; all their stderr."""
    negate = line[0].argv[:1] == ["!"]
    if negate:
        line[0].argv.pop(0)
    data: bytes | None = None
    err, result = b"", Result(0)
    for command in line:
        result = simple(session, command, stdin if data is None else _given(data), fed=data is not None)
        err += result.err
        data = result.out
    code = (0 if result.code else 1) if negate else result.code
    return Result(code, result.out, err)


def _given(data: bytes) -> Callable[[], bytes]:
    return lambda: data


def simple(session: Session, command: Command, stdin: Callable[[], bytes], *, fed: bool) -> Result:
    """``fed``: stdin is at hand, so there is no harm in reading it."""
    argv = command.argv
    while argv and "=" in argv[0] and argv[0].split("=", 1)[0].isidentifier():
        argv = argv[1:]
    given = next((target for sign, target in command.redirections if sign == "<"), None)
    if given is not None:
        if not session.files.exists(given):
            return Result(2, b"", f"sh: 1: cannot open {given}: No such file\n".encode())
        stdin, fed = _given(session.path(given).read_bytes()), True
    if not argv:
        result = Result(0)
    elif argv[0] in ("exit", "cd", "set", "export", "umask", ":"):
        result = Result(int(argv[1]) if argv[0] == "exit" and argv[1:] and argv[1].isdigit() else 0)
    else:
        result = session.run(argv, stdin() if fed or wants_stdin(argv) else b"")
    return redirect(session, command, result)


def redirect(session: Session, command: Command, result: Result) -> Result:
    out, err = result.out, result.err
    for sign, target in command.redirections:
        if sign == "2>&1":
            out, err = out + err, b""
        elif sign in (">", ">>", "2>", "2>>", "&>"):
            data = err if sign.startswith("2") else out + err if sign == "&>" else out
            trouble = save(session, target, data, append=sign.endswith(">>"))
            if trouble:
                return Result(2, b"", trouble)
            out = b"" if not sign.startswith("2") else out
            err = b"" if sign.startswith("2") or sign == "&>" else err
    return Result(result.code, out, err)


def save(session: Session, target: str, data: bytes, *, append: bool) -> bytes:
    """Empty, or what sh says when it cannot."""
    if target == "/dev/null":
        return b""
    folder = os.path.dirname(target) or "/"
    if not session.files.exists(folder):
        return f"sh: 1: cannot create {target}: Directory nonexistent\n".encode()
    if not session.files.may(session.uid, target, 2):
        return f"sh: 1: cannot create {target}: Permission denied\n".encode()
    try:
        circumstances.check_write(session.host, target)
    except OSError as why:
        return f"sh: 1: cannot create {target}: {why.strerror}\n".encode()
    with session.path(target).open("ab" if append else "wb") as stream:
        stream.write(data)
    session.changed(f"write {target}")
    return b""


def wants_stdin(argv: list[str]) -> bool:
    """Whether the command reads its stdin; asking a terminal that nobody types on would hang."""
    name = argv[0].rsplit("/", 1)[-1]
    if name in ("sudo", "env", "nohup", "time"):
        rest = [word for word in argv[1:] if not word.startswith("-")]
        return bool(rest) and wants_stdin(argv[argv.index(rest[0]) :])
    if "-" in argv or "/dev/stdin" in argv:
        return True
    words = [word for word in argv[1:] if not word.startswith("-")]
    if name in ("sh", "bash", "python3"):
        return not words and "-c" not in argv and "--version" not in argv
    if name in ("head", "tail"):
        words = [word for word in words if not word.isdigit()]
    return name == "tee" or (name in HUNGRY and len(words) < (2 if name == "grep" else 1))
