"""An encoder as an embedding model: hf:PATH. It replies as a server does, in this process.

A vector is the mean of the last hidden states over all tokens of the text, special ones included (Sentence-BERT,
Reimers & Gurevych 2019, arXiv 1908.10084), in float32. Departure: a text longer than the context is not cut. It is
encoded in windows, and the mean is over the tokens of all of them.

Texts in flight are encoded together, in a thread. A vector does not depend on the others, up to float rounding.
"""

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

from datagen.errors import InputError, Outage
from datagen.llm.call import Call, Reply, refusal
from datagen.llm.local.generation import Ids, context_length, in_batches, inference_mode
from datagen.llm.local.hub import POOLING, model_name
from datagen.llm.local.loading import load_network, load_part, refuse_missing
from datagen.llm.local.weights import is_adapter, language_model
from datagen.llm.vectors import vector_reply

BATCH_SIZE, BATCH_TOKENS = 32, 16_384
"""The most windows, and the most tokens with padding, that are encoded together."""
MOST_WAITING = 256
"""Texts taken together, so that those of like length meet in a batch."""
POSITION_OFFSET = 2
"""RoBERTa and its kin number positions from 2, and count these in their context."""
GATHER_SECONDS = 0.005
"""Time that the first text waits for others."""


@dataclass(eq=False, slots=True)
class WaitingText:
    """A text that waits for its batch, as windows of token ids."""

    windows: list[Ids]
    vector: "asyncio.Future[list[float]]"


class Embedder:
    """The innermost layer of an `hf:` model that is asked for vectors.

    Raises:
        InputError: There is no such model, it cannot be loaded, or its vectors are not means.
    """

    def __init__(self, spec: str) -> None:
        folder = language_model(spec)
        self._name = model_name(folder)
        self._model, self._tokenizer = open_encoder(folder)
        longest = min(context_length(self._model) - POSITION_OFFSET, int(self._tokenizer.model_max_length))
        self._window = max(longest, 1)
        self._waiting: list[WaitingText] = []
        self._worker: asyncio.Task[None] | None = None

    async def send(self, call: Call) -> Reply:
        if call.params and call.is_embedding:
            return refusal(400, f"hf: embedding models have no parameters: {', '.join(call.params)}")
        windows = self._encode(str(call.messages[-1]["content"]))
        if not any(windows):
            return refusal(400, "the tokenizer finds no token in the text")
        loop = asyncio.get_running_loop()
        waiting = WaitingText(windows, loop.create_future())
        self._waiting.append(waiting)
        if self._worker is None:
            self._worker = loop.create_task(self._work())
        return vector_reply(self._name, await waiting.vector, sum(map(len, windows)))

    async def close(self) -> None:
        """Wait for the current batch."""
        if self._worker is not None:
            await asyncio.wait([self._worker])

    def _encode(self, text: str) -> list[Ids]:
        """Return the token ids of a text, in windows that fit into the context."""
        options = {"truncation": True, "max_length": self._window, "return_overflowing_tokens": True}
        return [list(ids) for ids in self._tokenizer([text], **options)["input_ids"]]

    async def _work(self) -> None:
        """Encode batch after batch until no text waits. An error goes to every text of its batch."""
        try:
            await asyncio.sleep(GATHER_SECONDS)
            while self._waiting:
                texts, self._waiting = self._waiting[:MOST_WAITING], self._waiting[MOST_WAITING:]
                try:
                    vectors = await asyncio.to_thread(self._vectors, [text.windows for text in texts])
                except Exception as error:
                    if isinstance(error, torch.OutOfMemoryError):
                        error = Outage(f"{self._name}: out of memory; lower --concurrency")
                    for text in texts:
                        if not text.vector.done():
                            text.vector.set_exception(error)
                else:
                    for text, vector in zip(texts, vectors, strict=True):
                        if not text.vector.done():
                            text.vector.set_result(vector)
        finally:
            self._worker = None

    def _vectors(self, texts: Sequence[list[Ids]]) -> list[list[float]]:
        """Return the mean state of each text."""
        owners = [(place, ids) for place, windows in enumerate(texts) for ids in windows]
        sums = torch.zeros(len(texts), self._model.config.get_text_config().hidden_size)
        with inference_mode(self._model):
            for batch in in_batches([len(ids) for _, ids in owners], BATCH_SIZE, BATCH_TOKENS):
                states = self._sums([owners[i][1] for i in batch])
                sums.index_add_(0, torch.tensor([owners[i][0] for i in batch]), states)
        counts = torch.tensor([[sum(map(len, windows))] for windows in texts])
        vectors: list[list[float]] = (sums / counts).tolist()
        return vectors

    def _sums(self, windows: Sequence[Ids]) -> torch.Tensor:
        """Return the sum of the states of each window, windows x states."""
        width = max(map(len, windows))
        device = self._model.device
        padded = torch.tensor([[*ids, *[0] * (width - len(ids))] for ids in windows], device=device)
        mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in windows], device=device)
        states = self._model(input_ids=padded, attention_mask=mask).last_hidden_state
        sums: torch.Tensor = (states * mask[:, :, None]).sum(dim=1).cpu()
        return sums


def open_encoder(folder: Path) -> tuple[Any, Any]:
    """Load an encoder in float32 and its tokenizer, onto the GPU if there is one.

    Raises:
        InputError: It cannot be loaded, weights are missing, or its vectors are not means.
    """
    refuse_other_pooling(folder)
    if is_adapter(folder):
        raise InputError(f"model {folder}: is an adapter; merge it first: datagen train merge {folder}")
    logging.disable_progress_bar()
    try:
        tokenizer = load_part(AutoTokenizer, folder)
        model, report = load_network(AutoModel, folder, dtype=torch.float32, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        message = [*str(error).strip().splitlines(), type(error).__name__][0][:300]
        raise InputError(f"model {folder}: cannot be loaded: {message}") from error
    refuse_missing(folder, (name for name in report["missing_keys"] if "pooler" not in name))
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval(), tokenizer


def refuse_other_pooling(folder: Path) -> None:
    """Raise InputError if the files of a model say that its vectors are no means of all states."""
    pooling = None
    with suppress(OSError, ValueError, RecursionError):
        pooling = json.loads((folder / POOLING).read_bytes())
    if isinstance(pooling, dict) and not pooling.get("pooling_mode_mean_tokens", True):
        raise InputError(
            f"model {folder}: {POOLING} asks for another pooling than the mean, which alone is done here; serve it, "
            "and name the server: --embedder NAME@URL"
        )
