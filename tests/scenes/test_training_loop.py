"""Training on several processes is training on all of their pictures at once."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
# Three steps of a linear map on rows of its own for each process, or on all of them where there is one.
SCRIPT = """
import json, sys, torch
from pathlib import Path
from scenes.training.loop import RANK, WORLD, Clock, Options, Trainee
options = Options(out=Path("."), device=torch.device("cpu"), steps=3)
torch.manual_seed(0)
layer = torch.nn.Linear(3, 2)
rows = torch.randn(3, 4, 3, generator=torch.Generator().manual_seed(1))  # step, row, value
trainee = Trainee({"layer": layer}, options)
own = rows[:, 2 * RANK : 2 * RANK + 2] if WORLD > 1 else rows
for step in range(3):
    trainee.step(trainee.working["layer"](own[step]).square().mean(), 1e-2)
clock = Clock(1.0, None)
clock.started -= 60 * RANK  # the second process is over already
clock.deadline -= 60 * RANK
clock.share(options.device)
print(json.dumps([[w.tolist() for w in trainee.master_weights], clock.progress]))
"""


def trained(world: int) -> list:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(world)}
    place = os.environ | meeting | {"PYTHONPATH": str(ROOT)}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT], env=place | {"RANK": str(r)}, stdout=subprocess.PIPE, text=True
        )
        for r in range(world)
    ]
    return [json.loads(process.communicate(timeout=120)[0].splitlines()[-1]) for process in ranks]


@pytest.mark.thorough
def test_two_processes_train_as_one_on_all_their_rows() -> None:
    ((alone, _),) = trained(1)
    first, second = trained(2)
    assert first == second  # weights to the bit, and how far they are
    for weights, expected in zip(first[0], alone, strict=True):
        np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-6)
    assert 0.45 < first[1] < 0.55  # the mean of 0 and 1
