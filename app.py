"""Start the page: `python app.py`, then open the address that it prints."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from adaflow_core.cli.arguments import gpu_count, positive, whole_number

if TYPE_CHECKING:
    from webui.studio import Studio


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    env = os.environ.get
    parser = argparse.ArgumentParser(
        prog="app.py",
        description="AdaFlow's page: preview, then edit a video by text.",
        epilog="Where ADAFLOW_PASSWORD is set, the page asks for it, and for the user ADAFLOW_USER (default: adaflow).",
    )
    parser.add_argument(
        "--model",
        default=env("ADAFLOW_MODEL", "embedded"),
        help="embedded, sd15, sd21-base, sd21, a Hub id, a folder in diffusers' format or a .safetensors file, with "
        "--lora, --vae and --embedding behind it in the same words (default: $ADAFLOW_MODEL, else embedded)",
    )
    parser.add_argument(
        "--offer",
        nargs="*",
        metavar="ID",
        help="other models that visitors may choose (default: the known checkpoints; with --public none)",
    )
    parser.add_argument(
        "--public",
        action=argparse.BooleanOptionalAction,
        default=env("ADAFLOW_PUBLIC", "1" if env("SPACE_ID") else "0").lower() in ("1", "true", "yes"),
        help="for strangers: tighter limits, files deleted after an hour, results marked as edited by AI and "
        "checked by the checkpoint's safety checker, log as JSON lines (default: $ADAFLOW_PUBLIC, else as on "
        "a Hugging Face Space)",
    )
    parser.add_argument(
        "--host",
        default=env("GRADIO_SERVER_NAME", "127.0.0.1"),
        help="address to serve on; 0.0.0.0 for all (default: 127.0.0.1)",
    )
    parser.add_argument(
        "--port",
        type=whole_number(1, 65535),
        help="port to serve on (default: the first free one from $GRADIO_SERVER_PORT, else 7860, on)",
    )
    parser.add_argument("--device", default="auto", help="auto, cuda, mps or cpu (default: auto)")
    parser.add_argument("--gpus", type=gpu_count, default=1, metavar="N", help="edit each film on N GPUs (default: 1)")
    parser.add_argument(
        "--mcp", action="store_true", help="also serve tools for language models at /mcp (needs the package mcp)"
    )
    parser.add_argument("--share", action="store_true", help="also make a public link through Gradio's servers")
    parser.add_argument("--max-seconds", type=positive, help="longest upload accepted (default: 120; with --public 30)")
    parser.add_argument(
        "--max-megabytes", type=whole_number(1), help="largest upload accepted (default: 200; with --public 100)"
    )
    parser.add_argument(
        "--max-job-minutes", type=positive, help="longest running time of a job (default: any; with --public 10)"
    )
    parser.add_argument(
        "--keep-minutes", type=positive, help="how long files are kept (default: 1440; with --public 60)"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    args = parse(arguments)
    if args.mcp and find_spec("mcp") is None:
        return _refuse('--mcp needs a package that is not installed; try: pip install "mcp>=2,<3"')
    # Nothing is sent anywhere unless --share asks for it.
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # After each event Gradio summarises those before it, in a table that nobody reads.
    os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "100")
    os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", "1000000")
    folder = Path(tempfile.mkdtemp(prefix="adaflow-"))  # deleted when the server ends
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # how a container is stopped; handled as Ctrl+C
    try:
        return _serve(args, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _serve(args: argparse.Namespace, folder: Path) -> int:
    uploads = Path(os.environ.setdefault("GRADIO_TEMP_DIR", str(folder / "uploads")))
    try:
        uploads.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        return _refuse(
            f"uploads cannot be kept in {uploads} ({problem.strerror}); set GRADIO_TEMP_DIR to another folder"
        )
    if args.public:  # a cache of its own: what strangers' videos leave in it is deleted
        os.environ.setdefault("ADAFLOW_CACHE", str(folder / "cache"))
    zero = os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "true")
    if zero:
        import spaces  # noqa: F401 - must be imported before torch, whose devices it replaces
    # Imported here: gradio and torch take seconds, which `--help` must not wait for.
    from adaflow_core.errors import AdaFlowError
    from webui.serving import logs
    from webui.serving.server import serve

    if args.public:
        logs.set_up()
    password = os.environ.get("ADAFLOW_PASSWORD")
    try:
        studio = _build_studio(args, folder, zero)
        server = serve(
            studio,
            uploads,
            host=args.host,
            port=args.port,
            password=(os.environ.get("ADAFLOW_USER", "adaflow"), password) if password else None,
            share=args.share,
            mcp=args.mcp,
        )
        studio.load()
        print(f"AdaFlow is at {server.address} (Ctrl+C ends it)", flush=True)
        server.blocks.block_thread()
        server.upkeep.stop()
    except AdaFlowError as problem:
        return _refuse(str(problem))
    except OSError:
        where = f"{args.host}:{args.port}" if args.port else args.host
        return _refuse(f"{where} is taken or not this machine's; give another --port or --host")
    return 0


def _build_studio(args: argparse.Namespace, folder: Path, zero: bool) -> Studio:
    """The page's state as the options say; `zero`: on ZeroGPU, where tasks run in forks."""
    from adaflow_core.model.loading import KNOWN_MODELS
    from webui.limits import limits_of
    from webui.studio import Studio

    runner = None
    if zero:
        from webui.jobs.zerogpu import ForkRunner

        runner = ForkRunner(folder / "orders", args.public)
    known = () if args.public else tuple(KNOWN_MODELS)
    limits = limits_of(
        args.public,
        megabytes=args.max_megabytes,
        seconds=args.max_seconds,
        job_seconds=args.max_job_minutes and 60 * args.max_job_minutes,
        keep_seconds=args.keep_minutes and 60 * args.keep_minutes,
    )
    return Studio(
        args.model,
        "cpu" if zero else args.device,
        folder / "results",
        known if args.offer is None else args.offer,
        limits=limits,
        public=args.public,
        runner=runner,
        gpus=1 if zero else args.gpus,
    )


def _refuse(problem: str) -> int:
    print(f"adaflow: error: {problem}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
