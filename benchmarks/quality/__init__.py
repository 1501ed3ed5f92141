"""Quality against rendered truth: methods, switched-off parts and sweeps on clips whose true edit is known.

    python -m benchmarks.quality --out outputs/quality --minutes 60
    python -m benchmarks.quality --sweep prune=0,0.3,0.6,0.8,0.9,0.95 --methods none --out outputs/prune
    python -m benchmarks.quality --split val --methods adaflow --variants "sampled=0.5;importance=uniform"
    python -m benchmarks.quality --from a/quality.json b/quality.json --out outputs/all

Everything is one JSON file, rewritten as rows come; the page and the table are made from it, at once or later.
"""

PARTS = ("contest", "prune", "keyframes", "pairs", "media")  # parts of the results, each a list of rows
