"""Arrays on their way to the device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

BLOCK = 256  # frames' latents that go between a file and the device at a time: a long video's must not fill the memory


def upload(array: np.ndarray, device: torch.device) -> Tensor:
    """A copy of `array` on `device`.

    To a GPU it goes through pinned memory: from any other a copy waits for all work that was given before it, and the
    GPU then waits for the next.
    """
    tensor = torch.from_numpy(np.array(array))
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
