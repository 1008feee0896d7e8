"""Texts by an encoder of one's own: any ONNX file with its `tokenizer.json`, such as a MiniLM. Nothing is downloaded.

Source: Reimers & Gurevych 2019 (mean over the tokens that are there, then length one).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from loudly.adapters.onnx_encoder import BATCH, OnnxEncoder
from loudly.core.seams import Floats
from loudly.errors import DataError, ModelError


def text_encoder(path: str | Path, tokenizer: str | Path, *, longest: int = 256) -> Callable[[Sequence[str]], Floats]:
    """Texts to rows of length one. Of a long text the first `longest` tokens count.

    The graph takes `input_ids` and, where it wants them, `attention_mask` and `token_type_ids`, all (n, tokens); it gives (n, k) or
    (n, tokens, k).
    """
    encoder = OnnxEncoder(path)
    try:
        tokens = Tokenizer.from_file(str(tokenizer))
    except Exception as wrong:
        raise ModelError("This file is no tokenizer.", seen=str(wrong)[:200], do="Give the model's tokenizer.json.") from wrong
    tokens.enable_truncation(longest)
    tokens.enable_padding()

    def some(texts: Sequence[str]) -> Floats:
        read = tokens.encode_batch(list(texts))
        mask = np.array([r.attention_mask for r in read])
        ids, kinds = np.array([r.ids for r in read]), np.array([r.type_ids for r in read])
        made = encoder({"input_ids": ids, "attention_mask": mask, "token_type_ids": kinds}, mask)
        found: Floats = made / np.maximum(np.linalg.norm(made, axis=1, keepdims=True), 1e-12)
        return found

    def embed(texts: Sequence[str]) -> Floats:
        if not len(texts):
            raise DataError("No texts were given.")
        order = np.argsort([len(t) for t in texts], kind="stable")  # texts of one length pad little
        parts = [some([texts[i] for i in order[at : at + BATCH]]) for at in range(0, len(order), BATCH)]
        out = np.empty((len(texts), parts[0].shape[1]))
        out[order] = np.concatenate(parts)
        return out

    return embed
