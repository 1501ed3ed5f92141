"""Pictures on their way to a browser, as files that are written once.

Gradio writes an array's file anew each time it is shown, under the same name: whoever is being sent it at that moment
gets a torn file. Here equal pictures share a file that appears complete.
"""

from __future__ import annotations

import hashlib
import io
import os
import uuid

import numpy as np
from gradio.utils import get_upload_folder
from PIL import Image


def shown(picture: np.ndarray, form: str = "webp") -> str:
    """The path of a file of the picture [H, W, 3] uint8, where Gradio may send it from.

    `form`: "webp" for frames, "png" for plots.
    """
    content = io.BytesIO()
    Image.fromarray(picture).save(content, form.upper(), **({"quality": 90} if form == "webp" else {}))
    name = hashlib.blake2b(content.getvalue(), digest_size=16).hexdigest()
    folder = os.path.join(get_upload_folder(), "pictures")
    path = os.path.join(folder, f"{name}.{form}")
    try:
        os.utime(path)  # files are deleted by their age: one that is shown again is young
    except FileNotFoundError:
        os.makedirs(folder, exist_ok=True)
        part = f"{path}.{uuid.uuid4().hex}"
        with open(part, "wb") as file:
            file.write(content.getvalue())
        os.replace(part, path)
    return path
