"""The key table as text: a whole env file with every key explained, example.env, and the reference in docs.

``python -m funoffshore.config.render FOLDER`` writes the last two below ``FOLDER``.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from funoffshore.config import envfile, keys, needs, place
from funoffshore.config.sections import Key, Section

EXAMPLE_PATH = f"config/env/{place.EXAMPLE}.env"
REFERENCE_PATH = "docs/reference/config.md"

_WIDTH = 110
_GRAMMAR = (
    "Each line is empty, a # comment, or KEY=value without spaces around the =. A value with a space, a # or a quote "
    "in it stands whole in single or double quotes, and holds no such quote itself. Nothing else is special: $, ` and "
    "\\ are what they are, and nothing is ever expanded or run."
)

_EXAMPLE_INTRO = (
    "Every key of a cluster's env file. `fo init NAME` writes one to config/env/NAME.env with mode 0600 and generates "
    "what can be generated; this example is never a cluster. Secrets stand in such a file and nowhere else; Git "
    "ignores them all but this one. " + _GRAMMAR
)

_REFERENCE_INTRO = f"""# The env file

One cluster is one file, `config/env/<cluster>.env`. `fo init <cluster>` writes it; `config/env/example.env` shows every
key. This page is made from the same table as the reader (`python -m funoffshore.config.render .`).

## The file

- A regular file, not a symlink; owned by the user that runs `fo`; mode 0600 or tighter; at most \
{envfile.MAX_BYTES // 1024} KiB, at most {envfile.MAX_LINE_BYTES // 1024} KiB per line.
- UTF-8 without byte order mark. No NUL, tab, carriage return or any other control or invisible character.
- {_GRAMMAR}
- No key stands there twice, and none that is not listed here.
- An empty value says that there is none; only keys whose default is empty take it (and K3S_DISABLE). A key that is not
  in the file has its default. The environment of `fo` never changes a value.
- Every problem is reported at once, by line. The value of a secret is never shown, nor that of an unknown key.

## One machine that differs

`NODE_<C or W><number>_<field>`, like `NODE_W2_MEMORY_MIB=16384`: C1 is the first controller, W1 the first worker, and
there must be as many. The last eight are only for machines that `fo` makes.
"""


def env_text(
    intro: str,
    value: Callable[[Key], str],
    *,
    remark: Mapping[str, str] | None = None,
    single: Mapping[str, str] | None = None,
    without: Collection[str] = (),
) -> str:
    """A whole env file. ``value`` gives each key's text; ``remark`` adds lines to the comments of some keys,
    ``single`` holds settings of single machines, and sections whose titles are in ``without`` are left out. Raises
    ValueError for a value that an env file cannot hold."""
    lines = list(_comment(intro))
    for section in keys.known().sections:
        if section.title in without:
            continue
        lines += ["", "", *_heading(section)]
        for key in section.keys:
            lines += ["", *_comment(_explained(key))]
            lines += _comment((remark or {}).get(key.name, ""))
            lines.append(f"{key.name}={envfile.quote(value(key))}")
        if section.title == "Machines" and single:
            lines += ["", *(f"{name}={envfile.quote(text)}" for name, text in single.items())]
    return "\n".join(lines) + "\n"


def example() -> str:
    """The text of example.env."""
    return env_text(_EXAMPLE_INTRO, _shown)


def reference() -> str:
    """The text of docs/reference/config.md."""
    parts = [_REFERENCE_INTRO, "| field | takes |\n|---|---|"]
    parts[1] += "".join(f"\n| {field} | {_cell(kind.what)} |" for field, kind in keys.NODE_FIELDS.items())
    for section in keys.known().sections:
        rows = "".join(_row(key) for key in section.keys)
        text = f"\n{section.text}\n" if section.text else ""
        parts.append(f"\n## {section.title}\n{text}\n| key | takes | default | why |\n|---|---|---|---|{rows}")
    return "\n".join(parts) + "\n"


def write(folder: Path) -> None:
    """Writes example.env and the reference below ``folder``. Raises OSError."""
    for path, text in ((EXAMPLE_PATH, example()), (REFERENCE_PATH, reference())):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")


def _shown(key: Key) -> str:
    return (key.default or key.example).format(name=place.EXAMPLE)


def _heading(section: Section) -> Iterator[str]:
    yield f"# ==== {section.title} ".ljust(_WIDTH, "=")
    yield from _comment(section.text)


def _comment(text: str) -> Iterator[str]:
    for line in textwrap.wrap(text, _WIDTH - 2, break_long_words=False, break_on_hyphens=False):
        yield f"# {line}"


def _explained(key: Key) -> str:
    about = [key.help, f"Takes {key.kind.what}."]
    if key.unit:
        about.append(f"Unit: {key.unit}.")
    if key.default is None:
        about.append(f"Required {needs.NEEDS[key.required_for].text}." if key.required_for else "Required.")
    elif key.required_when:
        about.append(f"Required while {key.required_when} is true.")
    if key.default:
        about.append(f"Default: {key.default}")
    if key.secret:
        about.append("Secret.")
    return " ".join(about)


def _row(key: Key) -> str:
    takes = key.kind.what + (f" ({key.unit})" if key.unit else "") + (", secret" if key.secret else "")
    default = f"`{key.default}`" if key.default else "required" if key.default is None else "empty"
    if key.required_when:
        default = f"required while {key.required_when}"
    if key.required_for:
        default = f"required {needs.NEEDS[key.required_for].text}"
    return f"\n| `{key.name}` | {_cell(takes)} | {default} | {_cell(key.help)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    import sys

    write(Path(sys.argv[1]))
