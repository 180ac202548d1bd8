"""What a key of an env file is."""

from __future__ import annotations

from dataclasses import dataclass

from funoffshore.config.kinds import Kind


@dataclass(frozen=True, slots=True)
class Key:
    """One key of an env file."""

    name: str
    kind: Kind
    help: str
    """Why it is there and how to choose it."""
    default: str | None = ""
    """As it would stand in the file. None: must be given; empty: may be empty."""
    secret: bool = False
    unit: str = ""
    example: str = ""
    """What example.env shows where there is no default."""
    generate: str = ""
    """Name of a generator of ``config.new``; empty when only the operator knows the value."""
    required_when: str = ""
    """The switch that, when true, makes the key required."""
    required_for: str = ""
    """Without a default: what the key is required for, a name of ``needs.NEEDS``; empty: always."""
    may_be_empty: bool = False
    """Whether an empty value says "none" although there is a default; where the default is empty it always may."""
    lab: str | None = None
    """The value in a lab's file where it differs; ``{prefix}``, ``{web}``, … are filled in."""


@dataclass(frozen=True, slots=True)
class Section:
    """Keys that belong together."""

    title: str
    text: str
    keys: tuple[Key, ...]
