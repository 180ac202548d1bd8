"""Stand-ins for the modules through which a program meets its machine: every path below the host's root."""

from __future__ import annotations

import errno
import json
import os
import posixpath
import shutil
import stat
import subprocess
import time
import types
import urllib.error
import urllib.request
from typing import IO, Any
from urllib.parse import urlsplit

from funoffshore.lab.hosts import circumstances
from funoffshore.lab.hosts.blocks import room
from funoffshore.lab.hosts.files import Attributes, named
from funoffshore.lab.hosts.machine import Session
from funoffshore.lab.hosts.skeleton import KERNEL

NOTES = ("/var/lib/funoffshore", "/run/funoffshore")
"""Where fo's helper keeps digests and answers; that is no change to the host."""
PURE = (
    "O_RDONLY", "O_WRONLY", "O_RDWR", "O_CREAT", "O_EXCL", "O_TRUNC", "O_APPEND", "O_NOFOLLOW", "O_CLOEXEC",
    "O_DIRECTORY", "F_OK", "R_OK", "W_OK", "X_OK", "SEEK_SET", "SEEK_END", "close", "read", "write", "fspath", "sep",
    "linesep", "name", "error", "devnull", "strerror", "urandom", "getpid", "fsencode", "fsdecode", "fdopen",
)  # fmt: skip


def uname(session: Session) -> os.uname_result:
    """What the host's kernel says."""
    return os.uname_result(("Linux", session.name, KERNEL, "#1 SMP Debian 6.1", hardware_name(session)))


def hardware_name(session: Session) -> str:
    """``x86_64`` or ``aarch64``."""
    return circumstances.MACHINES[circumstances.architecture(session.host)]


class Opener:
    """``open`` on a host."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def open(self, file: Any, mode: str = "r", *rest: Any, **options: Any) -> IO[Any]:
        """Descriptors pass; a path is the host's, and its modes count for whoever is not root."""
        if isinstance(file, int):
            return open(file, mode, *rest, **options)
        path = os.fspath(file)
        if path == os.devnull:
            return open(os.devnull, mode, *rest, **options)
        writing = any(sign in mode for sign in "wxa+")
        self.check(path, 2 if writing else 4)
        if writing:
            circumstances.check_write(self._session.host, path)
        real = self._session.path(path)
        if os.path.isdir(real):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        with named(path):
            stream = open(real, mode, *rest, **options)  # noqa: SIM115  # the caller closes it
        if writing:
            self.changed("write", path)
        return stream

    def check(self, path: str, want: int) -> None:
        """Raises OSError where the user may not, or the disk cannot be written."""
        if want == 2 and circumstances.is_read_only(self._session.host, path):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        if not self._session.files.may(self._session.uid, path, want):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    def changed(self, verb: str, path: str) -> None:
        """A temporary file beside its target is no change yet."""
        if not path.startswith(NOTES) and not os.path.basename(path).startswith("."):
            self._session.changed(f"{verb} {path}")


class HostOs(types.ModuleType):
    """``os`` on a host, as far as programs here use it; anything else is an AttributeError."""

    def __init__(self, session: Session, opener: Opener) -> None:
        super().__init__("os")
        self._session = session
        self._files = session.files
        self._opener = opener
        self.environ = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "USER": session.user}
        self.path = HostPath(session)
        for name in PURE:
            setattr(self, name, getattr(os, name))

    def stat(self, path: Any, *, follow_symlinks: bool = True) -> Attributes:
        if isinstance(path, int):
            return self._files.dress(os.stat(path))
        return self._files.stat(os.fspath(path), follow=follow_symlinks)

    def lstat(self, path: Any) -> Attributes:
        return self.stat(path, follow_symlinks=False)

    def fstat(self, handle: int) -> Attributes:
        return self.stat(handle)

    def open(self, path: str, flags: int, mode: int = 0o777) -> int:
        writing = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        self._opener.check(path, 2 if writing else 4)
        if writing:
            circumstances.check_write(self._session.host, path)
        with named(path):
            handle = os.open(self._files.path(path, follow=not flags & os.O_EXCL), flags, 0o600)
        if flags & os.O_CREAT:
            self._files.chmod(handle, mode & ~0o022)
        if writing:
            self._opener.changed("write", path)
        return handle

    def fsync(self, handle: int) -> None:
        """The simulated disk loses nothing."""

    def chmod(self, path: str, mode: int) -> None:
        self._opener.check(path, 2)
        if stat.S_IMODE(self.stat(path).st_mode) != mode:
            self._files.chmod(self._files.path(path), mode)
            self._opener.changed("chmod", path)

    def chown(self, path: str, uid: int, gid: int) -> None:
        with named(path):
            self._files.chown(self._files.path(path), uid, gid)
        self._opener.changed("chown", path)

    def fchmod(self, handle: int, mode: int) -> None:
        self._files.chmod(handle, mode)

    def fchown(self, handle: int, uid: int, gid: int) -> None:
        self._files.chown(handle, uid, gid)

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        self._opener.check(path, 2)
        circumstances.check_write(self._session.host, path)
        with named(path):
            real = self._files.path(path)
            os.mkdir(real)
        self._files.chmod(real, mode & ~0o022)
        self._opener.changed("mkdir", path)

    def makedirs(self, path: str, mode: int = 0o777, exist_ok: bool = False) -> None:
        if self._files.exists(path) and not exist_ok:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        self._files.make_folders(path, mode & ~0o022)

    def unlink(self, path: str) -> None:
        self._opener.check(os.path.dirname(path) or "/", 2)
        self._files.unlink(path)
        self._opener.changed("remove", path)

    remove = unlink

    def rmdir(self, path: str) -> None:
        self._opener.check(os.path.dirname(path) or "/", 2)
        with named(path):
            os.rmdir(self._files.path(path, follow=False))
        self._opener.changed("remove", path)

    def replace(self, old: str, new: str) -> None:
        self._opener.check(os.path.dirname(new) or "/", 2)
        self._files.replace(old, new)
        self._opener.changed("write", new)

    rename = replace

    def symlink(self, target: str, path: str) -> None:
        with named(path):
            os.symlink(target, self._files.path(path, follow=False))
        self._opener.changed("write", path)

    def readlink(self, path: str) -> str:
        with named(path):
            return os.readlink(self._files.path(path, follow=False))

    def listdir(self, path: str = "/") -> list[str]:
        with named(path):
            return os.listdir(self._files.path(path))

    def access(self, path: str, want: int) -> bool:
        return self._files.exists(path) and self._files.may(self._session.uid, path, want)

    def statvfs(self, path: str) -> Any:
        """The file system that holds the path, as big as its superblock says."""
        self.stat(path)
        block = 4096
        size, used = room(self._session.host, path)
        blocks = size // block
        # Where the lab's own disk, or what a test has mounted there, has less, that is what counts.
        real = os.statvfs(self._files.path(path))
        free = min(max(blocks - used // block, 0), real.f_bavail * real.f_frsize // block)
        return types.SimpleNamespace(
            f_bsize=block, f_frsize=block, f_blocks=blocks, f_bfree=free, f_bavail=free,
            f_files=blocks // 4, f_ffree=blocks // 4 - 40000, f_favail=blocks // 4 - 40000,
        )  # fmt: skip

    def uname(self) -> os.uname_result:
        return uname(self._session)

    def cpu_count(self) -> int:
        return self._session.host.hardware.cores

    def getuid(self) -> int:
        return self._session.uid

    geteuid = getuid

    def umask(self, mask: int) -> int:
        """Always 022 here."""
        return 0o022

    def getenv(self, name: str, default: str | None = None) -> str | None:
        return self.environ.get(name, default)


class HostPath(types.ModuleType):
    """``os.path`` on a host: text functions are the real ones, questions go to the host's files."""

    def __init__(self, session: Session) -> None:
        super().__init__("os.path")
        self._files = session.files
        for name in ("join", "dirname", "basename", "split", "splitext", "normpath", "isabs", "sep", "relpath"):
            setattr(self, name, getattr(posixpath, name))

    def _mode(self, path: str, *, follow: bool = True) -> int:
        try:
            return self._files.stat(path, follow=follow).st_mode
        except OSError:
            return 0

    def exists(self, path: str) -> bool:
        return self._mode(path) != 0

    def lexists(self, path: str) -> bool:
        return self._mode(path, follow=False) != 0

    def isfile(self, path: str) -> bool:
        return stat.S_ISREG(self._mode(path))

    def isdir(self, path: str) -> bool:
        return stat.S_ISDIR(self._mode(path))

    def islink(self, path: str) -> bool:
        return stat.S_ISLNK(self._mode(path, follow=False))

    def getsize(self, path: str) -> int:
        return self._files.stat(path).st_size

    def realpath(self, path: str) -> str:
        return "/" + str(self._files.path(path).relative_to(self._files.root)).removeprefix(".")


def subprocess_of(session: Session) -> Any:
    """``subprocess``: run and check_output of the host's programs. A timeout is in lab seconds."""

    def run(argv: Any, *, input: bytes | None = None, timeout: float | None = None, **options: Any) -> Any:
        words = [os.fspath(word) for word in argv]
        if options.get("shell"):
            raise ValueError("shell=True is not known here")
        if session.host.find(words[0]) is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), words[0])
        data = input.encode() if isinstance(input, str) else input or b""
        result = session.run(words, data) if timeout is None else session.run_within(words, data, timeout)
        if result is None:
            raise subprocess.TimeoutExpired(words, timeout or 0)
        if result.code == 126 and b"Exec format error" in result.err:
            raise OSError(errno.ENOEXEC, os.strerror(errno.ENOEXEC), words[0])
        if result.code == 126:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), words[0])
        text = options.get("text") or options.get("universal_newlines")
        out, err = (s.decode("utf-8", "replace") if text else s for s in (result.out, result.err))
        done = subprocess.CompletedProcess(words, result.code, out, err)
        if options.get("check"):
            done.check_returncode()
        return done

    return types.SimpleNamespace(
        run=run, check_output=lambda argv, **options: run(argv, check=True, **options).stdout,
        PIPE=subprocess.PIPE, DEVNULL=subprocess.DEVNULL, STDOUT=subprocess.STDOUT,
        CompletedProcess=subprocess.CompletedProcess, TimeoutExpired=subprocess.TimeoutExpired,
        CalledProcessError=subprocess.CalledProcessError,
    )  # fmt: skip


def time_of(session: Session) -> Any:
    """``time`` on the lab's clock."""
    clock = session.kit.clock

    def now() -> float:
        return circumstances.now(session.host)

    return types.SimpleNamespace(
        time=now, monotonic=clock.monotonic, perf_counter=clock.monotonic, sleep=clock.sleep,
        strftime=time.strftime, gmtime=time.gmtime, localtime=time.localtime, time_ns=lambda: int(now() * 1e9),
    )  # fmt: skip


def shutil_of(session: Session) -> Any:
    """``shutil``, as far as it needs no more than whole files."""
    files = session.files

    def usage(path: str) -> Any:
        disk = HostOs(session, Opener(session)).statvfs(path)
        size, free = disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize
        return types.SimpleNamespace(total=size, free=free, used=size - free)

    def remove_tree(path: str, ignore_errors: bool = False) -> None:
        files.remove_tree(path)
        session.changed(f"remove {path}")

    return types.SimpleNamespace(
        which=session.host.find, disk_usage=usage, rmtree=remove_tree, copyfileobj=shutil.copyfileobj
    )


def urllib_request_of(session: Session) -> Any:
    """``urllib.request``: real HTTP, to where the lab listens, after the time a download takes."""

    def urlopen(url: Any, data: Any = None, timeout: float = 60, **options: Any) -> Any:
        request = url if isinstance(url, urllib.request.Request) else urllib.request.Request(url)  # noqa: S310
        if urlsplit(request.full_url).scheme not in ("http", "https"):
            raise urllib.error.URLError(f"unknown url type: {request.type}")
        session.kit.clock.sleep(session.kit.latencies.host_download)
        try:
            circumstances.resolve(session.host, urlsplit(request.full_url).hostname or "")
        except OSError as why:
            raise urllib.error.URLError(why) from None
        host = urlsplit(request.full_url)
        moved = detour(session, f"{host.hostname}:{host.port or (443 if host.scheme == 'https' else 80)}")
        if moved:
            request.add_unredirected_header("Host", host.netloc)
            request.host = moved
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        return opener.open(request, data, timeout)

    return types.SimpleNamespace(urlopen=urlopen, Request=urllib.request.Request)


def detour(session: Session, where: str) -> str:
    """Where the lab listens instead of at ``where`` (see ``base.Routes``), or empty."""
    try:
        moved = json.loads((session.kit.directory / "routes.json").read_text()).get(where)
    except (OSError, ValueError):
        return ""
    return f"{moved[0]}:{moved[1]}" if moved else ""
