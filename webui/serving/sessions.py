"""Gradio's session state of a tab, kept also after the tab's connection was interrupted."""

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
    """Sessions whose states are kept while their tab is `open`, and for `seconds` after their last use.

    If a tab's connection was ever interrupted, as when a computer slept, Gradio itself deletes each state an hour after
    it was set, although the tab is used again: it does not notice that the tab has reconnected. When a tab's states
    expire, the rest of its session stays until there are too many sessions, because without it Gradio would refuse
    choices from lists that were filled after the page was loaded. Sessions of programs, which never open a heartbeat
    connection, are deleted as a whole.
    """

    def __init__(self, blocks: gr.Blocks, seconds: float, tabs: Counter[str]) -> None:
        super().__init__()
        self.seconds, self.open = seconds, tabs
        self.session_data, self.time_last_used = blocks.state_holder.session_data, blocks.state_holder.time_last_used
        self.set_blocks(blocks)

    def update(self, session_id: str) -> None:
        """Mark a session as used; over the capacity, forget the least recently used, those of open tabs last."""
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
    """Counts in `tabs` each session's heartbeat connections, which show that its tab is open; 0 after it closed."""

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
    """Install `Sessions` in a served page, so that states last as long as the plans and files that they name."""
    blocks.app.state_holder = Sessions(blocks, seconds, tabs)
