"""The server: its health check, and which tabs it knows to be open."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest

from helpers.jobs import finish, until, work_until_stopped
from webui.serving.server import serve
from webui.serving.sessions import MOST_SESSIONS, Sessions
from webui.studio import Studio


def test_health_tells_how_many_jobs_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    studio = Studio("embedded", "cpu", tmp_path / "results", public=True)
    server = serve(studio, tmp_path / "uploads")
    try:
        jobs = [studio.jobs.submit("edit", work_until_stopped) for _ in range(3)]
        while studio.jobs.snapshot(jobs[0]).state != "running":
            time.sleep(0.005)
        answer = httpx.get(f"{server.address}/healthz", timeout=60)
        assert answer.status_code == 200 and isinstance(server.blocks.app.state_holder, Sessions)
        # By which js/page.js sees that the server is another one.
        app_id = httpx.get(f"{server.address}/gradio_api/app_id", timeout=60).json()["app_id"]
        assert f'"app_id":{app_id},' in httpx.get(server.address, timeout=60).text.replace(" ", "")
        assert answer.json()["status"] == "ok" and answer.json()["jobs"] == {"waiting": 2, "running": 1}
        for job in jobs:
            studio.jobs.stop(job)
        finish(studio.jobs, jobs[0])
        monkeypatch.setattr(studio.jobs, "is_alive", lambda: False)
        assert httpx.get(f"{server.address}/healthz", timeout=60).status_code == 503
    finally:
        server.close()


def test_a_tab_is_open_while_it_is_connected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    server = serve(Studio("embedded", "cpu", tmp_path / "uploads" / "results"), tmp_path / "uploads")
    try:
        sessions = server.blocks.app.state_holder
        assert isinstance(sessions, Sessions) and sessions.capacity == MOST_SESSIONS
        with httpx.stream("GET", f"{server.address}/gradio_api/heartbeat/tab", timeout=60) as beats:
            assert "ALIVE" in next(beats.iter_lines()) and sessions.open["tab"] == 1
        until(lambda: not sessions.open["tab"])
    finally:
        server.close()
