"""The private key file that SSH_AUTH=file names: read once, with the config, so that everything later sees one key."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from funoffshore.config import files, sshkey
from funoffshore.config.files import FILE, Problem
from funoffshore.config.values import Values

MAX_BYTES = 16 * 1024


def apply(values: Values) -> tuple[Values, list[Problem]]:
    """The values with the text of SSH_KEY_FILE in the place of SSH_PRIVATE_KEY, and what is wrong with that file.

    Nothing is read with another SSH_AUTH. The passphrase is tried out.
    """
    path: Path | None = values.get("SSH_KEY_FILE")
    if values.get("SSH_AUTH") != "file" or path is None or not values.has("SSH_KEY_PASSPHRASE"):
        return values, []
    data, found = files.read(path, MAX_BYTES, _distrust)
    problems = [values.problem("SSH_KEY_FILE", problem.text) for problem in found]
    if data is None:
        return values, problems
    try:
        pem = data.decode("ascii")
        is_protected = sshkey.is_protected(pem)
    except UnicodeDecodeError:
        return values, [*problems, values.problem("SSH_KEY_FILE", "is not an OpenSSH private key file")]
    except ValueError as why:
        return values, [*problems, values.problem("SSH_KEY_FILE", str(why))]
    problems += _opens(values, pem, is_protected=is_protected)
    return dataclasses.replace(values, parsed={**values.parsed, "SSH_PRIVATE_KEY": pem}), problems


def _opens(values: Values, pem: str, *, is_protected: bool) -> Iterator[Problem]:
    passphrase: str = values["SSH_KEY_PASSPHRASE"]
    if is_protected and not passphrase:
        yield values.problem("SSH_KEY_PASSPHRASE", "is required, as SSH_KEY_FILE has one; or use SSH_AUTH=agent")
    elif passphrase and not is_protected:
        yield values.problem("SSH_KEY_PASSPHRASE", "is given, and SSH_KEY_FILE has none")
    else:
        try:
            if not is_protected:
                sshkey.check(pem)
            sshkey.unlock(pem, passphrase)
        except ValueError as why:
            yield values.problem("SSH_KEY_FILE", str(why))


def _distrust(status: os.stat_result) -> Iterator[Problem]:
    if status.st_uid != os.geteuid():
        yield Problem(FILE, f"belongs to uid {status.st_uid}, and fo runs as uid {os.geteuid()}")
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o177:
        yield Problem(FILE, f"has mode {mode:04o}; a private key must have 0600 (chmod 600)")
