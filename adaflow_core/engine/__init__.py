"""The facade, and what it has done for it: a plan, an edit, a film of several edits, forecasts."""

from adaflow_core.engine.facade import AdaFlow

__all__ = ["AdaFlow"]
