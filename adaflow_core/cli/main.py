"""Runs a command: `python -m adaflow_core COMMAND ...`."""

from __future__ import annotations

import argparse
import codecs
import io
import signal
import sys
from contextlib import closing
from typing import Any

from adaflow_core.cli.arguments import parser
from adaflow_core.cli.bar import Bar
from adaflow_core.cli.batches import batch_command
from adaflow_core.cli.editing import edit_command, retake_command
from adaflow_core.cli.planning import load, plan_command
from adaflow_core.errors import AdaFlowError, Stopped


def main(argv: list[str] | None = None) -> int:
    """Exit status 0, 2 for anything the user can mend (one line on stderr), 130 when stopped."""
    _print_any_path()
    stopped = False

    def ask_to_stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    before = {number: signal.signal(number, ask_to_stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        arguments = parser().parse_args(argv)
        with closing(Bar()) as bar:
            COMMANDS[arguments.command](arguments, bar, lambda: stopped)
    except AdaFlowError as problem:
        print(f"adaflow: error: {problem}", file=sys.stderr)
        return 2
    except Stopped:
        print("adaflow: stopped; run the same command again to go on from the cache", file=sys.stderr)
        return 130
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def _print_any_path() -> None:
    """Let stdout print a result's path that its encoding has no code for, as a name that is not UTF-8 or cp1252.

    stderr, where Python escapes such characters, prints any.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        is_utf8 = codecs.lookup(sys.stdout.encoding).name == "utf-8"
        sys.stdout.reconfigure(errors="surrogateescape" if is_utf8 else "backslashreplace")


def models_command(arguments: argparse.Namespace, bar: Bar, stop: Any) -> None:
    from adaflow_core.model.hub.client import SHORT_NAMES
    from adaflow_core.model.loading import KNOWN_MODELS

    for name, description in KNOWN_MODELS.items():
        where = f" ({SHORT_NAMES[name]})" if name in SHORT_NAMES else ""
        print(f"{name}\n    {description}{where}")
    print(
        "any other Hub id, folder in diffusers' format or single .safetensors file of Stable Diffusion 1.x or 2.x;\n"
        "--lora, --vae and --embedding add to it"
    )


def selfcheck_command(arguments: argparse.Namespace, bar: Bar, stop: Any) -> None:
    from adaflow_core.selfcheck import selfcheck
    from adaflow_core.video import probe

    if arguments.video is not None:
        probe(arguments.video)
    findings = selfcheck(load(arguments, bar, stop), arguments.video, progress=bar, stop=stop)
    print(findings.table)
    if findings.problems:
        raise AdaFlowError("; ".join(findings.problems))


COMMANDS = {
    "plan": plan_command,
    "edit": edit_command,
    "retake": retake_command,
    "batch": batch_command,
    "models": models_command,
    "selfcheck": selfcheck_command,
}
