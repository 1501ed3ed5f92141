"""Settings as files hold them: those of a report or a project, of older versions too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from adaflow_core.config.edit import EditConfig
from adaflow_core.config.plan import PlanConfig
from adaflow_core.config.table import ConfigError

JSON_BYTES = 64 * 2**20  # of a file at most; a report of 10,000 frames, or a project with some pictures, has less


def read_json(path: Path, what: str, remedy: str) -> Any:
    """The content of a JSON file that a user names; what cannot be read is said of `what`, with its `remedy`."""
    try:
        with path.open("rb") as file:
            content = file.read(JSON_BYTES + 1)
    except OSError as problem:
        raise ConfigError(f"{what} {path} cannot be read ({problem.strerror}); check the path") from problem
    if len(content) > JSON_BYTES:
        raise ConfigError(f"{what} {path} has more than {JSON_BYTES // 2**20} MiB; give a smaller file")
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as problem:
        raise ConfigError(f"{path} is no JSON, or is cut short ({problem}); {remedy}") from problem


def read_settings(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of a plan and of an edit in a JSON file: a report, or what a report holds as `settings`."""
    data = read_json(path, "the settings", "give the report of an edit")
    parts = []
    found = data.get("settings", data) if isinstance(data, dict) else None
    if not isinstance(found, dict) or not found.keys() <= {"plan", "edit"} or not found:
        raise ConfigError(f'the settings {path} hold no "plan" and no "edit"; give the report of an edit')
    for name, config in (("plan", PlanConfig), ("edit", EditConfig)):
        part = found.get(name, {})
        unknown = sorted(set(part) - {f.name for f in fields(config)}) if isinstance(part, dict) else [name]
        if unknown:
            raise ConfigError(f"the settings {path} hold what is no setting: {', '.join(unknown)}; take it out")
        parts.append(part)
    return parts[0], _as_it_was(parts[1])


def edit_of(settings: Mapping[str, Any]) -> EditConfig:
    """The settings of an edit as a report or a project holds them; TypeError where one is none."""
    return EditConfig(**_as_it_was(settings))


# What older versions, whose reports name all other settings, did where there was no setting yet.
_BEFORE: dict[str, Any] = {"stride": 1, "agreements": 0, "guided_from": 0.0, "coarse": 1.0, "max_steps": None}


def _as_it_was(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What an older version wrote, with what it did."""
    lacking = {f.name for f in fields(EditConfig)} - set(settings)
    return dict(settings) | ({name: _BEFORE[name] for name in lacking} if lacking <= _BEFORE.keys() else {})


def settings_dict(plan: PlanConfig, edit: EditConfig | None = None) -> dict[str, Any]:
    """The configurations as plain JSON data."""
    return {"plan": asdict(plan)} | ({"edit": asdict(edit)} if edit else {})
