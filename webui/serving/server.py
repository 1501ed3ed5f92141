"""The page on an address: its server, with a health check beside it and nothing that it need not do."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from adaflow_core.cache import Cache
from adaflow_core.version import __version__
from webui.page import build
from webui.studio import Studio
from webui.theme import CSS, HEAD, THEME
from webui.upkeep import Upkeep


@dataclass(frozen=True)
class Server:
    """A page that is being served."""

    blocks: gr.Blocks
    upkeep: Upkeep
    address: str

    def close(self) -> None:
        self.upkeep.stop()
        self.blocks.close()


def serve(
    studio: Studio,
    uploads: Path,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    password: tuple[str, str] | None = None,
    share: bool = False,
    mcp: bool = False,
) -> Server:
    """Serve the page of `studio`, and return at once.

    `uploads` is the folder that Gradio keeps files in (`$GRADIO_TEMP_DIR`). `password`: user and password that are
    asked for. OSError where the address cannot be had.
    """
    uploads.mkdir(parents=True, exist_ok=True)
    blocks = build(studio)
    # What strangers' videos leave in the cache goes with them; one's own stays, to be taken up again.
    upkeep = Upkeep(studio, uploads, Cache.default() if studio.public else None)
    _, local, public = blocks.queue(max_size=4 * studio.limits.waiting).launch(
        server_name=host,
        server_port=port,
        share=share,
        auth=password,
        max_file_size=f"{studio.limits.megabytes}mb",
        theme=THEME,
        css=CSS,
        head=HEAD,
        footer_links=["api", "settings"],
        run_history=False,
        enable_monitoring=False,
        show_error=False,
        ssr_mode=False,
        strict_cors=True,
        quiet=True,
        prevent_thread_lock=True,
        mcp_server=mcp,
        app_kwargs={
            "routes": [Route("/healthz", _health(studio))],
            "middleware": [Middleware(_NothingFetched)],
        },
    )
    upkeep.start()
    return Server(blocks, upkeep, public or local.rstrip("/"))


def _health(studio: Studio) -> Callable[[Request], Any]:
    """Asks for no password, and tells nothing that a visitor may not know."""
    began = time.monotonic()

    async def health(_: Request) -> JSONResponse:
        works = studio.jobs.works()
        counts = studio.jobs.counts()
        told = {
            "status": "ok" if works else "the jobs' thread has ended",
            "version": __version__,
            "seconds": round(time.monotonic() - began),
            "jobs": {state: counts.get(state, 0) for state in ("waiting", "running")},
        }
        return JSONResponse(told, 200 if works else 503)

    return health


class _NothingFetched:
    """Gradio's file route fetches addresses on behalf of visitors; this page is nobody's proxy."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        _, found, asked = scope.get("path", "").partition("/file=")
        if found and "://" in asked:
            await PlainTextResponse("only files of this page are served", 403)(scope, receive, send)
        else:
            await self.app(scope, receive, send)
