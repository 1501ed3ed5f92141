"""The page over the engine. Start at `page`: components; then `handlers`: what their events do."""
