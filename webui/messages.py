"""Messages to visitors: whole sentences, escaped, without the server's folders."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from html import escape, unescape
from typing import Any

import gradio as gr

from adaflow_core.errors import AdaFlowError

# The folders of an absolute path. Not matched: slashes within a word, a URL, a model id or a fraction.
_FOLDERS = re.compile(r"(?<![\w:/\\.~-])(?:[A-Za-z]:)?[\\/](?=[^\s\\/])(?:[^\s\\/'\"“”<>|:;,()]+[\\/])*")
_LINK = re.compile(r"""<a\s[^>]*?href=["']?([^"'\s>]+)[^>]*>(.*?)</a>""", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"</?[a-z][^>]*>", re.IGNORECASE)


def without_tags(html: str) -> str:
    """`html` as plain text, a link with its address behind it."""
    text = _TAG.sub(" ", _LINK.sub(r"\2 (\1)", html))
    return re.sub(r"\s+([.,;:!?])", r"\1", " ".join(unescape(text).split()))


def sentence(text: str) -> str:
    """`text` with a capital letter, unless it begins with a name such as that of a file."""
    return text[:1].upper() + text[1:] if text.split(" ")[0].isalpha() else text


def without_folders(text: str) -> str:
    """`text` with absolute paths cut down to their last part: visitors need not know the server's folders."""
    return _FOLDERS.sub("", text)


def message(problem: str) -> str:
    """`problem` as HTML: Gradio's messages render HTML, and the text may quote what a visitor typed."""
    return escape(sentence(without_folders(problem)), quote=False)


def refusal(problem: str, visible: bool = True) -> gr.Error:
    """The exception that shows `problem` to the visitor or, where it is not `visible`, only ends the event.

    Gradio shows no title, so all that is to be read is in `problem`.
    """
    # It lies over the page: no longer than it takes to read.
    seconds = max(4.0, len(problem) / 12)
    return gr.Error(message(problem), visible=visible, print_exception=False, duration=seconds)


def quietly(handler: Callable[..., Any]) -> Callable[..., Any]:
    """`handler`, whose refusals are not shown: it follows another event, and nobody asked for it."""

    @wraps(handler)
    def handle(*inputs: Any) -> Any:
        try:
            return handler(*inputs)
        except gr.Error as problem:
            problem.visible = False
            raise

    return handle


@contextmanager
def refuse_on_error() -> Iterator[None]:
    """Show an AdaFlowError to the visitor as a message, without a traceback."""
    try:
        yield
    except AdaFlowError as problem:
        raise refusal(str(problem)) from None
