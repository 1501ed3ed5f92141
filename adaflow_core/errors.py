"""The two exceptions that the engine raises on purpose, and functions that put numbers and errors into sentences."""

from __future__ import annotations


class AdaFlowError(Exception):
    """A problem that the user can mend; its message names the remedy in one line."""


class Stopped(Exception):
    """The stop signal was set; nothing is wrong."""


def counted(number: int, noun: str) -> str:
    """ "1 frame", "1,000 frames"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def percent(share: float) -> str:
    """Format a share of 0 to 1; "under 1%" instead of "0%" for a share above 0."""
    rounded = f"{share:.0%}"
    return "under 1%" if share > 0 and rounded == "0%" else rounded


def first_line(problem: BaseException) -> str:
    """The first line of an exception's text, at most 160 characters; its type where it has no text."""
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0][:160]
