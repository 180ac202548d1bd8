"""What a host's answer means when it is not the one that was hoped for: our errors, and what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from funoffshore import errors
from funoffshore.config import model
from funoffshore.world import hostlook
from funoffshore.world.ssh import wire
from funoffshore.world.ssh.streams import Ended


def nonsense(node: model.Node, why: Exception) -> errors.RefusedError:
    kind = str(why) if isinstance(why, wire.ReplyError) else "not JSON"
    return errors.RefusedError(
        f"{node.name} answered over SSH, but not with the reply that was asked for ({kind})",
        fix="a shell profile or a wrapper around sudo or python3 prints into the answer: make it silent",
    )


def refusal(node: model.Node, settings: model.Ssh, ended: Ended) -> errors.RefusedError:
    """Only stderr is quoted, without any line of it that shows the program: the request stands in there."""
    said = (line.strip()[:300] for line in ended.err.decode("utf-8", "replace").splitlines())
    lines = tuple(line for line in said if line and "main(" not in line)[-5:]
    if ended.asked > 1 or (ended.asked and b"incorrect password" in ended.err):
        return errors.RefusedError(
            f"{node.name}: sudo does not take the password of {settings.user} that SSH_SUDO_PASSWORD says",
            fix="correct SSH_SUDO_PASSWORD in the env file, or give the user passwordless sudo (NOPASSWD:ALL)",
            evidence=lines,
        )
    if b"not in the sudoers file" in ended.err:
        return errors.RefusedError(
            f"{node.name}: {settings.user} may not use sudo", fix=f"as root there: adduser {settings.user} sudo"
        )
    last = lines[-1] if lines else "no word"
    fix = ""
    if "password is required" in last:
        fix = f"set SSH_SUDO_PASSWORD, or give {settings.user} passwordless sudo (ALL=(ALL) NOPASSWD:ALL)"
    elif re.search(r"\bsudo: (command )?not found", last):
        fix = "install sudo on the host, or set SSH_USER=root"
    elif ended.code == 127 or re.search(r"python3: (command )?not found", last):
        fix = "install python3 on the host"
    elif re.match(r"(Syntax|Type|Import|ModuleNotFound)Error\b", last):
        fix = "the host needs Python 3.9 or later, whole (python3 --version; on Debian: apt-get install python3)"
    elif "sudo" in last:
        fix = f"{settings.user} needs sudo for everything (ALL=(ALL) NOPASSWD:ALL, or ALL=(ALL:ALL) ALL)"
    return errors.RefusedError(
        f"{node.name} did not run the helper: exit {ended.code}, {last}", fix=fix, evidence=lines
    )


def failure(node: model.Node, outcome: Mapping[str, Any]) -> errors.FoError:
    """The error of a change that failed, as its kind asks for."""
    message = f"{node.name}: {outcome.get('on')}: {hostlook.without_secrets(str(outcome.get('error', 'not done')))}"
    match outcome.get("kind"):
        case "digest":
            return errors.DigestError(message, fix="check version and sha256 in the env file against the release")
        case "network":
            return errors.UnreachableError(message, fix="can the host reach that address? (route, DNS, proxy)")
        case "lost":
            return errors.UnreachableError(message, fix="run it again: what was done is seen, and not done twice")
        case "space":
            return errors.PreflightError(message, fix="free space on the host, or give the machine a bigger disk")
        case "readonly":
            return errors.RefusedError(
                f"{message} (the file system is mounted read-only)",
                fix="Linux does that to a failing disk: look at dmesg on the host, check the disk, "
                "run fsck on the unmounted file system, then mount it read-write",
            )
        case "k3s":
            return errors.TaskFailedError(message, evidence=last_words(outcome))
        case "unit" | "timeout" | "disk" | "sysctl":
            return errors.TaskFailedError(message)
    return errors.RefusedError(message)


def last_words(outcome: Mapping[str, Any]) -> tuple[str, ...]:
    """The last lines that K3s said, without its tokens."""
    said = "\n".join(str(outcome.get(stream, "")) for stream in ("out", "err"))
    lines = [line.strip()[:400] for line in hostlook.without_secrets(said).splitlines()]
    return tuple(line for line in lines if line)[-10:]
