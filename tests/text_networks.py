"""Small networks that match photos with texts, saved as their users save them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

# Each fixture has its tokenizer, whose words are these.
WORDS = """
    a photo of the cat dog red blue car tree house big small bird fish drawing . , blurry
    """.split()
SIDE = 32
VISION = {
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 32,
    "image_size": SIDE,
    "patch_size": 8,
}
TEXT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 12,
    "vocab_size": len(WORDS) + 4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
# By type, what differs.
KINDS: dict[str, dict[str, Any]] = {
    "clip": {"projection_dim": 16},
    "siglip": {"text": {"hidden_size": 24, "projection_size": 24}},
    "chinese_clip": {"projection_dim": 16},
    "altclip": {"projection_dim": 16, "text": {"project_dim": 16}},
    "metaclip_2": {"projection_dim": 16},
    "blip": {"projection_dim": 16},
}
TOKENS = TEXT["max_position_embeddings"]


def tokenizer() -> Any:
    """A tokenizer of the words above, with a limit."""
    import tokenizers
    import transformers

    special = ["<pad>", "<s>", "</s>", "<unk>"]
    vocabulary = {word: place for place, word in enumerate([*special, *WORDS])}
    backend = tokenizers.Tokenizer(
        tokenizers.models.WordLevel(vocabulary, unk_token="<unk>")
    )
    backend.normalizer = tokenizers.normalizers.Lowercase()
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=TOKENS,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )


def network(kind: str) -> Any:
    """A network of both towers, with random weights that differ enough to tell."""
    import transformers

    settings = dict(KINDS[kind])
    text = {**TEXT, **settings.pop("text", {})}
    config = transformers.AutoConfig.for_model(
        kind, text_config=text, vision_config=dict(VISION), **settings
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        automatic = transformers.AutoModelForZeroShotImageClassification
        module = automatic.from_config(config).eval()
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(4)
                elif parameter.ndim == 1:
                    parameter.add_(0.1 * torch.randn(parameter.shape))
    return module


def save(kind: str, folder: Path) -> Any:
    """Network, tokenizer and image processor in a folder, as save_pretrained leaves them."""
    import transformers

    module = network(kind)
    module.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    name = "SiglipImageProcessor" if kind == "siglip" else "CLIPImageProcessor"
    size: dict[str, Any] = {"size": {"height": SIDE, "width": SIDE}}
    if kind != "siglip":
        crop = {"height": SIDE, "width": SIDE}
        size = {"size": {"shortest_edge": SIDE}, "crop_size": crop}
    getattr(transformers, name)(**size).save_pretrained(folder)
    return module
