"""Git over SSH: a real sshd that lets one key in and runs nothing but git, on the repositories of one folder."""

from __future__ import annotations

import contextlib
import subprocess
import time
from pathlib import Path

from bench.hosts.commands import run

USER = "git"
NEEDS = ("sshd", "ssh-keygen")
STARTING = 10.0
_COMMAND = """\
#!/bin/sh
# What a forge runs for a key: git's own two programs, on a repository below the folder.
set -eu
case ${SSH_ORIGINAL_COMMAND:-} in
"git-upload-pack "* | "git-receive-pack "*) ;;
*) echo "this key is good for git alone" >&2; exit 1 ;;
esac
path=${SSH_ORIGINAL_COMMAND#* }
path=${path#?}
path=${path%?}
case $path in *..* | *[!A-Za-z0-9/._-]*) echo "there is no such repository" >&2; exit 1 ;; esac
cd FOLDER
exec "${SSH_ORIGINAL_COMMAND%% *}" "./${path#/}"
"""


class SshGit:
    """Listens on ``address``:22 between ``start`` and ``stop``. Needs root and a mount namespace of its own."""

    def __init__(self, address: str, folder: Path, repositories: Path) -> None:
        self._address = address
        self._folder = folder
        self._repositories = repositories
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def deploy_key(self) -> Path:
        """The private key that is let in, 0600, OpenSSH form."""
        return self._folder / "deploy"

    def known_host(self, name: str) -> str:
        """The server's line for known_hosts."""
        kind, key, *_ = (self._folder / "host.pub").read_text().split()
        return f"{name} {kind} {key}"

    def prepare(self) -> None:
        """Makes host key, deploy key and settings."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("host", "deploy"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"bench {name}", "-f", self._folder / name)
        command = self._folder / "command"
        command.write_text(_COMMAND.replace("FOLDER", str(self._repositories)))
        command.chmod(0o755)
        public = (self._folder / "deploy.pub").read_text().strip()
        (self._folder / "authorized_keys").write_text(f"restrict {public}\n")
        settings = {
            "ListenAddress": f"{self._address}:22", "HostKey": self._folder / "host", "UsePAM": "no",
            "AuthorizedKeysFile": self._folder / "authorized_keys", "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no", "PermitRootLogin": "yes", "AllowUsers": USER, "StrictModes": "no",
            "PidFile": "none", "ForceCommand": command, "PrintMotd": "no",
        }  # fmt: skip
        (self._folder / "sshd_config").write_text("".join(f"{key} {value}\n" for key, value in settings.items()))

    def start(self) -> None:
        """Returns once it listens. Raises OSError, CommandError."""
        self.prepare()
        self._know_user()
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        sshd = run("sh", "-c", "command -v sshd || echo /usr/sbin/sshd").strip()
        with (self._folder / "sshd.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sshd, "-D", "-e", "-f", str(self._folder / "sshd_config")], stdin=subprocess.DEVNULL, stderr=log
            )
        give_up = time.monotonic() + STARTING
        while b"Server listening" not in (self._folder / "sshd.log").read_bytes():
            if self._process.poll() is not None or time.monotonic() > give_up:
                raise OSError(f"sshd does not start: {(self._folder / 'sshd.log').read_text()[-300:]}")
            time.sleep(0.02)

    def _know_user(self) -> None:
        """A user ``git`` that exists in this mount namespace alone."""
        known = self._folder / "passwd"
        known.write_text(Path("/etc/passwd").read_text() + f"{USER}:x:0:0:bench:/:/bin/sh\n")
        known.chmod(0o644)
        run("mount", "--bind", known, "/etc/passwd")

    def stop(self) -> None:
        """Nobody listens any more."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            self._process = None
