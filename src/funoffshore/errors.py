"""Every error that ``fo`` shows, one exit code per class.

::

    FoError                     1   a bug in fo, or something nobody thought of
    ├── ConfigError             2   env file, flags or arguments are wrong
    ├── PreflightError          3   a precondition on the outside is not met (privilege, address in use, space)
    ├── TrustError              4   a pin, host key or CA differs from what was promised
    ├── UnreachableError        5   a door does not answer (network, name, port, timeout)
    ├── RefusedError            6   the other side answered and said no
    ├── TaskFailedError         7   something that was started ended badly (Proxmox task, unit, reconcile)
    ├── DeadlineError           8   a wait ran out; carries the evidence
    ├── StillPlannedError       9   an action ended well, and a fresh look plans it again
    ├── ForeignError           10   the thing is not ours, so it is not touched
    ├── LockedError            11   another fo run holds the lock
    ├── StateError             12   a file that fo wrote is unreadable, tampered with or from the future
    ├── DigestError            13   a download is not the bytes that were pinned
    ├── CheckFailedError       20   postcheck: at least one check failed
    ├── CheckUnknownError      21   postcheck: nothing failed, but something could not be looked at
    ├── GateClosedError        22   the gate is closed
    └── InterruptedRunError   130   Ctrl-C; the run can be resumed
"""

from __future__ import annotations

from typing import ClassVar


class FoError(Exception):
    """What is wrong, where, and what to do about it. ``str()`` is one line that never holds a secret."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, fix: str = "", evidence: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix
        """What the operator can do, an imperative sentence; empty when there is nothing."""
        self.evidence = evidence
        """Lines that back the message (task log, journal, conditions), already free of secrets."""


class ConfigError(FoError):
    """Env file, flags or arguments are wrong."""

    exit_code = 2


class PreflightError(FoError):
    """A precondition on the outside is not met; nothing was changed."""

    exit_code = 3


class TrustError(FoError):
    """A pin, host key or CA differs from what was promised. Nothing secret was sent."""

    exit_code = 4


class UnreachableError(FoError):
    """A door does not answer. Says nothing about what is behind it."""

    exit_code = 5


class RefusedError(FoError):
    """The other side answered and said no."""

    exit_code = 6

    def __init__(self, message: str, *, status: int = 0, fix: str = "", evidence: tuple[str, ...] = ()) -> None:
        super().__init__(message, fix=fix, evidence=evidence)
        self.status = status
        """HTTP status where there was one, else 0."""


class TaskFailedError(FoError):
    """Something that was started ended badly."""

    exit_code = 7


class DeadlineError(FoError):
    """A wait ran out."""

    exit_code = 8


class StillPlannedError(FoError):
    """An action ended well, and a fresh look plans it again."""

    exit_code = 9


class ForeignError(FoError):
    """The thing is not ours, so it is not touched."""

    exit_code = 10


class LockedError(FoError):
    """Another fo run holds the lock."""

    exit_code = 11


class StateError(FoError):
    """A file that fo wrote is unreadable, tampered with or from the future."""

    exit_code = 12


class DigestError(FoError):
    """A download is not the bytes that were pinned."""

    exit_code = 13


class CheckFailedError(FoError):
    """At least one postcheck failed."""

    exit_code = 20


class CheckUnknownError(FoError):
    """No postcheck failed, but at least one could not look."""

    exit_code = 21


class GateClosedError(FoError):
    """The gate is closed."""

    exit_code = 22


class InterruptedRunError(FoError):
    """The operator stopped the run; running it again resumes it."""

    exit_code = 130
