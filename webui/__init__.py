"""The page over the engine. Start at `page`: which component calls what.

`steps` holds the components, `plan_events` and `edit_events` what their events do, `views` what is shown, `studio` the
engines, plans and results behind them, `jobs` the one thread that works.
"""
