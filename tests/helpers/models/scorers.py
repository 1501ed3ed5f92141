"""Small models of the kinds that score videos, saved as the real ones are."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn


class Views(nn.Module):
    """In DOVER's place: the mean of each view."""

    def forward(self, aesthetic: Tensor, technical: Tensor) -> tuple[Tensor, Tensor]:
        return aesthetic.mean(), technical.mean()


def save_models(folder: Path) -> dict[str, Path]:
    """CLIP, DINOv2, an aesthetic head and a TorchScript file: as they are, but small and with random weights."""
    from transformers import CLIPConfig, CLIPModel, Dinov2Config, Dinov2Model
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    from scenes.training.embedded import build_tokenizer

    torch.manual_seed(0)
    tokenizer = build_tokenizer(["a", "red", "blue", "ball", "rocket", "in", "autumn"])
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = small | {
        "vocab_size": len(tokenizer), "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    vision = small | {"image_size": 32, "patch_size": 8}
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
    crop = {"crop_size": {"height": 32, "width": 32}, "size": {"shortest_edge": 32}}
    for part in (clip, tokenizer, CLIPImageProcessorPil(**crop)):
        part.save_pretrained(folder / "clip")
    dino = Dinov2Model(Dinov2Config(image_size=28, patch_size=14, **(small | {"mlp_ratio": 2})))
    for part in (dino, BitImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28})):
        part.save_pretrained(folder / "dino")
    torch.save({"weight": torch.randn(1, 16), "bias": torch.tensor([5.0])}, folder / "head.pth")
    views = torch.randn(1, 3, 32, 224, 224), torch.randn(3, 3, 32, 224, 224)
    torch.jit.trace(Views(), views).save(folder / "dover.pt")
    return {name: folder / name for name in ("clip", "dino", "head.pth", "dover.pt")}
