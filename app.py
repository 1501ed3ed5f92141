"""Start the page: `python app.py`, then open the address that it prints."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="app.py", description="AdaFlow's page: preview, then edit a video by text.")
    parser.add_argument(
        "--model",
        default="embedded",
        help="embedded, a Hub id or a folder in diffusers' format (default: embedded)",
    )
    parser.add_argument(
        "--host",
        default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"),
        help="address to serve on; 0.0.0.0 for all (default: 127.0.0.1)",
    )
    parser.add_argument("--port", type=int, default=7860, help="port to serve on (default: 7860)")
    parser.add_argument("--device", default="auto", help="auto, cuda, mps or cpu (default: auto)")
    parser.add_argument(
        "--only-model", action="store_true", help="offer no other model on the page (default: the known checkpoints)"
    )
    parser.add_argument("--mcp", action="store_true", help="also serve the events as MCP tools (needs gradio[mcp])")
    parser.add_argument("--share", action="store_true", help="also make a public link through Gradio's servers")
    parser.add_argument("--max-seconds", type=float, default=120, help="longest upload taken (default: 120)")
    parser.add_argument("--max-megabytes", type=int, default=200, help="largest upload taken (default: 200)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    args = parse(arguments)
    if args.mcp and find_spec("mcp") is None:
        return _refuse('--mcp needs a package that is not installed; try: pip install "gradio[mcp]"')
    # Nothing is sent anywhere unless --share asks for it.
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    # Only now: gradio and torch take seconds to import, which `--help` must not wait for.
    from adaflow_core.backbone import KNOWN_MODELS
    from adaflow_core.types import AdaFlowError
    from webui.events import Limits
    from webui.page import build
    from webui.studio import Studio
    from webui.theme import CSS, HEAD, THEME

    folder = Path(tempfile.mkdtemp(prefix="adaflow-"))  # results live as long as the server
    limits = Limits(args.max_megabytes, args.max_seconds)
    studio = Studio(args.model, args.device, folder, () if args.only_model else tuple(KNOWN_MODELS))
    try:
        blocks = build(studio, limits)
        _, address, public = blocks.queue(max_size=64).launch(
            server_name=args.host,
            server_port=args.port,
            share=args.share,
            max_file_size=f"{limits.megabytes}mb",
            theme=THEME,
            css=CSS,
            head=HEAD,
            footer_links=["api", "settings"],
            quiet=True,
            prevent_thread_lock=True,
            mcp_server=args.mcp,
        )
        studio.load()
        print(f"AdaFlow is at {public or address.rstrip('/')} (Ctrl+C ends it)", flush=True)
        blocks.block_thread()
    except AdaFlowError as problem:
        return _refuse(str(problem))
    except OSError:
        return _refuse(f"{args.host}:{args.port} is taken or not this machine's; give another --port or --host")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def _refuse(problem: str) -> int:
    print(f"adaflow: error: {problem}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
