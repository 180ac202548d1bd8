"""Whatever bytes stand in an env file: a config, or one ConfigError that shows no secret. Nothing else, and quickly."""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from config_samples import ROOT, home, lab, private, refuse, secrets_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from funoffshore import config, errors
from funoffshore.config import envfile, keys, new, values
from funoffshore.config.sections import Key

_KEYS = (*keys.known().keys.values(), *(Key(f"NODE_W1_{name}", kind, "") for name, kind in keys.NODE_FIELDS.items()))
_EXAMPLES = 20_000 if os.environ.get("FO_HYPOTHESIS") == "thorough" else 60
_PIECE = 10
"""Characters of a secret in a row that count as a leak."""

_JUNK = (
    "\0", "\r", "\t", "\x1b[2J", "\ufeff", "\u202e", "\u2028", "\x85", "'", '"', "#", " ", "=", "\n", "\n\n", "$(id)",
    "`id`", "${HOME}", "%s", "{0}", "\\", ";", ",", "/", "../", "::1", "0x10", "1e9", "-1", "٣", "é" * 5, "A" * 5000,
    "[Errno 2]", "<script>", "\U0001f600",
)  # fmt: skip


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def _insert(text: str, luck: random.Random) -> str:
    at = luck.randrange(len(text))
    return text[:at] + luck.choice(_JUNK) + text[at:]


def _cut(text: str, luck: random.Random) -> str:
    at = luck.randrange(len(text))
    return text[:at] + text[at + luck.randrange(1, 40) :]


def _swap_values(text: str, luck: random.Random) -> str:
    lines = _lines(text)
    one, other = luck.sample(range(len(lines)), 2)
    (a, x), (b, y) = (lines[n].split("=", 1) for n in (one, other))
    lines[one], lines[other] = f"{a}={y}", f"{b}={x}"
    return "\n".join(lines)


def _replace_value(text: str, luck: random.Random) -> str:
    lines = _lines(text)
    at = luck.randrange(len(lines))
    lines[at] = lines[at].split("=", 1)[0] + "=" + luck.choice(_JUNK)
    return "\n".join(lines)


def _rename(text: str, luck: random.Random) -> str:
    lines = _lines(text)
    at = luck.randrange(len(lines))
    lines[at] = luck.choice(["X", "", "export ", " ", "'", "NODE_C1_", "\t"]) + lines[at]
    return "\n".join(lines)


def _repeat(text: str, luck: random.Random) -> str:
    lines = _lines(text)
    return "\n".join(lines + luck.choices(lines, k=luck.randrange(1, 9)))


def _truncate(text: str, luck: random.Random) -> str:
    return text[: luck.randrange(len(text))]


def _join_lines(text: str, luck: random.Random) -> str:
    lines = _lines(text)
    at = luck.randrange(len(lines) - 1)
    return "\n".join([*lines[:at], lines[at] + luck.choice(["", " ", ";"]) + lines[at + 1], *lines[at + 2 :]])


_MUTATIONS: tuple[Callable[[str, random.Random], str], ...] = (
    _insert, _cut, _swap_values, _replace_value, _rename, _repeat, _truncate, _join_lines,
)  # fmt: skip


def _mutant(number: int) -> bytes:
    luck = random.Random(number)  # noqa: S311 - the files must be the same in every run
    text = home() if number % 3 else lab()
    text = "\n".join(_lines(text))
    for _ in range(luck.randrange(1, 4)):
        text = luck.choice(_MUTATIONS)(text or "A", luck)
    data = text.encode("utf-8", "surrogatepass")
    if number % 10 == 0:
        at = luck.randrange(len(data) + 1)
        data = data[:at] + bytes(luck.randrange(256) for _ in range(3)) + data[at:]
    return data


def _leaks(error: errors.ConfigError, secrets: list[str]) -> list[str]:
    said = "\n".join((str(error), repr(error), error.fix, *error.evidence))
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__
    pieces = {s[n : n + _PIECE] for s in secrets for n in range(len(s) - _PIECE + 1)}
    return [piece for piece in pieces if piece in said and piece not in "AGE-SECRET-KEY-1"]


def _judge(error: errors.ConfigError | None) -> None:
    """Either the file was right, or the error is one that may be shown to anybody."""
    if error is None:
        return
    assert error.exit_code == 2
    assert error.evidence
    assert all(line.isprintable() for line in (str(error), error.fix, *error.evidence))
    assert _leaks(error, secrets_of(home()) + secrets_of(lab())) == []


def _parse(text: str, name: str) -> errors.ConfigError | None:
    try:
        config.parse(text, name, ROOT)
    except errors.ConfigError as why:
        return why
    return None


def _load(path: Path, data: bytes) -> errors.ConfigError | None:
    private(path, data)
    try:
        config.load(path)
    except errors.ConfigError as why:
        return why
    return None


def test_400_mutants(tmp_path: Path) -> None:
    refused = 0
    for number in range(400):
        path = tmp_path / "config" / "env" / ("home.env" if number % 3 else "lab.env")
        error = _load(path, _mutant(number))
        _judge(error)
        refused += error is not None
    assert refused >= 330  # some mutants are right: a swap of equal values, a cut inside a password


@settings(max_examples=_EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_any_bytes(tmp_path: Path, data: bytes) -> None:
    _judge(_load(tmp_path / "config" / "env" / "home.env", data))


@settings(max_examples=_EXAMPLES, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(keys.known().keys)), st.text(max_size=40) | st.sampled_from(_JUNK)), max_size=6
    )
)
def test_any_values_of_real_keys(pairs: list[tuple[str, str]]) -> None:
    text = home() + "".join(f"{name}={value}\n" for name, value in pairs)
    _judge(_parse(text, "home"))


@settings(max_examples=_EXAMPLES * 3, deadline=None)
@given(st.sampled_from(_KEYS), st.text(max_size=80) | st.sampled_from(_JUNK))
def test_no_kind_raises_anything_but_a_reason_without_the_text(key: Key, text: str) -> None:
    reason: ValueError | None = None
    try:
        key.kind.parse(text or "x")
    except ValueError as why:
        reason = why
    assert reason is None or type(reason) is ValueError
    assert len(text) < 5 or text not in str(reason)


@pytest.mark.parametrize(
    "data",
    [
        b"".join(b"K%X=1\n" % n for n in range(8_000)),
        b"".join(b"WORKERS%X=1\n" % n for n in range(4_000)),
        b"A=1\n" * 16_000,
        b"\n" * 65_536,
        b"x\n" * 32_768,
        b"\xff\n" * 32_768,
        b"NODE_W1_" + b"_" * 4_000 + b"=1\n",
        b"GIT_BRANCH=" + b"a/" * 2_000,
        b"DOMAIN=" + b"a-" * 2_000 + b"!",
        b"DOMAIN=" + b"a." * 2_000 + b"!",
        b"GIT_PATH=" + b"a/" * 2_000 + b"!",
        b"NFS_PATH=/" + b"a/" * 2_000 + b"!",
        b"NFS_PATH=/" + b"a" * 4_000 + b"!",
        b"KUBE_VIP_IMAGE=" + b"a" * 4_000 + b"!",
        b"ACME_EMAIL=" + b"a" * 4_000,
        b"PROXMOX_NODES=" + b"a," * 2_000 + b"a",
        b"K3S_EXTRA_CONFIG=" + b"a=1;" * 1_000,
        b"IMAGE_URL=https://x.org/" + b"a/" * 1_900 + b"!",
        b"GIT_KNOWN_HOSTS='" + b"a ssh-ed25519 " + b"A" * 4_000 + b"!'",
        b"SSH_PRIVATE_KEY=" + b"A" * 4_000,
        b"SSH_KNOWN_HOSTS='" + b"a ssh-ed25519 AAAA;" * 210 + b"'",
        b"SSH_JUMP=" + b"a@" * 2_000,
        b"NODE_W1_LABELS=" + b"a=b," * 1_000,
        b"NODE_W1_TAINTS=" + b"a:NoExecute," * 330,
        b"ETCD_SNAPSHOT_SCHEDULE='" + b"*/1," * 1_000 + b"* * * * *'",
        b"REGISTRY_MIRRORS='" + b"a.io=https://b.io;" * 220 + b"'",
        b"CLUSTER_CIDR_V6=" + b":" * 4_000,
        b"K3S_FOLDER=/" + b"a/" * 2_000,
        b"SSH_AUTH=file\nSSH_KEY_FILE=/dev/zero\n",
        b"SSH_AUTH=file\nSSH_KEY_FILE=/" + b"a" * 4_000,
    ],
)
def test_no_file_takes_long(tmp_path: Path, data: bytes) -> None:
    """Well below a second each; the bound leaves room for a busy machine and still catches what blows up."""
    path = private(tmp_path / "config" / "env" / "home.env", data)
    start = time.process_time()
    refuse(path)
    assert time.process_time() - start < 3


@pytest.mark.parametrize(
    "unit", ["a", "a-", "a.", "a/", "a:", "a,", "a@", "a;", "a=1;", "0", "0.", ":", "/", "A", "x y", "1.1.1.1,"]
)
def test_no_kind_backtracks_without_end(unit: str) -> None:
    """A text that almost fits makes careless patterns take exponential time."""
    start = time.process_time()
    for key in _KEYS:
        for prefix, suffix in (("", "!"), ("/", "!"), ("https://a.b/", "!"), ("a@b.c", "!")):
            with contextlib.suppress(ValueError):
                key.kind.parse((prefix + unit * 4_000)[:4_000] + suffix)
    assert time.process_time() - start < 3


def test_values_do_not_show_up_in_reprs() -> None:
    text = home()
    secrets = secrets_of(text)
    found = config.parse(text, "home", ROOT)
    seen, _ = values.read(envfile.parse(text.encode()), "home", keys.known())
    shown = repr(found) + repr(seen) + repr(envfile.parse(text.encode()))
    assert [secret for secret in secrets if secret in shown] == []


def test_a_secret_answer_that_cannot_be_written_is_not_shown() -> None:
    with pytest.raises(errors.ConfigError) as caught:
        new.generate("home", {"CF_API_TOKEN": 'it\'s "geheim"'}, lab=False)
    assert "geheim" not in str(caught.value)
    assert str(caught.value) == "CF_API_TOKEN: a value with both kinds of quotes cannot be written in an env file"
