"""The names by which the server knows who asks for a job."""

from __future__ import annotations

from contextvars import copy_context
from types import SimpleNamespace

import gradio as gr
import pytest
from gradio.context import LocalContext

from webui.jobs.visitors import client_address, visitor


def asks(request: gr.Request | None, address: str = "") -> dict[str, float]:
    def ask() -> dict[str, float]:
        LocalContext.request.set(request)
        client_address.set(address)
        return visitor(4)

    return copy_context().run(ask)


@pytest.mark.parametrize("host", ["10.1.2.3", "127.0.0.1", "testclient"])
def test_a_tab_is_known_by_its_session_and_not_by_a_proxys_address(host: str) -> None:
    assert asks(gr.Request(session_hash="a", client=SimpleNamespace(host=host))) == {"session a": 4}
    assert asks(gr.Request(session_hash="a")) == {"session a": 4}


def test_many_sessions_of_one_address_have_three_times_as_much() -> None:
    found = asks(gr.Request(session_hash="a", client={"host": "8.8.8.8"}))
    assert found == {"session a": 4, "address 8.8.8.8": 12}
    assert asks(None, "8.8.8.8") == {"address 8.8.8.8": 12}, "a client of the tools"
    assert asks(None) == {}, "the server itself"
