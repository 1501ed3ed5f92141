"""Image files that are sent to browsers, each written once.

Gradio rewrites an array's file under the same name each time it is shown, so a browser that is downloading it at that
moment gets a broken file. Here equal images share one file, which is renamed into place when it is complete.
"""

from __future__ import annotations

import hashlib
import io
import os
import uuid
from typing import Literal

import numpy as np
from gradio.utils import get_upload_folder
from PIL import Image


def serve_image(image: np.ndarray, file_format: Literal["webp", "png"] = "webp") -> str:
    """Write an image [H, W, 3] uint8 where Gradio may serve it from, and return its path.

    "webp" is lossy and small, for frames; "png" is for plots.
    """
    content = io.BytesIO()
    Image.fromarray(image).save(content, file_format.upper(), **({"quality": 90} if file_format == "webp" else {}))
    name = hashlib.blake2b(content.getvalue(), digest_size=16).hexdigest()
    folder = os.path.join(get_upload_folder(), "pictures")
    path = os.path.join(folder, f"{name}.{file_format}")
    try:
        os.utime(path)  # files are deleted by age: one that is shown again must not expire
    except FileNotFoundError:
        os.makedirs(folder, exist_ok=True)
        part = f"{path}.{uuid.uuid4().hex}"
        with open(part, "wb") as file:
            file.write(content.getvalue())
        os.replace(part, path)
    return path
