"""``python -m bench``: build, up, down, clean, exec, serve."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping

from bench import control, paths


def main() -> int:
    """Exit code 0, or 1 with one line that says what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Real servers for fo to be tried on.")
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="build what is missing")
    build.add_argument("names", nargs="*", metavar="NAME", help="only these binaries, and no image")
    commands.add_parser("check", help="say whether this machine can run the bench")
    commands.add_parser("up", help="start an empty Proxmox with its surroundings")
    commands.add_parser("down", help="end it")
    commands.add_parser("clean", help="end it and remove everything that a killed run left behind")
    execute = commands.add_parser("exec", help="run a command in the bench's network")
    execute.add_argument("argv", nargs=argparse.REMAINDER)
    commands.add_parser("init", help="print the answers for fo init")
    commands.add_parser("serve", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    try:
        return _do(asked)
    except (RuntimeError, OSError) as why:
        print(f"bench: {why}", file=sys.stderr)
        return 1


def _do(asked: argparse.Namespace) -> int:
    return _COMMANDS[asked.command](asked)


def _build(asked: argparse.Namespace) -> int:
    if asked.names:
        from bench import build

        build.build(tuple(asked.names), print)
    else:
        control.prepare()
    return 0


def _check(_: argparse.Namespace) -> int:
    why = control.obstacles()
    print("; ".join(why) or "this machine can run the bench")
    return 1 if why else 0


def _up(_: argparse.Namespace) -> int:
    control.up()
    print(f"the bench is up; its log: {paths.run() / 'bench.log'}")
    return 0


def _down(_: argparse.Namespace) -> int:
    for line in control.down():
        print(f"gone: {line}")
    return 0


def _exec(asked: argparse.Namespace) -> int:
    from bench import home
    from bench.internet.tls import Authority

    os.environ.update(home.environment(Authority(paths.cache()).bundle()))
    argv = control.inside([word for word in asked.argv if word != "--"] or ["bash"])
    os.execvp(argv[0], argv)  # noqa: S606 - the operator's own command


def _init(_: argparse.Namespace) -> int:
    from bench import home

    for key, value in home.answers().items():
        print(f"--set {key}={value}")
    return 0


def _serve(_: argparse.Namespace) -> int:
    from bench import services

    services.serve()
    return 0


_COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "build": _build,
    "check": _check,
    "up": _up,
    "down": _down,
    "clean": _down,
    "exec": _exec,
    "init": _init,
    "serve": _serve,
}

if __name__ == "__main__":
    raise SystemExit(main())
