"""``systemctl`` and ``journalctl``, as far as scripts use them. Texts as systemd 252 prints them."""

from __future__ import annotations

import datetime
from typing import cast

from funoffshore.lab.hosts.api import Machine, Result
from funoffshore.lab.hosts.machine import Host, Session
from funoffshore.lab.hosts.systemd import Job, Units, full

NO_UNIT = 5
"""Exit status for a unit that does not exist (systemctl(1), LSB)."""


def host_of(machine: Machine) -> Host:
    return machine.host if isinstance(machine, Session) else cast(Host, machine)


def options(argv: list[str], taking: tuple[str, ...]) -> tuple[dict[str, list[str]], list[str]]:
    """Options with their values, and the other words. ``taking`` lists those that take the next word."""
    found: dict[str, list[str]] = {}
    words: list[str] = []
    rest = iter(argv[1:])
    for argument in rest:
        if argument == "--":
            words += rest
        elif argument.startswith("--"):
            name, equals, value = argument.partition("=")
            found.setdefault(name, []).append(value if equals or name not in taking else next(rest, ""))
        elif argument.startswith("-") and len(argument) > 1:
            short = argument[:2]
            value = argument[2:] or (next(rest, "") if short in taking else "")
            found.setdefault(short if short in taking else argument, []).append(value if short in taking else "")
        else:
            words.append(argument)
    return found, words


def systemctl(machine: Machine, argv: list[str], stdin: bytes) -> Result:
    """Program ``systemctl``."""
    found, words = options(argv, ("-p", "--property", "-n", "--lines", "-t", "-o"))
    if not words:
        return Result(0)
    host = host_of(machine)
    verb, names = words[0], words[1:]
    uid = machine.uid if isinstance(machine, Session) else 0
    if verb in CHANGES and uid != 0:
        return Result(1, b"", f"Failed to {verb} unit: Interactive authentication required.\n".encode())
    if verb in CHANGES:
        return CHANGES[verb](host, names, "--no-block" in found, "--now" in found)
    return ask(host, verb, names, found)


def ask(host: Host, verb: str, names: list[str], found: dict[str, list[str]]) -> Result:
    """The verbs that change nothing."""
    quiet = "--quiet" in found or "-q" in found
    match verb:
        case "is-active" | "is-failed":
            return activity(host.units, verb, names, quiet=quiet)
        case "is-enabled":
            return enablement(host.units, names, quiet=quiet)
        case "show":
            return show(host.units, names, [*found.get("-p", []), *found.get("--property", [])], "--value" in found)
        case "status":
            return status(host, names)
        case "cat":
            files = [file for name in names if (file := host.units.file(name))]
            text = "".join(f"# {file.place}\n{host.files.read(file.place)}" for file in files)
            return Result(0 if files else 1, text.encode())
        case "is-system-running":
            return Result(0, b"running\n")
        case "list-units" | "list-unit-files":
            return Result(0)
    return Result(1, b"", f"Unknown command verb {verb}.\n".encode())


def finish(host: Host, jobs: list[tuple[str, Job]], no_block: bool) -> Result:
    """Waits, like systemctl, until every start has gone well or ill: for ever if need be, or until the power goes."""
    errors = ""
    for name, job in [] if no_block else jobs:
        while not job.over.wait(0.2) and not host.gone.is_set():
            pass
        if not job.ok:
            errors += (
                f"Job for {full(name)} failed because the control process exited with error code.\n"
                f'See "systemctl status {full(name)}" and "journalctl -xeu {full(name)}" for details.\n'
            )
    return Result(1 if errors else 0, b"", errors.encode())


def missing(host: Host, names: list[str], verb: str) -> Result | None:
    for name in names:
        if host.units.file(name) is None:
            return Result(NO_UNIT, b"", f"Failed to {verb} {full(name)}: Unit {full(name)} not found.\n".encode())
    return None


def start(host: Host, names: list[str], no_block: bool, now: bool) -> Result:
    return missing(host, names, "start") or finish(host, [(n, host.units.start(n)) for n in names], no_block)


def stop(host: Host, names: list[str], no_block: bool, now: bool) -> Result:
    gone = missing(host, names, "stop")
    if gone:
        return gone
    for name in names:
        host.units.stop(name)
    return Result(0)


def restart(host: Host, names: list[str], no_block: bool, now: bool) -> Result:
    gone = missing(host, names, "restart")
    if gone:
        return gone
    for name in names:
        host.units.stop(name)
    return start(host, names, no_block, now)


def try_restart(host: Host, names: list[str], no_block: bool, now: bool) -> Result:
    return restart(host, [n for n in names if host.units.unit(n).active == "active"], no_block, now)


def try_reload(host: Host, names: list[str], no_block: bool, now: bool) -> Result:
    """Every service here reloads without anybody noticing."""
    return Result(0)


def enable(host: Host, names: list[str], no_block: bool, now: bool) -> Result:
    for name in names:
        if not host.units.enable(name.rsplit("/", 1)[-1]):
            return Result(1, b"", f"Failed to enable unit: Unit file {full(name)} does not exist.\n".encode())
    return start(host, names, no_block, now) if now else Result(0)


def disable(host: Host, names: list[str], no_block: bool, now: bool) -> Result:
    for name in names:
        if not host.units.disable(name):
            return Result(1, b"", f"Failed to disable unit: Unit file {full(name)} does not exist.\n".encode())
    return stop(host, names, no_block, now) if now else Result(0)


def daemon_reload(host: Host, names: list[str], no_block: bool, now: bool) -> Result:
    host.units.reload()
    return Result(0)


def reset_failed(host: Host, names: list[str], no_block: bool, now: bool) -> Result:
    for name in names:
        unit = host.units.unit(name)
        unit.starts.clear()
        if unit.active == "failed":
            unit.become("inactive", "dead", host.kit.clock.now())
    return Result(0)


def power(host: Host, names: list[str], no_block: bool, now: bool) -> Result:
    host.power_cycle()
    return Result(0)


def mask(host: Host, names: list[str], no_block: bool, now: bool) -> Result:
    """With ``--runtime``, as it is used here; nothing else tells a masked unit from one that is not there."""
    for name in names:
        place = host.files.path(f"/run/systemd/system/{full(name)}", follow=False)
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.is_symlink():
            place.symlink_to("/dev/null")
    return Result(0)


CHANGES = {
    "mask": mask,
    "start": start,
    "stop": stop,
    "restart": restart,
    "try-restart": try_restart,
    "try-reload-or-restart": try_reload,
    "enable": enable,
    "disable": disable,
    "daemon-reload": daemon_reload,
    "reset-failed": reset_failed,
    "reboot": power,
}


def activity(units: Units, verb: str, names: list[str], *, quiet: bool) -> Result:
    """Exit 3 for a unit that is not active; 0 once any one is (systemctl(1))."""
    states = [units.unit(name).active for name in names]
    good = any(state == ("active" if verb == "is-active" else "failed") for state in states)
    text = "" if quiet else "".join(f"{state}\n" for state in states)
    return Result(0 if good else 3 if verb == "is-active" else 1, text.encode())


def enablement(units: Units, names: list[str], *, quiet: bool) -> Result:
    states = [units.enabled(name) for name in names]
    errors = "".join(
        f"Failed to get unit file state for {full(n)}: No such file or directory\n"
        for n, state in zip(names, states, strict=True)
        if not state
    )
    text = "" if quiet else "".join(f"{state}\n" for state in states if state)
    return Result(0 if any(s in ("enabled", "static") for s in states) else 1, text.encode(), errors.encode())


def show(units: Units, names: list[str], wanted: list[str], value_only: bool) -> Result:
    """Never fails for a unit that is not there: LoadState says so."""
    keys = [key for group in wanted for key in group.split(",")]
    blocks = []
    for name in names:
        properties = units.show(name)
        # In systemd's own order, not in the order asked.
        lines = [(key, value) for key, value in properties.items() if not keys or key in keys]
        blocks.append("".join(f"{value}\n" if value_only else f"{key}={value}\n" for key, value in lines))
    return Result(0, "\n".join(blocks).encode())


def status(host: Host, names: list[str]) -> Result:
    out, code = "", 0
    for name in names:
        facts = host.units.show(name)
        if facts["LoadState"] == "not-found":
            return Result(4, out.encode(), f"Unit {full(name)} could not be found.\n".encode())
        code = code or (0 if facts["ActiveState"] == "active" else 3)
        lines = "".join(f"{line}\n" for line in host.journal_lines(name, 10))
        out += (
            f"● {facts['Id']} - {facts['Description']}\n"
            f"     Loaded: loaded ({facts['FragmentPath']}; {facts['UnitFileState']}; preset: enabled)\n"
            f"     Active: {facts['ActiveState']} ({facts['SubState']})\n\n{lines}"
        )
    return Result(code, out.encode())


def journalctl(machine: Machine, argv: list[str], stdin: bytes) -> Result:
    """Program ``journalctl``: ``-u UNIT -n N -o cat|short``."""
    found, _ = options(argv, ("-u", "--unit", "-n", "--lines", "-o", "--output", "--since", "-S", "-b", "-p"))
    units = [*found.get("-u", []), *found.get("--unit", [])]
    count = int((found.get("-n") or found.get("--lines") or ["1000"])[-1] or 10)
    form = (found.get("-o") or found.get("--output") or ["short"])[-1]
    host, lines = host_of(machine), []
    for unit in units:
        for stamp, line in host.stamped_lines(unit, count):
            when = datetime.datetime.fromtimestamp(stamp, datetime.UTC).strftime("%b %d %H:%M:%S")
            program = unit.removesuffix(".service")
            lines.append(line if form == "cat" else f"{when} {host.name} {program}[1000]: {line}")
    if not lines and form != "cat":
        lines = ["-- No entries --"]
    return Result(0, "".join(f"{line}\n" for line in lines).encode())
