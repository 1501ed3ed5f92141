"""Settings: frozen dataclasses that check themselves, presets, and what each model carries as its own.

`PlanConfig` and `EditConfig` are the table of settings: a field's type and its `setting(...)` are all that the checks,
the command line with its help, the page's words and ranges, and the command that repeats an edit know of it. A new
setting is one line in `plan.py` or `edit.py`, and its use. If models have a value of their own for it, its type allows
None, its default is None, and `ModelProfile` has a field of the same name.
"""

from adaflow_core.config.edit import BY_WORDS, CROPS, DELIVERIES, GUIDED_FROM, EditConfig
from adaflow_core.config.filled import FilledEdit, JobEdit
from adaflow_core.config.plan import BUDGET, METHODS, PlanConfig
from adaflow_core.config.presets import PRESETS
from adaflow_core.config.profile import ModelProfile, resolve_edit, resolve_plan
from adaflow_core.config.saved import edit_of, read_json, read_settings, settings_dict
from adaflow_core.config.table import ConfigError, Setting, as_flags, settings_of

__all__ = [
    "BUDGET",
    "BY_WORDS",
    "CROPS",
    "DELIVERIES",
    "GUIDED_FROM",
    "METHODS",
    "PRESETS",
    "ConfigError",
    "EditConfig",
    "FilledEdit",
    "JobEdit",
    "ModelProfile",
    "PlanConfig",
    "Setting",
    "as_flags",
    "edit_of",
    "read_json",
    "read_settings",
    "resolve_edit",
    "resolve_plan",
    "settings_dict",
    "settings_of",
]
