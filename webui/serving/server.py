"""The server: Gradio with a health check, and without the routes that this page does not use."""

from __future__ import annotations

import time
from collections import Counter
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

from adaflow_core.storage.cache import Cache
from adaflow_core.version import __version__
from webui.components.examples import load_clips
from webui.jobs.visitors import client_address
from webui.page import build
from webui.serving.sessions import MOST_SESSIONS, Heartbeats, keep_sessions
from webui.serving.upkeep import Upkeep
from webui.studio import Studio
from webui.theme import CSS, HEAD, THEME


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
    """Start serving the page of `studio`, and return.

    uploads: the folder that Gradio keeps files in (`$GRADIO_TEMP_DIR`); results in it are served without a copy.
    password: the user and password to log in with. mcp: also serve tools for language models, at /mcp. OSError if the
    address is taken or not this machine's.
    """
    uploads.mkdir(parents=True, exist_ok=True)
    blocks = build(studio)
    tabs = Counter[str]()  # session -> open connections
    middleware, lifespan = [Middleware(_Refusals), Middleware(Heartbeats, tabs=tabs)], {}
    if mcp:
        from webui.serving.tools import build_tools  # needs a package that is not always there

        tools = build_tools(studio, uploads, load_clips(), host, password)
        middleware.append(Middleware(_Tools, tools=tools))
        lifespan = {"lifespan": lambda _: tools.router.lifespan_context(tools)}
    # What strangers' videos leave in the cache is deleted as well; one's own stays, to be reused.
    upkeep = Upkeep(studio, uploads, Cache.default() if studio.public else None)
    _, local, public = blocks.queue(max_size=4 * studio.limits.waiting).launch(
        server_name=host,
        server_port=port,
        share=share,
        auth=password,
        state_session_capacity=MOST_SESSIONS,
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
        mcp_server=False,
        app_kwargs={"routes": [Route("/healthz", _health_check(studio))], "middleware": middleware, **lifespan},
    )
    keep_sessions(blocks, studio.limits.keep_seconds, tabs)
    upkeep.start()
    return Server(blocks, upkeep, public or local.rstrip("/"))


def _health_check(studio: Studio) -> Callable[[Request], Any]:
    """The route for health checks. It needs no password, so it answers with nothing confidential."""
    began = time.monotonic()

    async def health(_: Request) -> JSONResponse:
        alive = studio.jobs.is_alive()
        counts = studio.jobs.counts()
        answer = {
            "status": "ok" if alive else "the jobs' thread has ended",
            "version": __version__,
            "seconds": round(time.monotonic() - began),
            "jobs": {state: counts.get(state, 0) for state in ("waiting", "running")},
        }
        return JSONResponse(answer, 200 if alive else 503)

    return health


class _Tools:
    """Passes requests under /mcp to the tools before the page's routes can take them."""

    def __init__(self, app: ASGIApp, tools: ASGIApp) -> None:
        self.app, self.tools = app, tools

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ours = scope["type"] == "http" and f"{scope['path']}/".startswith("/mcp/")
        if ours:
            client_address.set((scope.get("client") or ("",))[0])
        await (self.tools if ours else self.app)(scope, receive, send)


class _Refusals:
    """Refuses requests that Gradio would answer but the page never makes.

    Its file route would fetch any URL; its route for recordings of the screen would hand any file to the system's
    ffmpeg.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        _, is_file, name = path.partition("/file=")
        if is_file and "://" in name:
            await PlainTextResponse("only files of this page are served", 403)(scope, receive, send)
        elif path.rstrip("/").endswith("/process_recording"):
            await PlainTextResponse("this page takes no recordings of the screen", 403)(scope, receive, send)
        else:
            await self.app(scope, receive, send)
