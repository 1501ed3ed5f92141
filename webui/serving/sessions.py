"""What Gradio keeps of a tab's session, also where its connection broke off."""

from __future__ import annotations

from datetime import datetime, timedelta

import gradio as gr
from gradio.state_holder import StateHolder


class Sessions(StateHolder):
    """Sessions of tabs, whose states are kept for `seconds` after their last use.

    By itself Gradio deletes each an hour after it was set where the connection of its tab once broke off, as that of a
    computer that slept, though the tab is still used: it never learns that the tab is there again.
    """

    def __init__(self, blocks: gr.Blocks, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.session_data, self.time_last_used = blocks.state_holder.session_data, blocks.state_holder.time_last_used
        self.set_blocks(blocks)

    def delete_all_expired_state(self) -> None:
        oldest = datetime.now() - timedelta(seconds=self.seconds)
        for name, session in list(self.session_data.items()):
            if session.is_closed and self.time_last_used[name] < oldest:
                self.delete_state(name)


def keep_sessions(blocks: gr.Blocks, seconds: float) -> None:
    """States of a page that is being served stay for `seconds` after their last use, as does what they name."""
    blocks.app.state_holder = Sessions(blocks, seconds)
