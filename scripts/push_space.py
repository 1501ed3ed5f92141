"""Puts the page on a Hugging Face Space: `python scripts/push_space.py OWNER/NAME [--zerogpu] [--model ID]`.

A Docker Space on a CPU by default; with `--zerogpu` a Gradio Space with a GPU for each job. Log in first
(`hf auth login`). `--dry-run FOLDER` writes what would be pushed and pushes nothing. A Space that exists becomes what
is asked for; hardware that was chosen for a Docker Space, and a Space that is private, stay.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from adaflow_core.errors import AdaFlowError  # noqa: E402

# Not needed on a Space. The Hub has a .gitattributes of its own, for large files.
LEFT_OUT = (".ci/", ".gitattributes", ".pre-commit-config.yaml", "benchmarks/", "tests/")
ZERO_GPU = {"sdk": "gradio", "python_version": '"3.12"', "app_file": "app.py", "suggested_hardware": "zero-a10g"}


def stage(folder: Path, zero: bool) -> None:
    """Copy what the Space needs of the checkout into `folder`, with the front matter of its README."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as problem:
        raise AdaFlowError("git does not list the files of this folder; push from a clone made by git") from problem
    for name in filter(None, listed.split("\0")):
        if not name.startswith(LEFT_OUT):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(ROOT / name, folder / name)
            except FileNotFoundError as problem:
                raise AdaFlowError(f"{name} is in git and not in this folder; commit or restore it") from problem
    if zero:
        readme = folder / "README.md"
        readme.write_text(for_zero_gpu(readme.read_text(encoding="utf-8")), encoding="utf-8")


def for_zero_gpu(readme: str) -> str:
    """Return the README with the front matter of a Gradio Space instead of a Docker Space."""
    _, head, text = readme.split("---\n", 2)
    lines = [line for line in head.splitlines() if line.split(":")[0] not in ("sdk", "app_port")]
    lines += [f"{key}: {value}" for key, value in ZERO_GPU.items()] + [f"sdk_version: {_pinned('gradio')}"]
    return "---\n" + "\n".join(lines) + "\n---\n" + text


def _pinned(package: str) -> str:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return next(line.split("==")[1].split(";")[0] for line in lines if line.startswith(f"{package}=="))


def push(folder: Path, space: str, zero: bool, private: bool, model: str) -> str:
    """Push to the Space and return its address; raises AdaFlowError, with the remedy, if the Hub refuses it."""
    from httpx2 import HTTPError
    from huggingface_hub.errors import HFValidationError

    try:
        return _push(folder, space, zero, private, model)
    except (HTTPError, OSError, HFValidationError) as problem:  # all errors of the library are subclasses of these
        said = " ".join(str(problem).split())
        raise AdaFlowError(f"the push to {space} broke off ({said}); {_remedy(problem)}") from problem


def _remedy(problem: Exception) -> str:
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    status = problem.response.status_code if isinstance(problem, HfHubHTTPError) else None
    if isinstance(problem, HFValidationError):
        return "give it as OWNER/NAME"
    if status == 402:
        return "on free hardware such a Space takes a subscription (PRO, of an organization Team or Enterprise)"
    if status in (401, 403, 404) or isinstance(problem, LocalTokenNotFoundError):
        return "log in by a token that may write there, with: hf auth login"
    return "check the network, and run the same command again"


def _push(folder: Path, space: str, zero: bool, private: bool, model: str) -> str:
    from huggingface_hub import HfApi, SpaceHardware

    api, kind = HfApi(), "gradio" if zero else "docker"
    hardware = SpaceHardware.ZERO_A10G if zero else None
    address = api.create_repo(
        space, repo_type="space", space_sdk=kind, space_hardware=hardware, private=private, exist_ok=True
    )
    if private:  # for an existing Space `create_repo` ignores both this and the hardware
        api.update_repo_settings(space, repo_type="space", private=True)
    api.add_space_variable(space, "ADAFLOW_MODEL", model)  # always, because an earlier push may have set another
    api.upload_folder(repo_id=space, repo_type="space", folder_path=folder, delete_patterns="*")
    # After the upload, which makes it a Gradio or a Docker Space: only a Gradio Space can have ZeroGPU.
    runtime = api.get_space_runtime(space)
    has_zero = (runtime.requested_hardware or runtime.hardware) == SpaceHardware.ZERO_A10G
    if has_zero != zero:
        api.request_space_hardware(space, SpaceHardware.ZERO_A10G if zero else SpaceHardware.CPU_BASIC)
    return str(address)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("space", metavar="OWNER/NAME")
    parser.add_argument("--zerogpu", action="store_true", help="a Gradio Space on ZeroGPU (default: Docker, CPU)")
    parser.add_argument(
        "--model", metavar="ID", default="embedded", help="the checkpoint that the Space serves (default: embedded)"
    )
    parser.add_argument("--private", action="store_true")
    parser.add_argument("--dry-run", type=Path, metavar="FOLDER")
    args = parser.parse_args(arguments)
    try:
        if args.dry_run:
            stage(args.dry_run, args.zerogpu)
            print(args.dry_run)
            return 0
        with tempfile.TemporaryDirectory() as folder:
            stage(Path(folder), args.zerogpu)
            print(push(Path(folder), args.space, args.zerogpu, args.private, args.model))
    except AdaFlowError as problem:
        print(f"push_space: error: {problem}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
