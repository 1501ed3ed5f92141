"""The two exceptions that leave the engine on purpose."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


class AdaFlowError(Exception):
    """A problem that the user can mend; its message names the remedy in one line."""


class Stopped(Exception):
    """The stop signal was seen; nothing is wrong."""
