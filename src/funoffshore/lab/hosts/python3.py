"""``python3`` on a host: runs the program it is given, in this process, on that host's files and programs.

The modules that touch the outside (os, subprocess, time, urllib.request, …) are stand-ins for the host's; pure ones
are the real ones; others do not exist there. It keeps honest programs in their place; it is no security boundary.
"""

from __future__ import annotations

import builtins
import contextlib
import fcntl
import functools
import importlib
import io
import os
import sys
import threading
import types
from http.client import HTTPException
from typing import Any

from funoffshore.lab.hosts import neighbours, rooted
from funoffshore.lab.hosts.api import Machine, Result
from funoffshore.lab.hosts.machine import Session
from funoffshore.lab.hosts.skeleton import KERNEL

PURE = frozenset({
    "__future__", "abc", "base64", "binascii", "bisect", "calendar", "collections", "collections.abc", "contextlib",
    "copy", "dataclasses", "datetime", "enum", "errno", "fnmatch", "functools", "hashlib", "heapq", "hmac",
    "ipaddress", "itertools", "json", "math", "operator", "random", "re", "secrets", "shlex", "stat", "string",
    "struct", "textwrap", "traceback", "types", "typing", "urllib.error", "urllib.parse", "uuid", "zlib",
})  # fmt: skip


LONG = 8192
"""Bytes."""


class Finished(Exception):
    """sys.exit."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@functools.lru_cache(maxsize=128)
def compiled(text: bytes) -> types.CodeType:
    return compile(text, "<stdin>", "exec", dont_inherit=True)


def parts(text: bytes) -> list[types.CodeType]:
    """The program as code. Of a long one all but its last line is kept for the next time: fo sends the same text to
    every host, with another request behind it."""
    head, _, last = text.rstrip(b"\n").rpartition(b"\n")
    if len(head) > LONG:
        with contextlib.suppress(SyntaxError):  # a last line that does not stand alone
            future = head[: head.find(b"\n") + 1] if head.startswith(b"from __future__") else b""
            return [compiled(head), compile(future + last, "<stdin>", "exec", dont_inherit=True)]
    return [compile(text, "<stdin>", "exec", dont_inherit=True)]


def python3(machine: Machine, argv: list[str], stdin: bytes) -> Result:
    """Program ``python3``: ``-``, ``-c TEXT``, a file, ``--version``."""
    session = machine if isinstance(machine, Session) else Session(machine, "root", 0, outside=False)  # type: ignore[arg-type]
    if "--version" in argv or "-V" in argv:
        return Result(0, b"Python 3.11.2\n")
    match [word for word in argv[1:] if word not in ("-B", "-I", "-s", "-S", "-u", "-E")]:
        case ["-c", text, *rest]:
            return run(session, text.encode(), ["-c", *rest], stdin)
        case [] | ["-"]:
            return run(session, stdin, ["-"], b"")
        case ["-", *rest]:
            return run(session, stdin, ["-", *rest], b"")
        case [path, *rest] if session.files.exists(path):
            return run(session, session.path(path).read_bytes(), [path, *rest], stdin)
        case [path, *_]:
            return Result(2, b"", f"python3: can't open file '{path}': [Errno 2] No such file or directory\n".encode())
    return Result(2)


def run(session: Session, text: bytes, argv: list[str], stdin: bytes) -> Result:
    """The program's exit status and output; an uncaught exception is one line on stderr and exit 1."""
    modules = Modules(session, argv, stdin)
    code = 0
    try:
        namespace = modules.namespace()
        for part in parts(text):
            exec(part, namespace)  # noqa: S102  # running programs is what a host does
    except Finished as why:
        code = why.code
    except SyntaxError as why:
        modules.err.write(f'  File "<stdin>", line {why.lineno}\nSyntaxError: {why.msg}\n')
        code = 1
    except Exception as why:  # whatever the program did, it only ends the program
        modules.err.write(f"Traceback (most recent call last):\n{type(why).__name__}: {why}\n")
        code = 1
    return Result(code, modules.out.buffer.getvalue(), modules.err.buffer.getvalue())


class Stream:
    """Text over bytes, like sys.stdout; ``buffer`` takes the bytes."""

    def __init__(self, data: bytes = b"") -> None:
        self.buffer = io.BytesIO(data)

    def write(self, text: str) -> int:
        self.buffer.write(text.encode())
        return len(text)

    def read(self) -> str:
        return self.buffer.read().decode()

    def flush(self) -> None:
        pass


class Modules:
    """What ``import`` finds for one run of one program."""

    def __init__(self, session: Session, argv: list[str], stdin: bytes) -> None:
        self.out, self.err = Stream(), Stream()
        self._opener = rooted.Opener(session)
        stand_os = rooted.HostOs(session, self._opener)
        self._modules: dict[str, Any] = {
            "os": stand_os,
            "os.path": stand_os.path,
            "sys": self._sys(argv, stdin),
            "subprocess": rooted.subprocess_of(session),
            "time": rooted.time_of(session),
            "shutil": rooted.shutil_of(session),
            "socket": neighbours.socket_of(session),
            "fcntl": types.SimpleNamespace(flock=fcntl.flock, LOCK_EX=fcntl.LOCK_EX, LOCK_UN=fcntl.LOCK_UN),
            "threading": types.SimpleNamespace(Thread=threading.Thread, Lock=threading.Lock, Event=threading.Event),
            # A program here is a thread of the lab: no signal reaches it.
            "signal": types.SimpleNamespace(signal=lambda *_: None, SIGHUP=1, SIGKILL=9, SIG_IGN=1),
            "urllib": types.SimpleNamespace(
                request=rooted.urllib_request_of(session),
                error=importlib.import_module("urllib.error"),
                parse=importlib.import_module("urllib.parse"),
            ),
            "platform": types.SimpleNamespace(
                node=lambda: session.name,
                machine=lambda: rooted.hardware_name(session),
                system=lambda: "Linux",
                release=lambda: KERNEL,
            ),
        }
        self._modules["urllib.request"] = self._modules["urllib"].request
        self._modules["http"] = types.SimpleNamespace(client=types.SimpleNamespace(HTTPException=HTTPException))
        self._modules["http.client"] = self._modules["http"].client

    def _sys(self, argv: list[str], stdin: bytes) -> Any:
        def leave(code: object = 0) -> None:
            if isinstance(code, str):
                self.err.write(f"{code}\n")
            raise Finished(code if isinstance(code, int) else 0 if code is None else 1)

        return types.SimpleNamespace(
            argv=argv, stdin=Stream(stdin), stdout=self.out, stderr=self.err, exit=leave, version_info=(3, 11, 2),
            executable="/usr/bin/python3", platform="linux", byteorder=sys.byteorder, maxsize=sys.maxsize,
        )  # fmt: skip

    def find(self, name: str, globals_: Any = None, locals_: Any = None, names: Any = (), level: int = 0) -> Any:
        """``__import__``."""
        if name in self._modules:
            return self._modules[name] if names else self._modules[name.partition(".")[0]]
        if name in PURE:
            return importlib.import_module(name if names else name.partition(".")[0])
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)

    def namespace(self) -> dict[str, Any]:
        """Fresh globals for the program."""

        def say(*words: object, sep: str = " ", end: str = "\n", file: Any = None, flush: bool = False) -> None:
            (file or self.out).write(sep.join(map(str, words)) + end)

        inside = dict(vars(builtins))
        inside.update(__import__=self.find, open=self._opener.open, print=say, exit=self._modules["sys"].exit)
        for name in ("input", "breakpoint", "eval", "exec", "compile", "help"):
            inside.pop(name, None)
        return {"__name__": "__main__", "__builtins__": inside, "__doc__": None}


def uname(session: Session) -> os.uname_result:
    return rooted.uname(session)
