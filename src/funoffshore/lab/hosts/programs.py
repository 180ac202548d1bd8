"""The small programs of the cloud image: core utilities, sudo, cloud-init's command line."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
from collections.abc import Callable

from funoffshore.lab.hosts import blocks, circumstances, cloudinit, kernel, python3, shell, systemctl
from funoffshore.lab.hosts.api import Machine, Program, Result
from funoffshore.lab.hosts.files import Attributes
from funoffshore.lab.hosts.machine import Session

PASSWORDS = "/etc/lab-passwords"


def session_of(machine: Machine) -> Session:
    """Whoever is logged in; a service runs programs as root."""
    return machine if isinstance(machine, Session) else Session(systemctl.host_of(machine), "root", 0, outside=False)


def words_of(argv: list[str]) -> list[str]:
    return [word for word in argv[1:] if not word.startswith("-") or word == "-"]


def quiet(machine: Machine, argv: list[str], stdin: bytes) -> Result:
    """Programs whose effect nobody here can see: modprobe, swapoff, apt-get update."""
    return Result(0)


def false(machine: Machine, argv: list[str], stdin: bytes) -> Result:
    return Result(1)


def echo(machine: Machine, argv: list[str], stdin: bytes) -> Result:
    words = argv[1:]
    newline = words[:1] != ["-n"]
    return Result(0, (" ".join(words if newline else words[1:]) + ("\n" if newline else "")).encode())


def each_file(machine: Machine, argv: list[str], stdin: bytes, show: Callable[[str, bytes], str | bytes]) -> Result:
    """``show(name, content)`` for every named file, stdin for ``-`` or none; exit 1 where one cannot be read."""
    session, out, err = session_of(machine), b"", ""
    for name in words_of(argv) or ["-"]:
        try:
            if name not in ("-", "/dev/stdin") and not session.files.may(session.uid, name, 4):
                raise PermissionError(13, os.strerror(13), name)
            content = stdin if name in ("-", "/dev/stdin") else session.path(name).read_bytes()
        except OSError as why:
            err += f"{argv[0]}: {name}: {os.strerror(why.errno or 0)}\n"
            continue
        shown = show(name, content)
        out += shown.encode() if isinstance(shown, str) else shown
    return Result(1 if err else 0, out, err.encode())


def cat(machine: Machine, argv: list[str], stdin: bytes) -> Result:
    return each_file(machine, argv, stdin, lambda name, content: content)


def sha256sum(machine: Machine, argv: list[str], stdin: bytes) -> Result:
    return each_file(machine, argv, stdin, lambda name, content: f"{hashlib.sha256(content).hexdigest()}  {name}\n")


def encode(machine: Machine, argv: list[str], stdin: bytes) -> Result:
    """base64."""
    if "-d" in argv or "--decode" in argv:
        return each_file(machine, argv, stdin, lambda name, content: base64.b64decode(content))
    return each_file(machine, argv, stdin, lambda name, content: base64.b64encode(content) + b"\n")


def ends(machine: Machine, argv: list[str], stdin: bytes) -> Result:
    """head and tail, with ``-n N`` or ``-N``."""
    count, words, rest = 10, [argv[0]], iter(argv[1:])
    for word in rest:
        if word == "-n":
            count = int(next(rest, "10"))
        elif word[:1] == "-" and word[1:].isdigit():
            count = int(word[1:])
        else:
            words.append(word)

    def show(name: str, content: bytes) -> bytes:
        lines = content.splitlines(keepends=True)
        return b"".join(lines[:count] if argv[0].endswith("head") else lines[-count:] if count else [])

    return each_file(machine, words, stdin, show)


def grep(machine: Machine, argv: list[str], stdin: bytes) -> Result:
    """Fixed strings only."""
    words = words_of(argv)
    if not words:
        return Result(2, b"", b"Usage: grep [OPTION]... PATTERNS [FILE]...\n")
    pattern = words[0].encode()

    def show(name: str, content: bytes) -> bytes:
        return b"".join(line for line in content.splitlines(keepends=True) if pattern in line)

    found = each_file(machine, [argv[0], *words[1:]], stdin, show)
    silent = any(word.startswith("-") and "q" in word for word in argv[1:])
    return Result(2 if found.err else 0 if found.out else 1, b"" if silent else found.out, found.err)


def ls(machine: Machine, argv: list[str], stdin: bytes) -> Result:
    session, out, err = session_of(machine), "", ""
    flags = "".join(word[1:] for word in argv[1:] if word.startswith("-"))
    for name in words_of(argv) or ["/"]:
        try:
            seen = session.files.stat(name, follow="d" not in flags)
            folder = stat.S_ISDIR(seen.st_mode) and "d" not in flags
            names = sorted(os.listdir(session.path(name))) if folder else [name]
        except OSError:
            err += f"ls: cannot access '{name}': No such file or directory\n"
            continue
        for entry in names:
            if entry.startswith(".") and folder and not set(flags) & set("aA"):
                continue
            at = session.files.stat(f"{name}/{entry}" if folder else entry, follow=False)
            out += f"{long(at)} {entry}\n" if "l" in flags else f"{entry}\n"
    return Result(2 if err else 0, out.encode(), err.encode())


def long(seen: Attributes) -> str:
    return f"{stat.filemode(seen.st_mode)} {seen.st_nlink} {seen.st_uid} {seen.st_gid} {seen.st_size}"


def look(machine: Machine, argv: list[str], stdin: bytes) -> Result:
    """stat, with ``-c FORMAT`` of %a %u %g %U %G %s %n %F."""
    session, form, words, rest = session_of(machine), "%A %u %g %s %n", list[str](), iter(argv[1:])
    for word in rest:
        if word in ("-c", "--format"):
            form = next(rest, "")
        elif not word.startswith("-"):
            words.append(word)
    out, err = "", ""
    for name in words:
        try:
            seen = session.files.stat(name, follow=False)
        except OSError as why:
            err += f"stat: cannot statx '{name}': {why.strerror}\n"
            continue
        line = form
        kind = "directory" if stat.S_ISDIR(seen.st_mode) else "regular file"
        root = "root" if seen.st_uid == 0 else str(seen.st_uid)
        for sign, value in (
            ("%a", f"{stat.S_IMODE(seen.st_mode):o}"), ("%A", stat.filemode(seen.st_mode)), ("%u", str(seen.st_uid)),
            ("%g", str(seen.st_gid)), ("%U", root), ("%G", root), ("%s", str(seen.st_size)), ("%n", name), ("%F", kind),
        ):  # fmt: skip
            line = line.replace(sign, value)
        out += line + "\n"
    return Result(1 if err else 0, out.encode(), err.encode())


def test(machine: Machine, argv: list[str], stdin: bytes) -> Result:
    """test and [: ``-e -f -d -s -x -L -n -z``, ``=``, ``!=``, a leading ``!``."""
    words = argv[1:-1] if argv[0].endswith("[") else argv[1:]
    if words[:1] == ["!"]:
        return Result(1 - min(test(machine, ["test", *words[1:]], stdin).code, 1))
    if len(words) == 3 and words[1] in ("=", "==", "!="):
        return Result(0 if (words[0] == words[2]) == (words[1] != "!=") else 1)
    if len(words) == 1:
        return Result(0 if words[0] else 1)
    if len(words) != 2:
        return Result(1 if not words else 2)
    sign, name = words
    if sign in ("-n", "-z"):
        return Result(0 if bool(name) == (sign == "-n") else 1)
    try:
        seen = session_of(machine).files.stat(name, follow=sign not in ("-L", "-h"))
    except OSError:
        return Result(1)
    answers = {
        "-f": stat.S_ISREG(seen.st_mode), "-d": stat.S_ISDIR(seen.st_mode), "-L": stat.S_ISLNK(seen.st_mode),
        "-h": stat.S_ISLNK(seen.st_mode), "-s": seen.st_size > 0, "-x": bool(seen.st_mode & 0o111),
    }  # fmt: skip
    return Result(0 if answers.get(sign, True) else 1)


def uname(machine: Machine, argv: list[str], stdin: bytes) -> Result:
    facts = python3.uname(session_of(machine))
    flags = "".join(word[1:] for word in argv[1:]) or "s"
    fields = {"s": facts.sysname, "n": facts.nodename, "r": facts.release, "v": facts.version, "m": facts.machine}
    wanted = fields if "a" in flags else {key: value for key, value in fields.items() if key in flags}
    return Result(0, (" ".join(wanted.values()) + "\n").encode())


def hostname(machine: Machine, argv: list[str], stdin: bytes) -> Result:
    return Result(0, f"{machine.address if '-I' in argv else machine.name}\n".encode())


def identify(machine: Machine, argv: list[str], stdin: bytes) -> Result:
    """id and whoami."""
    session = session_of(machine)
    if argv[0].endswith("whoami") or "-un" in argv:
        return Result(0, f"{session.user}\n".encode())
    if "-u" in argv:
        return Result(0, f"{session.uid}\n".encode())
    user = f"{session.uid}({session.user})"
    return Result(0, f"uid={user} gid={user} groups={user}\n".encode())


def sh(machine: Machine, argv: list[str], stdin: bytes) -> Result:
    """sh and bash: ``-c TEXT``, a file, or stdin."""
    session = session_of(machine)
    for at, word in enumerate(argv[1:], 1):
        if word.startswith("-") and "c" in word and not word.startswith("--"):
            return shell.run(session, argv[at + 1] if at + 1 < len(argv) else "", lambda: stdin)
    words = words_of(argv)
    if words and words[0] not in ("-", "/dev/stdin"):
        if not session.files.exists(words[0]):
            return Result(127, b"", f"sh: 0: cannot open {words[0]}: No such file\n".encode())
        return shell.run(session, session.files.read(words[0]))
    return shell.run(session, stdin.decode("utf-8", "replace"))


def sudo(machine: Machine, argv: list[str], stdin: bytes) -> Result:
    """Only without a password, as ``NOPASSWD:ALL`` in sudoers.d grants it."""
    session, words = session_of(machine), argv[1:]
    while words and words[0].startswith("-"):
        words = words[2:] if words[0] in ("-u", "-g") else words[1:]
    if session.uid != 0 and not granted(session):
        return Result(1, b"", b"sudo: a password is required\n")
    if not words:
        return Result(1, b"", b"usage: sudo -h | -K | -k | -V\n")
    result = session.as_root().run(words, stdin)
    if result.code == 127 and result.err.endswith(b": not found\n"):
        return Result(1, b"", f"sudo: {words[0]}: command not found\n".encode())
    return result


def granted(session: Session) -> bool:
    folder = session.path("/etc/sudoers.d")
    lines = [line for file in sorted(folder.glob("*")) if file.is_file() for line in file.read_text().splitlines()]
    return any(line.split()[:1] == [session.user] and "NOPASSWD:" in line for line in lines)


def passwords(session: Session) -> dict[str, str]:
    """What users type for sudo; ``user:password`` a line stands for the host's shadow file here."""
    return dict(line.split(":", 1) for line in session.files.read(PASSWORDS).splitlines() if ":" in line)


def chpasswd(machine: Machine, argv: list[str], stdin: bytes) -> Result:
    """Program ``chpasswd``: ``user:password`` a line on stdin, for root."""
    session = session_of(machine)
    if session.uid != 0:
        return Result(1, b"", b"chpasswd: Permission denied.\n")
    known = passwords(session)
    pairs = (line.partition(":") for line in stdin.decode("utf-8", "replace").splitlines())
    known.update({user: word for user, colon, word in pairs if colon})
    session.files.write(PASSWORDS, "".join(f"{user}:{word}\n" for user, word in known.items()), 0o600)
    return Result(0)


def install(machine: Machine, argv: list[str], stdin: bytes) -> Result:
    """``install [-d] [-m MODE] SOURCE TARGET``."""
    session, mode, words, rest = session_of(machine), 0o755, list[str](), iter(argv[1:])
    for word in rest:
        if word in ("-m", "-o", "-g"):
            value = next(rest, "")
            mode = int(value, 8) if word == "-m" else mode
        elif not word.startswith("-"):
            words.append(word)
    if not words or not session.files.may(session.uid, words[-1], 2):
        return Result(1, b"", b"install: Permission denied\n")
    try:
        circumstances.check_write(session.host, words[-1])
    except OSError as why:
        return Result(1, b"", f"install: cannot create '{words[-1]}': {why.strerror}\n".encode())
    if "-d" in argv:
        for word in words:
            session.files.make_folders(word, mode)
            session.changed(f"mkdir {word}")
        return Result(0)
    source, target = words[0], words[-1]
    session.files.write(target, stdin if source == "/dev/stdin" else session.path(source).read_bytes(), mode)
    session.changed(f"write {target}")
    return Result(0)


def tee(machine: Machine, argv: list[str], stdin: bytes) -> Result:
    session, err = session_of(machine), b""
    for name in words_of(argv):
        err += shell.save(session, name, stdin, append="-a" in argv)
    return Result(1 if err else 0, stdin, err)


def rm(machine: Machine, argv: list[str], stdin: bytes) -> Result:
    session, err = session_of(machine), ""
    flags = "".join(word[1:] for word in argv[1:] if word.startswith("-"))
    for name in words_of(argv):
        if not session.files.may(session.uid, os.path.dirname(name) or "/", 2):
            err += f"rm: cannot remove '{name}': Permission denied\n"
            continue
        real = session.files.path(name, follow=False)
        if not os.path.lexists(real):
            err += "" if "f" in flags else f"rm: cannot remove '{name}': No such file or directory\n"
        elif real.is_dir() and not real.is_symlink():
            if "r" not in flags:
                err += f"rm: cannot remove '{name}': Is a directory\n"
                continue
            session.files.remove_tree(name)
            session.changed(f"remove {name}")
        else:
            session.files.unlink(name)
            session.changed(f"remove {name}")
    return Result(1 if err else 0, b"", err.encode())


def mkdir(machine: Machine, argv: list[str], stdin: bytes) -> Result:
    session = session_of(machine)
    for name in words_of(argv):
        if not session.files.may(session.uid, name, 2):
            return Result(1, b"", f"mkdir: cannot create directory '{name}': Permission denied\n".encode())
        session.files.make_folders(name)
        session.changed(f"mkdir {name}")
    return Result(0)


def date(machine: Machine, argv: list[str], stdin: bytes) -> Result:
    return Result(0, f"{circumstances.now(systemctl.host_of(machine)):.0f}\n".encode())


def sleep(machine: Machine, argv: list[str], stdin: bytes) -> Result:
    machine.kit.clock.sleep(float(argv[1]) if len(argv) > 1 else 0)
    return Result(0)


def cloud_init(machine: Machine, argv: list[str], stdin: bytes) -> Result:
    """``cloud-init status [--wait] [--long] [--format json]``; exit 1 for errors, 2 for recoverable ones."""
    if argv[1:2] == ["--version"]:
        return Result(0, b"/usr/bin/cloud-init 22.4.2\n")
    if argv[1:2] != ["status"]:
        return Result(2, b"", b"usage: cloud-init [-h] [--version] {init,modules,single,query,status,clean} ...\n")
    host = systemctl.host_of(machine)
    said = cloudinit.status(host)
    while "--wait" in argv and said["status"] in ("running", "not started") and not host.gone.wait(0.05):
        said = cloudinit.status(host)
    code = 1 if said["status"] == "error" else 2 if said["recoverable_errors"] else 0
    if "json" in argv or "--format=json" in argv:
        return Result(code, (json.dumps(said, indent=1) + "\n").encode())
    text = f"status: {said['status']}\n"
    if "--long" in argv or "-l" in argv:
        text += f"detail:\n{said['detail']}\n" + "".join(f"error: {line}\n" for line in said["errors"])
    return Result(code, text.encode())


def apt_get(machine: Machine, argv: list[str], stdin: bytes) -> Result:
    """``apt-get … install NAME…``; anything else has no effect that somebody here could see."""
    _, words = systemctl.options(argv, ("-o",))
    if words[:1] == ["install"]:
        for name in words[1:]:
            cloudinit.add_package(systemctl.host_of(machine), name)
    return Result(0)


def timedatectl(machine: Machine, argv: list[str], stdin: bytes) -> Result:
    if argv[1:2] == ["set-timezone"] and len(argv) > 2:
        systemctl.host_of(machine).files.write("/etc/timezone", f"{argv[2]}\n")
    return Result(0)


PROGRAMS: dict[str, Program] = {
    "true": quiet, "false": false, "echo": echo, "cat": cat, "sha256sum": sha256sum, "base64": encode, "head": ends,
    "tail": ends, "grep": grep, "ls": ls, "stat": look, "test": test, "[": test, "uname": uname, "hostname": hostname,
    "id": identify, "whoami": identify, "sh": sh, "bash": sh, "sudo": sudo, "chpasswd": chpasswd, "install": install,
    "tee": tee, "rm": rm, "mkdir": mkdir, "date": date, "sleep": sleep, "cloud-init": cloud_init,
    "systemctl": systemctl.systemctl, "journalctl": systemctl.journalctl, "python3": python3.python3,
    "modprobe": quiet, "sysctl": kernel.sysctl, "swapoff": quiet, "apt-get": apt_get, "timedatectl": timedatectl,
    "udevadm": quiet, "sync": quiet, **blocks.PROGRAMS,
}  # fmt: skip
"""What the image holds in /usr/bin, by name. Parts of the lab add theirs through ``Hosts.register_program``."""
