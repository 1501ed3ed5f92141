"""Sessions of tabs: what Gradio keeps of them."""

from __future__ import annotations

from datetime import datetime, timedelta
from types import SimpleNamespace

import gradio as gr
from gradio.state_holder import StateHolder

from webui.serving.sessions import keep_sessions


def test_a_tab_that_lost_its_connection_keeps_what_it_has() -> None:
    """Where it was set more than an hour ago, Gradio deleted it, though the tab was used since."""
    with gr.Blocks() as blocks:
        plan = gr.State("")
    StateHolder().set_blocks(blocks)
    session, long_ago = blocks.state_holder["tab"], datetime.now() - timedelta(minutes=90)
    session[plan._id], session.is_closed = "mine", True
    session._state_ttl[plan._id] = None, long_ago
    app = SimpleNamespace(state_holder=blocks.state_holder)
    blocks.app = app  # type: ignore[assignment]
    keep_sessions(blocks, 3600.0)
    sessions = app.state_holder
    sessions.delete_all_expired_state()
    assert sessions["tab"][plan._id] == "mine" and blocks.state_holder is sessions
    sessions.time_last_used["tab"] = long_ago
    session.is_closed = False
    sessions.delete_all_expired_state()
    assert session[plan._id] == "mine", "it is connected"
    session.is_closed = True
    sessions.delete_all_expired_state()
    assert session[plan._id] == ""
