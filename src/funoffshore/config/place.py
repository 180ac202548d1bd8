"""Where env files are, and which one is meant."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from funoffshore import errors
from funoffshore.config import kinds

EXAMPLE = "example"
"""Stem of the file that explains every key. It is never a cluster."""


def root(start: Path) -> Path:
    """The operator's repository: ``start`` or its nearest parent that holds ``config/env``, else ``start``."""
    start = start.absolute()
    return next((folder for folder in (start, *start.parents) if (folder / "config" / "env").is_dir()), start)


def env_file(root: Path, name: str) -> Path:
    """Where cluster ``name`` has its env file. Raises ConfigError when ``name`` cannot be a cluster's."""
    if not kinds.is_cluster(name):
        raise errors.ConfigError(
            f"a cluster's name is {kinds.CLUSTER.what}", fix="give the name of a file in config/env, without .env"
        )
    return root / "config" / "env" / f"{name}.env"


def lock_file(root: Path, name: str) -> Path:
    """Where cluster ``name`` has its lock file. Raises ConfigError when ``name`` cannot be a cluster's."""
    return root / "config" / "lock" / env_file(root, name).with_suffix(".yaml").name


def clusters(root: Path) -> list[str]:
    """Names of the clusters that have an env file, sorted; whether the files can be read is not looked at."""
    found = (path.stem for path in (root / "config" / "env").glob("*.env"))
    return sorted(name for name in found if name != EXAMPLE and kinds.is_cluster(name))


def find(root: Path, name: str | None, environ: Mapping[str, str]) -> Path:
    """The env file that is meant: by ``name`` (``-c``), else by FO_CLUSTER, else the only one there is.

    Raises ConfigError that lists the choices when that leaves none, or more than one.
    """
    wanted = name if name is not None else environ.get("FO_CLUSTER") or None
    known = clusters(root)
    if wanted is not None:
        path = env_file(root, wanted)
        if wanted == EXAMPLE or not (path.exists() or path.is_symlink()):
            raise errors.ConfigError(
                f"there is no cluster {wanted}: config/env/{wanted}.env "
                + ("is the example" if wanted == EXAMPLE else "does not exist"),
                fix=f"run `fo init {'NAME' if wanted == EXAMPLE else wanted}`, or choose another with -c",
                evidence=_choices(known),
            )
        return path
    if len(known) == 1:
        return env_file(root, known[0])
    if not known:
        raise errors.ConfigError("there is no env file in config/env", fix="run `fo init NAME`, which writes one")
    raise errors.ConfigError(
        f"config/env holds {len(known)} clusters, and none is chosen",
        fix="choose one with -c NAME or FO_CLUSTER=NAME",
        evidence=_choices(known),
    )


def shown(path: Path, root: Path) -> str:
    """``path`` for a message: relative to ``root`` where it is below, and printable."""
    path = path.absolute()
    text = str(path.relative_to(root.absolute()) if path.is_relative_to(root.absolute()) else path)
    return "".join(c if c.isprintable() else "?" for c in text)


def _choices(known: list[str]) -> tuple[str, ...]:
    return (f"clusters: {', '.join(known)}",) if known else ()
