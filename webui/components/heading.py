"""The heading of a step."""

from __future__ import annotations

import gradio as gr

from webui.components.examples import moving

PAPER = "https://arxiv.org/abs/2502.05433"


def head() -> None:
    """Add the head of the page: what it is, and a finished edit that plays."""
    with gr.Row(elem_classes="af-head", equal_height=False):
        gr.HTML(
            "<h1>AdaFlow</h1><p>Edit a video with a sentence: its colours, places, things or style, with its motion "
            "kept. See which frames and tokens the edit will use before it runs.</p>"
            f'<p>A training-free method for long videos: <a href="{PAPER}">the paper</a></p>',
            elem_classes="af-title",
            min_width=300,
        )
        if film := moving():
            gr.Video(
                film, label="A red car in a meadow becomes one at night", height=220,
                loop=True, interactive=False, buttons=[], min_width=300, elem_classes="af-film",
            )  # fmt: skip


def heading(number: int, title: str, text: str) -> None:
    """Add the title of a step to the page, and a sentence on what to do there."""
    gr.HTML(f"<h2>{number}. {title}</h2><p>{text}</p>", elem_classes="af-step")
