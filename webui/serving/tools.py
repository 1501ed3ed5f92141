"""Tools for language models, by the Model Context Protocol: a few verbs that exchange ids and plain data.

The page's own events answer with updates of components, which programs cannot use. Here videos, jobs and plans are ids,
times are in seconds, sizes in pixels, and large files are fetched from an address of this server.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from adaflow_core.config import EditConfig, PlanConfig, Setting, settings_of
from adaflow_core.errors import AdaFlowError
from adaflow_core.types import Plan
from adaflow_core.video.types import VideoInfo, parse_range, working_size
from webui import views
from webui.jobs.finished import FinishedEdit
from webui.jobs.queue import Snapshot
from webui.jobs.tasks import Request
from webui.messages import sentence, without_folders
from webui.studio import Studio

logger = logging.getLogger(__name__)

PATH = "/mcp"
_LONGEST_WAIT = 50.0  # seconds of a call; clients give up after a minute
_INTERVAL = 0.2
_INSTRUCTIONS = """Edits a video by text. `upload` a video, or take one of `examples`; `plan` it (which frames are
keyframes, what an edit will cost); wait with `status` until the job is done and read its `result`; `edit` the plan with
a prompt; wait again; the `result` says where the edited video can be fetched. Word source prompt and prompt alike, and
change only what is to change: "a red ball in a meadow", "a blue ball in a meadow"."""


def _about(setting: Setting) -> Any:
    said = f"{setting.help[0].upper()}{setting.help[1:].replace('--', '')}. {setting.effect}".strip()
    return Field(description=f"{said} If left out: the model's own value.", ge=setting.low, le=setting.high)


_PLAN, _EDIT = settings_of(PlanConfig), settings_of(EditConfig)
_Video = Annotated[str, Field(description="Id of a video, from `upload` or `examples`.")]
_Job = Annotated[str, Field(description="Id of a job, from `plan` or `edit`.")]
_SourcePrompt = Annotated[str, Field(description="What is in the video now, in a few words. Edits are better with it.")]
_Prompt = Annotated[str, Field(description="What the edited video should show.")]
_Keyframes = Annotated[int | None, Field(description="How many keyframes; left out: as many as the video needs.", ge=1)]
_Frames = Annotated[str, Field(description='Only these frames, FIRST:END without END, such as "0:48".')]
_Side = Annotated[
    int | None, Field(description="Pixels of the shorter side; left out: the model's own.", ge=64, le=4096)
]
_Model = Annotated[str, Field(description="One of the models that the page offers; left out: the page's own.")]
_Name = Annotated[str, Field(description="The video's file name, such as clip.mp4.")]
_Data = Annotated[str, Field(description="The file's bytes in base64.")]
_Wait = Annotated[float, Field(description="Seconds to wait for the job's end, at most 50.", ge=0, le=_LONGEST_WAIT)]
_Prune = Annotated[float | None, _about(_PLAN["prune"])]
_Steps = Annotated[int | None, _about(_EDIT["steps"])]
_Guidance = Annotated[float | None, _about(_EDIT["guidance"])]
_Focus = Annotated[float | None, _about(_EDIT["focus"])]
_Structure = Annotated[float | None, _about(_EDIT["structure"])]
_Smoothing = Annotated[float | None, _about(_EDIT["smoothing"])]
_Seed = Annotated[int, Field(description="Same seed, same video.", ge=0)]
_Answer = dict[str, Any]


class Tools:
    """`uploads`: the folder of uploads, which are deleted by age. `clips`: the bundled examples."""

    def __init__(self, studio: Studio, uploads: Path, clips: list[dict[str, str]]) -> None:
        self.studio, self.uploads, self.clips = studio, uploads / "tools", clips

    async def examples(self) -> list[_Answer]:
        """The bundled clips: id of the video, what it shows, and a prompt to try."""
        return [
            {"video": f"example-{number}", **{name: clip[name] for name in ("title", "source_prompt", "prompt")}}
            for number, clip in enumerate(self.clips)
        ]

    async def upload(self, name: _Name, data: _Data) -> _Answer:
        """Store a video; returns its id, frames, seconds, frames per second and size in pixels.

        Larger files are better sent by HTTP: `POST /mcp/upload/NAME` on this server with the file as the body answers
        the same.
        """
        try:
            content = base64.b64decode(data, validate=True)
        except binascii.Error:
            raise AdaFlowError("the data is no base64; encode the file's bytes") from None
        path = self.new_file(name)
        await asyncio.to_thread(path.write_bytes, content)
        return await self.accept(path)

    async def plan(
        self,
        video: _Video,
        source_prompt: _SourcePrompt = "",
        keyframes: _Keyframes = None,
        prune: _Prune = None,
        steps: _Steps = None,
        frames: _Frames = "",
        side: _Side = None,
        model: _Model = "",
    ) -> _Answer:
        """Begin to plan edits of a video (seconds); returns the job's id. Its `result` has the plan's id and cost.

        `steps` is for the forecast of time.
        """
        self.studio.resolve_model(model)
        info = await asyncio.to_thread(self.studio.limits.check, str(self.find_video(video)))
        config = PlanConfig(prune=prune, keyframes=keyframes, source_prompt=source_prompt.strip())
        size = working_size(info.width, info.height, side) if side else None
        chosen = parse_range(frames) if frames.strip() else None
        return {"job": self.studio.plan(Request(str(info.path), config, EditConfig(steps=steps), size, chosen, model))}

    async def edit(
        self,
        plan: Annotated[str, Field(description="Id of a plan, from the `result` of its job.")],
        prompt: _Prompt,
        steps: _Steps = None,
        guidance: _Guidance = None,
        focus: _Focus = None,
        structure: _Structure = None,
        smoothing: _Smoothing = None,
        negative_prompt: Annotated[str, Field(description="What to move away from.")] = "",
        seed: _Seed = 0,
    ) -> _Answer:
        """Begin an edit of a plan (seconds to minutes, as the plan forecast); returns the job's id."""
        config = EditConfig(
            steps=steps, guidance=guidance, focus=focus, structure=structure, smoothing=smoothing, seed=seed,
            negative_prompt=negative_prompt.strip() or None,
        )  # fmt: skip
        return {"job": self.studio.edit(plan, prompt, config)}

    async def status(self, job: _Job, wait: _Wait = 20) -> _Answer:
        """The state of a job (waiting, running, done, stopped or failed), its stage, the share that is done, seconds so
        far and, where they are forecast, those left in all."""
        end = time.monotonic() + wait
        while not self.find_job(job).finished and time.monotonic() < end:
            await asyncio.sleep(_INTERVAL)
        return views.status(self.find_job(job))

    async def result(self, job: _Job, context: Context[Any, Any]) -> _Answer:
        """What a job made.

        Of a plan: its id, keyframes and cuts (frames, from 0), tokens kept, forecast of seconds and peak memory in
        bytes. Of an edit: addresses of the edited video, of its source (MP4) and of the report (JSON), the scores,
        warnings, and the command that repeats it.
        """
        snapshot = self.find_job(job)
        if not snapshot.finished:
            raise AdaFlowError("the job is not done yet; wait for it with status")
        if snapshot.state != "done":
            raise AdaFlowError(f"the job has no result, it {snapshot.state}; {snapshot.problem or 'begin another'}")
        if isinstance(snapshot.result, FinishedEdit):
            request = context.request_context.request
            assert request is not None  # the tools are served by HTTP alone
            return _edit_answer(snapshot.result, f"{str(request.base_url).rstrip('/')}{PATH}/files/{job}")
        stored = self.studio.kept.find_plan(snapshot.result)
        if stored is None:
            raise AdaFlowError("the plan is no longer kept; plan again")
        plan: Plan = self.studio.corrected(stored.plan)
        return views.facts(plan, stored.id)

    async def stop(self, job: _Job) -> _Answer:
        """Stop a job; it ends within seconds. `stopped` is false where it had ended already."""
        self.find_job(job)
        return {"stopped": self.studio.jobs.stop(job)}

    def find_job(self, job: str) -> Snapshot:
        snapshot = self.studio.jobs.snapshot(job)
        if snapshot is None:
            raise AdaFlowError("there is no job of this id, or no longer; begin another")
        return snapshot

    def find_video(self, video: str) -> Path:
        number = video.removeprefix("example-")
        if number.isdecimal() and int(number) < len(self.clips):
            return Path(self.clips[int(number)]["file"])
        folder = self.uploads / video
        files = list(folder.iterdir()) if re.fullmatch(r"[\w-]{20,}", video) and folder.is_dir() else []
        if not files:
            raise AdaFlowError("there is no video of this id, or no longer; upload it, or take one of examples")
        return files[0]

    def new_file(self, name: str) -> Path:
        """Where an upload is written: in a folder whose name is the video's id."""
        plain = re.sub(r"[^\w.-]", "_", Path(name).name)[-80:].lstrip(".") or "video.mp4"
        folder = self.uploads / secrets.token_urlsafe(16)
        folder.mkdir(parents=True)
        return folder / plain

    async def accept(self, path: Path) -> _Answer:
        """Describe an upload for the client; AdaFlowError, after deleting it, if it is over a limit or unreadable."""
        try:
            if path.stat().st_size > self.studio.limits.megabytes * 10**6:
                raise AdaFlowError(f"the file is too large; this page takes up to {self.studio.limits.megabytes} MB")
            info: VideoInfo = await asyncio.to_thread(self.studio.limits.check, str(path))
        except AdaFlowError:
            path.unlink()
            path.parent.rmdir()
            raise
        return {
            "video": path.parent.name, "frames": info.frames, "seconds": info.seconds,
            "frames_per_second": float(info.fps), "width": info.width, "height": info.height,
            "has_sound": info.has_audio, "notes": list(info.notes),
        }  # fmt: skip

    async def receive(self, request: HttpRequest) -> Response:
        """The upload of a file by HTTP."""
        path = self.new_file(request.path_params["name"])
        room = self.studio.limits.megabytes * 10**6 + 1  # one byte more, so that `accept` refuses it
        with path.open("wb") as file:
            async for chunk in request.stream():
                room -= file.write(chunk[:room])
        try:
            return JSONResponse(await self.accept(path))
        except AdaFlowError as problem:
            return JSONResponse({"problem": _told(problem)}, 400)

    async def send(self, request: HttpRequest) -> Response:
        """A file of a finished edit."""
        snapshot = self.studio.jobs.snapshot(request.path_params["job"])
        finished = snapshot.result if snapshot is not None else None
        if not isinstance(finished, FinishedEdit):
            return JSONResponse({"problem": "There is no such file, or no longer"}, 404)
        files = {"edited": finished.delivered, "source": finished.source, "report": finished.report}
        path = files.get(request.path_params["name"])
        return (
            FileResponse(path, filename=path.name) if path else JSONResponse({"problem": "There is no such file"}, 404)
        )


def build_tools(
    studio: Studio, uploads: Path, clips: list[dict[str, str]], host: str, password: tuple[str, str] | None
) -> Starlette:
    """The tools at `/mcp`; with `password`, for clients that send it as HTTP's basic authorization."""
    tools = Tools(studio, uploads, clips)
    server = MCPServer("AdaFlow", instructions=_INSTRUCTIONS)
    for verb in (tools.examples, tools.upload, tools.plan, tools.edit, tools.status, tools.result, tools.stop):
        server.tool()(_speaking(verb))
    server.custom_route(f"{PATH}/upload/{{name}}", ["POST"])(tools.receive)
    server.custom_route(f"{PATH}/files/{{job}}/{{name}}", ["GET"])(tools.send)
    app = server.streamable_http_app(
        streamable_http_path=PATH,
        host=host,
        stateless_http=True,
        max_request_body_size=2 * studio.limits.megabytes * 10**6,  # base64 is a third larger than the file
    )
    if password is not None:
        app.add_middleware(_Password, expected=base64.b64encode(":".join(password).encode()))
    return app


def _speaking(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a tool: its AdaFlowErrors become sentences for the client, and other exceptions are logged."""

    @wraps(verb)
    async def speak(*given: Any, **named: Any) -> Any:
        try:
            return await verb(*given, **named)
        except AdaFlowError as problem:
            raise ToolError(_told(problem)) from None
        except Exception:
            logger.exception("a tool failed")
            raise ToolError("Something went wrong inside; the server's log has the details.") from None

    return speak


def _told(problem: AdaFlowError) -> str:
    return sentence(without_folders(str(problem)))


def _edit_answer(finished: FinishedEdit, address: str) -> _Answer:
    return {
        "prompt": finished.prompt,
        **{name: f"{address}/{name}" for name in ("edited", "source", "report")},
        "frames": len(finished.after),
        "frames_per_second": finished.fps,
        "scores": asdict(finished.scores),
        "warnings": list(finished.warnings),
        "command": finished.command,
    }


class _Password:
    def __init__(self, app: ASGIApp, expected: bytes) -> None:
        self.app, self.expected = app, b"Basic " + expected

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = dict(scope.get("headers", ())).get(b"authorization", b"")
        if scope["type"] == "http" and not secrets.compare_digest(given, self.expected):
            refused = JSONResponse({"problem": "Give user and password"}, 401, {"WWW-Authenticate": "Basic"})
            await refused(scope, receive, send)
        else:
            await self.app(scope, receive, send)
