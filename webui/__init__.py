"""The page over the engine. Start at `page`: which component calls what.

`steps` holds the components, `plan_events` and `edit_events` what their events do, `views` what is shown, `studio` the
plans and results behind them, `jobs` the one thread that works, `work` what it does there or (`zerogpu`) in a fork.
`serve` puts the page on an address; `limits`, `upkeep`, `logs` and `wording` are for pages that many use.
"""
