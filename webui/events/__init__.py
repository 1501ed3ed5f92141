"""The event handlers of the page, one file per topic of a step; `common/` holds what they share."""
