"""What the kernel shows below /proc/sys and of its addresses, and ``sysctl``, which sets it."""

from __future__ import annotations

from funoffshore.lab.hosts.api import Machine, Result
from funoffshore.lab.hosts.files import Files
from funoffshore.lab.hosts.systemctl import host_of

DEFAULTS = {"vm.panic_on_oom": "0", "vm.overcommit_memory": "0", "kernel.panic": "0", "kernel.panic_on_oops": "0"}
"""As Debian 12 boots."""
KNOWN = ("abi.", "fs.", "kernel.", "net.", "user.", "vm.")
FOLDERS = ("/usr/lib/sysctl.d", "/etc/sysctl.d")


def boot(files: Files) -> None:
    """The defaults, then what systemd-sysctl applies of the image's and the host's own files."""
    files.make_folders("/run/systemd/system")  # how sd_booted(3) knows systemd
    for name, value in DEFAULTS.items():
        files.write(place(name), f"{value}\n")
    load_all(files)


def place(name: str) -> str:
    return "/proc/sys/" + name.replace(".", "/")


def load_all(files: Files) -> str:
    """Every file of sysctl.d(5), by name; complaints."""
    found = [file for folder in FOLDERS for file in files.path(folder).glob("*.conf")]
    return "".join(load(files, file.read_text("utf-8", "replace"))[1] for file in sorted(found, key=lambda f: f.name))


def load(files: Files, text: str) -> tuple[str, str]:
    """``name = value`` lines into /proc/sys; what was set, and complaints."""
    out, err = "", ""
    for line in text.splitlines():
        name, equals, value = (part.strip() for part in line.partition("="))
        if not equals or name.startswith(("#", ";")):
            continue
        lenient, name = name.startswith("-"), name.removeprefix("-").replace("/", ".")
        if name.startswith(KNOWN):
            files.write(place(name), f"{value}\n")
            out += f"{name} = {value}\n"
        elif not lenient:
            err += f"sysctl: cannot stat {place(name)}: No such file or directory\n"
    return out, err


def sysctl(machine: Machine, argv: list[str], stdin: bytes) -> Result:
    """``sysctl -p FILE``, ``--system``, ``-w NAME=VALUE``, ``[-n] NAME``; exit 1 for what it does not know."""
    files, words = host_of(machine).files, [word for word in argv[1:] if not word.startswith("-")]
    if "--system" in argv:
        return Result(0, b"", load_all(files).encode())
    if "-p" in argv or "--load" in argv:
        path = words[0] if words else "/etc/sysctl.conf"
        if not files.exists(path):
            return Result(1, b"", f'sysctl: cannot open "{path}": No such file or directory\n'.encode())
        out, err = load(files, files.read(path))
        return Result(1 if err else 0, out.encode(), err.encode())
    out, err = "", ""
    for word in words:
        if "=" in word:
            said, trouble = load(files, word)
            out, err = out + said, err + trouble
        elif files.exists(place(word)):
            value = files.read(place(word)).strip()
            out += f"{value}\n" if "-n" in argv else f"{word} = {value}\n"
        else:
            err += f"sysctl: cannot stat {place(word)}: No such file or directory\n"
    return Result(1 if err else 0, out.encode(), err.encode())


PROGRAMS = {"sysctl": sysctl}
