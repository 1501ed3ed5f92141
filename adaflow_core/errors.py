"""The two exceptions that leave the engine on purpose, and numbers in sentences."""

from __future__ import annotations


class AdaFlowError(Exception):
    """A problem that the user can mend; its message names the remedy in one line."""


class Stopped(Exception):
    """The stop signal was seen; nothing is wrong."""


def counted(number: int, noun: str) -> str:
    """ "1 frame", "1,000 frames"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def percent(share: float) -> str:
    """A share of 0 to 1; "under 1%" where there is something that would be rounded to "0%"."""
    rounded = f"{share:.0%}"
    return "under 1%" if share > 0 and rounded == "0%" else rounded
