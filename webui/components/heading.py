"""The heading of a step."""

from __future__ import annotations

import gradio as gr


def heading(number: int, title: str, text: str) -> None:
    """Add the title of a step to the page, and a sentence on what to do there."""
    gr.HTML(f"<h2>{number}. {title}</h2><p>{text}</p>", elem_classes="af-step")
