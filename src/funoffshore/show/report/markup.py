"""Elements as text. Whatever is not ``Markup`` is escaped, so nothing that was read can become an element."""

from __future__ import annotations

import html
import re
import unicodedata

_VOID = frozenset({"meta", "br"})
_HIDDEN = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class Markup(str):
    """Text that is HTML already. Made by this module only."""

    __slots__ = ()


def tag(name: str, /, *inside: str, **attributes: str | float | None) -> Markup:
    """One element. ``class_`` is ``class`` and ``_`` in other names is ``-``; None leaves an attribute out."""
    values = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_plain(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{values}>")
    return Markup(f"<{name}{values}>{join(*inside)}</{name}>")


def join(*parts: str) -> Markup:
    """Parts one after the other."""
    return Markup("".join(p if isinstance(p, Markup) else escape(p) for p in parts))


def raw(text: str) -> Markup:
    """For text that is part of this program, never for anything that was read."""
    return Markup(text)


def escape(text: str) -> str:
    """Safe between tags and in quoted attributes. Characters that are no text, or that turn its direction around
    and so could make it read as something else, become U+FFFD."""
    return html.escape(_HIDDEN.sub("\ufffd", "".join(map(_printable, text))))


def _printable(sign: str) -> str:
    if sign.isprintable() or sign in "\n\t":
        return sign
    return "\ufffd" if unicodedata.category(sign) in ("Cc", "Cs") else sign


def _plain(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")


def fit(text: str, width: float, per_sign: float) -> str:
    """As much of ``text`` as fits into ``width`` pixels when a sign takes ``per_sign``, with … for the rest."""
    room = int(width / per_sign)
    if len(text) <= room:
        return text
    return text[: room - 1] + "…" if room > 2 else ""


def duration(seconds: float) -> str:
    """``0.4 s``, ``12 s``, ``3 min 05 s``, ``1 h 02 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def plural(count: int, noun: str) -> str:
    """``1 action``, ``2 actions``."""
    return f"{count} {noun}" + ("" if count == 1 else "s")
