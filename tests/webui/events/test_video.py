"""What is said of a video that was just uploaded."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from helpers.jobs import until
from webui.events import plan
from webui.events.plan import PlanEvents
from webui.studio import Studio


def test_uploads_that_are_read_keep_nobody_waiting(
    drawn_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than the event loop has threads, which the progress of jobs needs as well."""
    release, reading, decode = threading.Event(), [], plan.decode_video

    def decode_slowly(*given: Any, **named: Any) -> Any:
        reading.append(threading.current_thread().name)
        assert release.wait(60)
        return decode(*given, **named)

    monkeypatch.setattr(plan, "decode_video", decode_slowly)
    events = PlanEvents(Studio("embedded", "cpu", tmp_path), [])

    async def said() -> list[str]:
        return [line async for line in events.describe(str(drawn_clip))]

    async def visit() -> list[list[str]]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(3))
        visitors = [asyncio.create_task(said()) for _ in range(4)]
        try:
            # Whoever asks while two uploads are read and two wait is answered at once.
            await asyncio.wait_for(asyncio.to_thread(until, lambda: len(reading) == 2), 60)
            await asyncio.sleep(0.2)
            await asyncio.wait_for(asyncio.gather(*(asyncio.to_thread(int) for _ in range(3))), 10)
            assert len(reading) == 2
        finally:
            release.set()
        return await asyncio.gather(*visitors)

    for lines in asyncio.run(visit()):
        assert len(lines) == 2 and "12 frames" in lines[-1]
