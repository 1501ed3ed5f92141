"""What Gradio keeps of a tab's session, also where its connection broke off."""

from __future__ import annotations

import re
from collections import Counter
from datetime import datetime, timedelta

import gradio as gr
from gradio.state_holder import StateHolder
from starlette.types import ASGIApp, Receive, Scope, Send

MOST_SESSIONS = 400  # each takes about half a megabyte: Gradio copies the configuration of all components for it
_HEARTBEAT = re.compile(r"/heartbeat/([^/]+)/?$")


class Sessions(StateHolder):
    """Sessions, whose states are kept while their tab is `open`, and for `seconds` after their last use.

    By itself Gradio deletes each state an hour after it was set where the connection of its tab once broke off, as that
    of a computer that slept, though the tab is still used: it never learns that the tab is there again. For that reason
    what else there is of a tab's session stays until there are too many: a tab without it takes no choice from the
    lists that were filled since it was loaded. Programs never connect; theirs go as a whole.
    """

    def __init__(self, blocks: gr.Blocks, seconds: float, tabs: Counter[str]) -> None:
        super().__init__()
        self.seconds, self.open = seconds, tabs
        self.session_data, self.time_last_used = blocks.state_holder.session_data, blocks.state_holder.time_last_used
        self.set_blocks(blocks)

    def update(self, session_id: str) -> None:
        """Mark a session as used; over the capacity those that were used longest ago go, of open tabs at last."""
        with self.lock:
            if session_id in self.session_data:
                self.session_data.move_to_end(session_id)
            while len(self.session_data) > self.capacity:
                others = [name for name in self.session_data if name != session_id]
                self._forget(next((name for name in others if not self.open[name]), others[0]))

    def delete_all_expired_state(self) -> None:
        oldest = datetime.now() - timedelta(seconds=self.seconds)
        for name in list(self.session_data):
            if not self.open[name] and self.time_last_used[name] < oldest:
                self.delete_state(name)
                if name not in self.open:
                    self._forget(name)

    def _forget(self, name: str) -> None:
        self.session_data.pop(name, None)
        self.time_last_used.pop(name, None)
        if not self.open[name]:
            del self.open[name]


class Heartbeats:
    """Counts in `tabs` the connections that say that a tab is open, by its session: 0 of one that was."""

    def __init__(self, app: ASGIApp, tabs: Counter[str]) -> None:
        self.app, self.tabs = app, tabs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = _HEARTBEAT.search(scope["path"]) if scope["type"] == "http" else None
        if found is None:
            await self.app(scope, receive, send)
            return
        self.tabs[found[1]] += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.tabs[found[1]] -= 1


def keep_sessions(blocks: gr.Blocks, seconds: float, tabs: Counter[str]) -> None:
    """States of a page that is being served stay for `seconds` after their last use, as does what they name."""
    blocks.app.state_holder = Sessions(blocks, seconds, tabs)
