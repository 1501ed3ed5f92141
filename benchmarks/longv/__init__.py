"""LongV-EVAL: edits every clip of a manifest by every method, and scores the edits.

    python -m benchmarks.longv.data drawn outputs/drawn --clips 9 --frames 16
    python -m benchmarks.longv --manifest outputs/drawn/manifest.jsonl --out outputs/longv \\
        --methods adaflow,tokenflow,per-frame --ray local --workers 2

It does what is missing in --out and nothing else: run it again after it was cut off, with more clips, with another
method, or once a score's weights are there. summary.md and summary.json hold the table.
"""
