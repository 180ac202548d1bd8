"""The command ``fo``: parse, call, show. No decision is made here."""

from __future__ import annotations

import os
import sys

import typer

from funoffshore import errors

HELP = "From a Proxmox host to a proven homelab, and only then to the incubator."


def _build() -> typer.Typer:
    from funoffshore.cli import backup, cluster, destroy, gate, k3s, k3s_life, kubeconfig, lab, lockfile, new, proof

    app = typer.Typer(help=HELP, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command("init")(new.init)
    app.command("doctor")(cluster.doctor)
    app.command("plan")(cluster.plan)
    app.command("bootstrap")(cluster.bootstrap)
    app.command("status")(proof.status)
    app.command("postcheck")(proof.postcheck)
    app.command("report")(proof.report)
    app.command("destroy")(destroy.destroy)
    app.command("kubeconfig")(kubeconfig.kubeconfig)
    app.add_typer(backup.app, name="backup")
    k3s.app.command("upgrade")(k3s_life.upgrade)
    k3s.app.command("replace")(k3s_life.replace)
    app.add_typer(k3s.app, name="k3s")
    app.add_typer(gate.app, name="gate")
    app.add_typer(lab.app, name="lab")
    app.add_typer(lockfile.app, name="lock")
    app.callback()(_options)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        from funoffshore import __version__

        print(f"fo {__version__}")
        raise typer.Exit


def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print fo's version."),
) -> None:
    """From a Proxmox host to a proven homelab, and only then to the incubator."""


def main() -> None:
    """Runs the command line and exits with the code of the error's class (see ``errors``)."""
    try:
        _build()()
    except errors.FoError as error:
        from funoffshore.cli import common

        common.explain(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("fo: stopped by the operator; run the same command again to resume", file=sys.stderr)
        sys.exit(errors.InterruptedRunError.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as bug:
        _confess(bug)
        sys.exit(errors.FoError.exit_code)


def _confess(bug: Exception) -> None:
    """A bug in fo: one line for the operator, the traceback in a private file for the report."""
    import tempfile
    import traceback

    fd, path = tempfile.mkstemp(prefix="fo-bug-", suffix=".txt")
    with os.fdopen(fd, "w") as file:
        traceback.print_exception(bug, file=file)
    print(f"fo: this is a bug in fo ({type(bug).__name__}: {bug})\n  → please report it with {path}", file=sys.stderr)
