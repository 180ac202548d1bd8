"""Words of a command line, and tables as Go's tabwriter prints them."""

from __future__ import annotations


def option(argv: list[str], name: str, default: str = "") -> str:
    """The last value of ``--name VALUE`` or ``--name=VALUE``."""
    found = options(argv, name)
    return found[-1] if found else default


def options(argv: list[str], name: str) -> list[str]:
    """Every value of the option, in order; an option without a value counts as empty."""
    found = []
    for index, word in enumerate(argv):
        bare, given, value = word.partition("=")
        if word.startswith("-") and bare.lstrip("-") == name:
            found.append(value if given else argv[index + 1] if index + 1 < len(argv) else "")
    return found


def plain(argv: list[str], switches: frozenset[str] = frozenset()) -> list[str]:
    """The words that are neither options nor their values; ``switches`` are options without one."""
    found, rest = [], list(argv)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            found.append(word)
        elif "=" not in word and word.lstrip("-") not in switches and rest:
            rest.pop(0)
    return found


def table(rows: list[tuple[str, ...]], gap: str = "  ") -> bytes:
    """Columns as wide as their widest cell."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "".join(
        gap.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows
    ).encode()
