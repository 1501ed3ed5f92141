"""Sessions of tabs: what Gradio keeps of them."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from gradio.state_holder import StateHolder

from webui.serving.sessions import Sessions, keep_sessions

LONG_AGO = datetime.now() - timedelta(minutes=90)


@pytest.fixture
def blocks() -> gr.Blocks:
    with gr.Blocks() as blocks:
        gr.State("")
    StateHolder().set_blocks(blocks)
    return blocks


def keep(blocks: gr.Blocks, tabs: Counter[str]) -> Sessions:
    app: Any = SimpleNamespace(state_holder=blocks.state_holder)
    blocks.app = app
    keep_sessions(blocks, 3600.0, tabs)
    kept: Sessions = app.state_holder
    return kept


def test_a_tab_that_lost_its_connection_keeps_what_it_has(blocks: gr.Blocks) -> None:
    """Where it was set more than an hour ago, Gradio deleted it, though the tab was used since."""
    (plan,) = blocks.blocks
    session, tabs = blocks.state_holder["tab"], Counter(["tab"])
    session[plan], session.is_closed = "mine", True
    session._state_ttl[plan] = None, LONG_AGO
    sessions = keep(blocks, tabs)
    tabs["tab"] -= 1
    sessions.delete_all_expired_state()
    assert sessions["tab"][plan] == "mine" and blocks.state_holder is sessions
    sessions.time_last_used["tab"] = LONG_AGO
    tabs["tab"] += 1
    sessions.delete_all_expired_state()
    assert sessions.session_data["tab"][plan] == "mine", "it is connected again"
    tabs["tab"] -= 1
    sessions.delete_all_expired_state()
    assert sessions.session_data["tab"][plan] == "", "but what was chosen for its lists stays"


def test_nothing_is_kept_of_a_session_that_is_over(blocks: gr.Blocks) -> None:
    """Nor of a program's, which never connects and so never breaks off."""
    (plan,) = blocks.blocks
    sessions = keep(blocks, Counter())
    for name in ("program", "new"):
        sessions[name][plan] = name
    sessions.time_last_used["program"] = LONG_AGO
    sessions.delete_all_expired_state()
    assert list(sessions.session_data) == list(sessions.time_last_used) == ["new"]


def test_over_the_most_sessions_those_of_open_tabs_go_last(blocks: gr.Blocks) -> None:
    tabs = Counter(["a", "b"])
    sessions = keep(blocks, tabs)
    sessions.capacity = 2
    for name in ("a", "x", "b", "y"):
        assert sessions[name] is sessions.session_data[name]
    assert list(sessions.session_data) == ["b", "y"] and "a" not in sessions.time_last_used
    tabs["b"] -= 1
    assert sessions["b"] is sessions["b"] and sessions["z"] is sessions.session_data["z"]
    assert list(sessions.session_data) == list(sessions.time_last_used) == ["b", "z"]
