"""The two exceptions that leave the engine on purpose, and numbers in sentences."""

from __future__ import annotations


class AdaFlowError(Exception):
    """A problem that the user can mend; its message names the remedy in one line."""


class Stopped(Exception):
    """The stop signal was seen; nothing is wrong."""


def counted(number: int, noun: str) -> str:
    """ "1 frame", "1,000 frames"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
