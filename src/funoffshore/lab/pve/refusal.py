"""How the API says no."""

from __future__ import annotations

from collections.abc import Mapping


class RefusalError(Exception):
    """An answer that is not 200. The first line of ``text`` becomes the reason phrase."""

    def __init__(
        self, status: int, text: str, *, errors: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.errors = errors
        self.body = body
        """The body where it is not the JSON one; ``b""`` for none."""


def die(text: str) -> RefusalError:
    """A 500, which is what Proxmox makes of every uncaught error."""
    return RefusalError(500, text)


def invalid(**errors: str) -> RefusalError:
    """A 400 that names fields. Field names that are no identifiers go through ``invalid_fields``."""
    return invalid_fields(errors)


def invalid_fields(errors: Mapping[str, str]) -> RefusalError:
    """A 400 that names fields."""
    return RefusalError(400, "Parameter verification failed.", errors=errors)


def forbidden(what: str = "") -> RefusalError:
    """A 403; ``what`` is path and privilege, or nothing where Proxmox names none."""
    return RefusalError(403, f"Permission check failed ({what})" if what else "Permission check failed")


def plain(status: int, text: str) -> RefusalError:
    """An answer in plain text, as the HTTP layer gives before any handler is reached."""
    return RefusalError(status, text, body=text.encode())


def silent(status: int, text: str) -> RefusalError:
    """An answer whose only text is its reason phrase."""
    return RefusalError(status, text, body=b"")


def absent_config(node: str, vmid: int | str) -> str:
    """What Proxmox says about a machine that is not there."""
    return f"Configuration file 'nodes/{node}/qemu-server/{vmid}.conf' does not exist"
