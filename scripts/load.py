"""Many visitors at once, against a page started here: `python scripts/load.py --clients 20 --seconds 180`.

Each visitor uploads a clip of a colour and length of its own, plans and edits it again and again, and checks that what
comes back is its own. Everything stays on this machine; time and number of visits are limited. Prints one line of JSON:
what went wrong, how long edits took, and which memory and files were left after the files' time was over. The exit
status is 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from adaflow_core.video.decode import decode_video  # noqa: E402
from adaflow_core.video.write import write_video  # noqa: E402

SIZE = (128, 96)
MAX_VISITS = 500  # of one visitor
MAX_GROWTH = 300  # MiB of memory that the server may hold beyond what it holds after its first edit


@dataclass
class Tally:
    """What all visitors observed; guarded by `lock`."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    edits: int = 0
    full: int = 0  # refusals because the queue was full
    seconds: list[float] = field(default_factory=list)  # from upload to result
    wrong: Counter[str] = field(default_factory=Counter)

    def note(self, problem: str) -> None:
        with self.lock:
            self.wrong[problem[:200]] += 1


class Visitor(threading.Thread):
    """One visitor, who stays until `end` on the monotonic clock."""

    def __init__(self, number: int, address: str, folder: Path, end: float, tally: Tally) -> None:
        super().__init__(name=f"visitor-{number}", daemon=True)
        self.number, self.address, self.end, self.tally = number, address, end, tally
        frames = clip(number)
        self.colour, self.length = frames.mean(axis=(0, 1, 2)), len(frames)
        self.clip = write_video(folder / f"clip-{number}.mp4", frames, Fraction(8))

    def run(self) -> None:
        from gradio_client import Client

        try:
            client = Client(self.address, verbose=False, httpx_kwargs={"timeout": 120})
        except Exception as problem:
            return self.tally.note(f"no page: {type(problem).__name__}: {problem}")
        for visit in range(MAX_VISITS):
            if time.monotonic() > self.end:
                return
            try:
                self._visit(client, visit)
            except Exception as problem:
                if "queue is full" in str(problem).lower():
                    with self.tally.lock:
                        self.tally.full += 1
                    time.sleep(2)
                else:
                    self.tally.note(f"{type(problem).__name__}: {problem}")
                    time.sleep(0.5)

    def _visit(self, client: Any, visit: int) -> None:
        from gradio_client import handle_file

        began = time.monotonic()
        settings = {"keyframes": 2, "side": 192, "steps": 1, "frames": f"0:{self.length}"}
        prune = 0.05 * (visit % 19)  # with the same settings nothing would be planned
        planned = client.predict(handle_file(str(self.clip)), "", prune=prune, api_name="/preview", **settings)
        if planned[1]["frames"] != self.length:
            self.tally.note("another's plan")
        prompt = f"a blue ball, visitor {self.number}, visit {visit}"
        job = client.predict(prompt, steps=1, api_name="/edit")
        status, _, quoted, source, edited, *_ = client.predict(job, api_name="/watch")
        if status["state"] != "done":
            return self.tally.note(f"job {status['state']}: {status.get('problem')}")
        for name, value in (("source", source), ("edit", edited)):
            path = value["video"] if isinstance(value, dict) else value
            frames = decode_video(path, size=SIZE).frames
            # An edit of one step stays near its source's colour, which is far from that of other visitors.
            if len(frames) != self.length or np.abs(frames.mean(axis=(0, 1, 2)) - self.colour).max() > 24:
                self.tally.note(f"another's {name}")
        if prompt not in quoted:
            self.tally.note("another's prompt")
        with self.tally.lock:
            self.tally.edits += 1
            self.tally.seconds.append(time.monotonic() - began)


def clip(number: int) -> np.ndarray:
    """[T, H, W, 3] uint8: a moving pattern on a colour of its own for each of 27 visitors; T differs as well."""
    width, height = SIZE
    base = np.array([number % 3, number // 3 % 3, number // 9 % 3]) * 64 + 64
    y, x = np.mgrid[0:height, 0:width] / 12
    frames = [base + 20 * np.sin(x + t / 2)[..., None] * np.cos(y)[..., None] for t in range(4 + number % 3)]
    return np.stack(frames).clip(0, 255).astype(np.uint8)


def resident_memory(process: int) -> int:
    """Memory of a process, in MiB."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS"))


def count_files(folder: Path) -> int:
    """The number of files in a folder, without the machine's calibration."""
    return sum(file.is_file() and "calibration" not in file.parts for file in folder.rglob("*"))


def read_health(address: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{address}/healthz", timeout=30) as answer:
        return dict(json.load(answer))


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=20, choices=range(1, 28), metavar="1..27")
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--keep-minutes", type=float, default=1.5, help="how long the page keeps files")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="adaflow-load-", ignore_cleanup_errors=True) as name:
        folder, port = Path(name), free_port()
        places = {"TMPDIR": folder / "tmp", "ADAFLOW_CACHE": folder / "cache", "GRADIO_TEMP_DIR": folder / "uploads"}
        for place in places.values():
            place.mkdir()
        command = [sys.executable, str(ROOT / "app.py"), "--public", "--device", "cpu", "--port", str(port)]
        with (folder / "log.jsonl").open("w+", encoding="utf-8") as log:
            page = subprocess.Popen(
                [*command, "--keep-minutes", str(args.keep_minutes)],
                env={**os.environ, **{key: str(place) for key, place in places.items()}},
                stdout=log,
                stderr=log,
            )
            try:
                result = load(args, f"http://127.0.0.1:{port}", page.pid, folder, list(places.values()))
            finally:
                page.terminate()
                page.wait(30)
            log.seek(0)
            result["errors_in_log"] = sum('"level": "error"' in line or "Traceback" in line for line in log)
    good = not result["wrong"] and not result["errors_in_log"] and result["edits"] >= args.clients
    good = good and result["files_after"] <= result["files_before"] and result["memory_growth_mib"] <= MAX_GROWTH
    print(json.dumps(result | {"good": good}), flush=True)
    return 0 if good else 1


def load(args: argparse.Namespace, address: str, process: int, folder: Path, places: list[Path]) -> dict[str, Any]:
    """One visitor first, to measure the usual memory; then all at once; then wait until their files are deleted."""
    for _ in range(600):
        try:
            read_health(address)
            break
        except OSError:
            time.sleep(0.2)
    before = sum(map(count_files, places))
    first = Visitor(0, address, folder, time.monotonic() + 1, tally := Tally())
    first.start()
    first.join(300)
    if not tally.edits:
        tally.note("the first visitor had no edit: memory after it is not that of an engine at work")
    level, tally = resident_memory(process), Tally(wrong=tally.wrong)
    print(f"memory after one edit: {level} MiB", file=sys.stderr, flush=True)
    end = time.monotonic() + args.seconds
    visitors = [Visitor(number, address, folder, end, tally) for number in range(args.clients)]
    for visitor in visitors:
        visitor.start()
    peak, most = level, 0
    while any(visitor.is_alive() for visitor in visitors) and time.monotonic() < end + 600:
        peak, most = max(peak, resident_memory(process)), max(most, sum(map(count_files, places)))
        time.sleep(1)
    for visitor in visitors:
        if visitor.is_alive():
            tally.note("a visitor is still waiting, ten minutes after the end")
    standing = read_health(address)
    # The page deletes files in rounds: two of them after their time is over.
    limit = time.monotonic() + 60 * args.keep_minutes + 90
    while (after := sum(map(count_files, places))) > before and time.monotonic() < limit:
        time.sleep(1)
    final = resident_memory(process)
    return {
        "clients": args.clients,
        "edits": tally.edits,
        "queue_full": tally.full,
        "wrong": dict(tally.wrong),
        "seconds_median": round(float(np.median(tally.seconds)), 1) if tally.seconds else None,
        "seconds_longest": round(max(tally.seconds, default=0.0), 1),
        "memory_level_mib": level,
        "memory_peak_mib": peak,
        "memory_growth_mib": final - level,
        "files_before": before,
        "files_most": most,
        "files_after": after,
        "health": standing,
    }


if __name__ == "__main__":
    sys.exit(main())
