"""How long an edit takes, stage by stage, how much memory, and how near it comes to the device's matrix rate.

    python -m benchmarks.speed --arch sd21 --frames 1000 --size 672x384 --preset paper --keyframes 48 --json speed.json
    python -m benchmarks.speed --arch sd21 --micro --json attention.json

Needed operations are counted (benchmarks/speed/work.py), not those that the program runs, and their rate is compared
with that of a matrix product in the same run. `--micro` times the keyframes' attention and pass instead of an edit.
"""
