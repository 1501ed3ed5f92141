"""Start the page: `python app.py`, then open the address that it prints."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from adaflow_core.cli.arguments import gpu_count, positive, whole_number
from adaflow_core.errors import AdaFlowError

if TYPE_CHECKING:
    from webui.studio import Studio

T = TypeVar("T")
_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
_PORT = whole_number(1, 65535)
_NO_ADDRESS = {errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES}
_NO_PORT = "Cannot find empty port"  # how Gradio's error begins, which has no number


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the options; an empty environment variable counts as unset."""
    parser = argparse.ArgumentParser(
        prog="app.py",
        description="AdaFlow's page: preview, then edit a video by text.",
        epilog="Where ADAFLOW_PASSWORD is set, the page asks for it, and for the user ADAFLOW_USER (default: adaflow).",
    )
    parser.add_argument(
        "--model",
        default=os.environ.get("ADAFLOW_MODEL") or "embedded",
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
        help="for strangers: tighter limits, files deleted after an hour, results marked as edited by AI and "
        "checked by the checkpoint's safety checker, log as JSON lines (default: $ADAFLOW_PUBLIC, else as on "
        "a Hugging Face Space)",
    )
    parser.add_argument(
        "--host",
        default=os.environ.get("GRADIO_SERVER_NAME") or "127.0.0.1",
        help="address to serve on; 0.0.0.0 for all (default: 127.0.0.1)",
    )
    parser.add_argument(
        "--port",
        type=_PORT,
        help="port to serve on (default: the first free one from $GRADIO_SERVER_PORT, else 7860, on)",
    )
    parser.add_argument("--device", default="auto", help="auto, cuda, mps or cpu (default: auto)")
    parser.add_argument(
        "--dtype",
        default="auto",
        choices=["auto", "float16", "bfloat16", "float32"],
        help="precision of the models (default: auto, which is half on an NVIDIA GPU)",
    )
    parser.add_argument("--gpus", type=gpu_count, default=1, metavar="N", help="edit each film on N GPUs (default: 1)")
    parser.add_argument(
        "--mcp", action="store_true", help="also serve tools for language models at /mcp (needs the package mcp)"
    )
    parser.add_argument("--share", action="store_true", help="also make a public link through Gradio's servers")
    _add_limits(parser)
    args = parser.parse_args(arguments)
    if args.public is None:
        args.public = _from_environment(parser, "ADAFLOW_PUBLIC", _yes_or_no, bool(os.environ.get("SPACE_ID")))
    _from_environment(parser, "GRADIO_SERVER_PORT", _PORT, None)  # checked here, read by Gradio
    return args


def _add_limits(parser: argparse.ArgumentParser) -> None:
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


def _from_environment(parser: argparse.ArgumentParser, name: str, read: Callable[[str], T], otherwise: T) -> T:
    """Read the environment variable `name`; `otherwise` if it is unset or empty. Exits with an error if invalid."""
    given = os.environ.get(name, "").strip()
    try:
        return read(given) if given else otherwise
    except argparse.ArgumentTypeError as problem:
        parser.error(f"{name}: {problem}")


def _yes_or_no(text: str) -> bool:
    if text.lower() not in _YES + _NO:
        raise argparse.ArgumentTypeError(f"{text!r} says neither yes nor no; give one of {', '.join(_YES + _NO)}")
    return text.lower() in _YES


def main(arguments: list[str] | None = None) -> int:
    args = parse(arguments)
    if args.mcp and find_spec("mcp") is None:
        return _refuse('--mcp needs a package that is not installed; try: pip install "mcp>=2,<3"')
    # Nothing is sent anywhere unless --share asks for it.
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # Gradio would summarise all earlier events after each new one, in a table that nobody reads here.
    os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "100")
    os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", "1000000")
    if not os.environ.get("GRADIO_SERVER_PORT"):
        os.environ.pop("GRADIO_SERVER_PORT", None)  # Gradio would try to read an empty one as a number
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # how a container is stopped; handled as Ctrl+C
    with ExitStack() as stack:  # deletes the folders when the server ends
        try:
            folder, uploads = _folders(stack)
        except AdaFlowError as problem:
            return _refuse(str(problem))
        return _serve(args, folder, uploads)


def _folders(stack: ExitStack) -> tuple[Path, Path]:
    """Make two folders for this run: one for its own files, and one for the uploads and results that Gradio serves."""
    from webui.serving.folders import own_folder

    given = os.environ.get("GRADIO_TEMP_DIR")
    try:
        folder = stack.enter_context(own_folder(Path(tempfile.gettempdir())))
    except OSError as problem:
        raise AdaFlowError(
            f"there is no folder for temporary files ({problem.strerror}); set TMPDIR to one"
        ) from problem
    try:
        uploads = (stack.enter_context(own_folder(Path(given))) if given else folder) / "uploads"
        uploads.mkdir()
    except OSError as problem:
        raise AdaFlowError(
            f"uploads cannot be kept in {given or folder} ({problem.strerror}); set GRADIO_TEMP_DIR to another folder"
        ) from problem
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)
    return folder, uploads


def _serve(args: argparse.Namespace, folder: Path, uploads: Path) -> int:
    if args.public and not os.environ.get("ADAFLOW_CACHE"):
        os.environ["ADAFLOW_CACHE"] = str(folder / "cache")  # what strangers' videos leave in it is deleted
    zero = os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "true")
    if zero:
        import spaces  # noqa: F401 - must be imported before torch, whose devices it replaces
    # Imported here: gradio and torch take seconds, which `--help` must not wait for.
    from webui.serving import logs
    from webui.serving.server import serve

    if args.public:
        logs.set_up()
    password = os.environ.get("ADAFLOW_PASSWORD")
    try:
        studio = _build_studio(args, folder, uploads, zero)
        server = serve(
            studio,
            uploads,
            host=args.host,
            port=args.port,
            password=(os.environ.get("ADAFLOW_USER") or "adaflow", password) if password else None,
            share=args.share,
            mcp=args.mcp,
        )
        studio.load()
        print(f"AdaFlow is at {server.address} (Ctrl+C ends it)", flush=True)
        server.blocks.block_thread()
        server.upkeep.stop()
    except AdaFlowError as problem:
        return _refuse(str(problem))
    except OSError as problem:
        return _refuse(_told(problem, f"{args.host}:{args.port}" if args.port else args.host))
    return 0


def _told(problem: OSError, address: str) -> str:
    """The message for an error that occurs while the page starts or is served at `address`."""
    file, said = problem.filename, problem.strerror or str(problem) or type(problem).__name__
    if file is None and (problem.errno in _NO_ADDRESS or str(problem).startswith(_NO_PORT)):
        return f"{address} is taken or not this machine's; give another --port or --host"
    return f"the page cannot be served: {said}" + (f" ({file})" if file is not None else "")


def _build_studio(args: argparse.Namespace, folder: Path, uploads: Path, zero: bool) -> Studio:
    """The page's state as the options say; `zero`: on ZeroGPU, where tasks run in forks."""
    from adaflow_core.model.loading import KNOWN_MODELS
    from webui.limits import limits_of
    from webui.studio import Studio

    runner = None
    if zero:
        from webui.jobs.zerogpu import ForkRunner

        runner = ForkRunner(folder / "orders", args.public, args.dtype)
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
        uploads / "results",  # in `uploads`: Gradio copies other files before serving them, which blocks every visitor
        known if args.offer is None else args.offer,
        limits=limits,
        public=args.public,
        runner=runner,
        gpus=1 if zero else args.gpus,
        dtype="auto" if zero else args.dtype,  # with forks, only short work runs here, on the CPU
    )


def _refuse(problem: str) -> int:
    print(f"adaflow: error: {problem}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
