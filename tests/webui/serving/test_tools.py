"""The tools for language models, tried with the protocol's own client: from an upload to the edited video."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from adaflow_core.video.decode import probe
from helpers.jobs import work_until_stopped
from helpers.pages import with_model
from webui.limits import Limits
from webui.serving.server import Server, serve
from webui.studio import Studio

mcp = pytest.importorskip("mcp")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("tools")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAFLOW_CACHE", str(folder / "cache"))
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "uploads"))
        studio = Studio("embedded", "cpu", folder / "results", limits=Limits(megabytes=1))
        server = serve(studio, folder / "uploads", mcp=True)
        yield server
        server.close()


class Visitor:
    """A client of the tools, each call of which is checked to have come off."""

    def __init__(self, client: Any) -> None:
        self.client = client

    async def call(self, verb: str, **arguments: Any) -> Any:
        answer = await self.client.call_tool(verb, arguments)
        assert not answer.is_error, answer.content
        content = answer.structured_content
        return content["result"] if set(content) == {"result"} else content

    async def refused(self, verb: str, **arguments: Any) -> str:
        answer = await self.client.call_tool(verb, arguments)
        assert answer.is_error
        return str(answer.content[0].text)

    async def finish(self, job: str) -> Any:
        while (status := await self.call("status", job=job))["state"] in ("waiting", "running"):
            await asyncio.sleep(0.1)  # else the asking takes more of the processor than the work
        assert status["state"] == "done", status
        return await self.call("result", job=job)


@pytest.mark.thorough
@with_model
@pytest.mark.slow
def test_a_client_edits_a_clip(server: Server, drawn_clip: Path, tmp_path: Path) -> None:
    async def visit() -> None:
        async with mcp.Client(f"{server.address}/mcp") as client:
            visitor = Visitor(client)
            data = base64.b64encode(drawn_clip.read_bytes()).decode()
            video = await visitor.call("upload", name="my clip.mp4", data=data)
            assert (video["frames"], video["width"], video["frames_per_second"]) == (12, 64, 12.0)
            job = await visitor.call(
                "plan", video=video["video"], source_prompt="a red ball", keyframes=2, frames="0:4", side=128, steps=2
            )
            plan = await visitor.finish(job["job"])
            assert plan["frames"] == 4 and len(plan["keyframes"]) == 2 and plan["seconds"] > 0
            job = await visitor.call("edit", plan=plan["plan"], prompt="a blue ball", steps=2)
            result = await visitor.finish(job["job"])
            assert result["prompt"] == "a blue ball" and 0 <= result["scores"]["agreement"] <= 1
            file = tmp_path / "edited.mp4"
            file.write_bytes(httpx.get(result["edited"], timeout=60).content)
            assert probe(file).frames == 4
            assert httpx.get(result["report"], timeout=60).json()["prompt"] == "a blue ball"
            assert await visitor.call("stop", job=job["job"]) == {"stopped": False}

    asyncio.run(visit())


def test_every_verb_and_parameter_is_described(server: Server) -> None:
    async def visit() -> None:
        async with mcp.Client(f"{server.address}/mcp") as client:
            tools = (await client.list_tools()).tools
            assert [tool.name for tool in tools] == ["examples", "upload", "plan", "edit", "status", "result", "stop"]
            for tool in tools:
                assert tool.description and len(tool.description) > 40
                for name, about in tool.input_schema["properties"].items():
                    assert about.get("description"), f"{tool.name}: {name}"

    asyncio.run(visit())


def test_what_is_wrong_is_said_in_a_sentence(server: Server, drawn_clip: Path) -> None:
    async def visit() -> None:
        async with mcp.Client(f"{server.address}/mcp") as client:
            visitor = Visitor(client)
            assert "upload it" in await visitor.refused("plan", video="../../etc/passwd")
            assert "no base64" in await visitor.refused("upload", name="a.mp4", data="%")
            text = base64.b64encode(b"no video").decode()
            refused = await visitor.refused("upload", name="../a.mp4", data=text)
            assert "a.mp4 is not a video" in refused and "/" not in refused
            assert "no job" in await visitor.refused("status", job="x")
            assert "no plan" in await visitor.refused("edit", plan="x", prompt="a ball")
            examples = await visitor.call("examples")
            assert examples and examples[0]["video"] == "example-0"

    asyncio.run(visit())
    by_http = httpx.post(f"{server.address}/mcp/upload/clip.mp4", content=drawn_clip.read_bytes(), timeout=60)
    assert by_http.status_code == 200 and by_http.json()["frames"] == 12
    large = httpx.post(f"{server.address}/mcp/upload/clip.mp4", content=b"0" * 1_100_000, timeout=60)
    assert large.status_code == 400 and "up to 1 MB" in large.json()["problem"]
    assert httpx.get(f"{server.address}/mcp/files/x/edited", timeout=60).status_code == 404


def test_one_client_cannot_fill_the_queue(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    studio = server.upkeep.studio
    monkeypatch.setattr(studio, "limits", replace(studio.limits, own=2 / 3))
    monkeypatch.setattr(studio, "_run", lambda task, report, stop: work_until_stopped(report, stop))

    async def visit() -> None:
        async with mcp.Client(f"{server.address}/mcp") as client:
            visitor = Visitor(client)
            begun = [(await visitor.call("plan", video="example-0"))["job"] for _ in range(2)]
            assert "2 of your jobs wait or run already" in await visitor.refused("plan", video="example-0")
            for job in begun:
                await visitor.call("stop", job=job)

    asyncio.run(visit())


@pytest.mark.parametrize(
    ("host", "asked", "status"),
    [("127.0.0.1", "localhost:7860", 200), ("127.0.0.1", "films.example", 421), ("0.0.0.0", "films.example", 200)],
)
def test_the_name_that_a_proxy_hands_on_is_answered_where_all_may_ask(
    host: str, asked: str, status: int, tmp_path: Path
) -> None:
    from webui.serving.tools import build_tools

    app = build_tools(Studio("embedded", "cpu", tmp_path), tmp_path, [], host, None)
    with TestClient(app) as client:
        answer = client.post(
            "/mcp",
            headers={"Host": asked, "Accept": "application/json, text/event-stream"},
            json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"},
        )
    assert answer.status_code == status


def test_a_password_is_asked_for(tmp_path: Path) -> None:
    studio = Studio("embedded", "cpu", tmp_path / "results")
    server = serve(studio, tmp_path / "uploads", mcp=True, password=("me", "open sesame"))
    try:
        post, url = partial(httpx.post, timeout=60), f"{server.address}/mcp/upload/clip.mp4"
        assert post(url, content=b"x").status_code == 401
        assert post(url, content=b"x", auth=("me", "wrong")).status_code == 401
        assert post(url, content=b"x", auth=("me", "open sesame")).status_code == 400
    finally:
        server.close()
