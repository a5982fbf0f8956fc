"""A trained model as a model of every command: hf:PATH. It replies as a server does, in this process.

Calls in flight with the same parameters are generated together, in a thread, so that the event loop stays responsive.
Sampling depends on the call alone (its key and attempt), never on its batch: equal calls get equal answers at any
concurrency, up to float rounding.

A conversation whose last message is an empty user message asks for the user's turn: the model continues its template up
to the place where the user's words would stand (Magpie, arXiv 2406.08464).
"""

import asyncio
import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from hashlib import sha256
from math import inf, isfinite
from typing import Any

import torch

from datagen.errors import InputError, Outage
from datagen.llm.call import Call, Reply, refusal
from datagen.llm.local.chat_template import TemplateRefusal, render_chat
from datagen.llm.local.generation import Generated, Ids, Sampling, context_length, generate, open_model
from datagen.llm.local.hub import model_name
from datagen.llm.local.weights import language_model
from datagen.records.record import Messages, Row

BATCH_SIZE = 64
"""Sequences generated together."""
TURN = "\ue000the user's turn\ue001"
"""Marks the place of the user's words in a template."""
GATHER_SECONDS = 0.005
"""Time that the first call waits for others."""
PARAMS = ("temperature", "top_p", "max_tokens", "max_completion_tokens", "stop", "seed", "chat_template_kwargs")
"""The parameters that are understood. `seed` is part of the call's key, from which all random numbers come."""


class Refused(Exception):
    """A request that this model cannot answer."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


@dataclass(eq=False, slots=True)
class WaitingCall:
    """A call that waits for its batch."""

    ids: Ids
    sampling: Sampling
    seed: int
    answer: "asyncio.Future[Generated]"


class Local:
    """The innermost layer of an `hf:` model."""

    def __init__(self, spec: str) -> None:
        folder = language_model(spec)
        self._name = model_name(folder)
        self._model, self._tokenizer = open_model(folder)
        if self._tokenizer.chat_template is None:
            raise InputError(f"model {spec}: has no chat template, so it cannot answer requests; train it first")
        self._encoder = deepcopy(self._tokenizer)  # the other one decodes, in another thread
        self._context = context_length(self._model)
        self._waiting: list[WaitingCall] = []
        self._worker: asyncio.Task[None] | None = None
        self.unanswered_tokens = 0

    async def send(self, call: Call) -> Reply:
        try:
            sampling = read_params(params_without_form(call))
            ids = self._encode(call.messages, call.params.get("chat_template_kwargs"))
        except Refused as refused:
            return refusal(400, str(refused), param=refused.param, code="unsupported")
        loop = asyncio.get_running_loop()
        seed = int.from_bytes(sha256(call.key + call.attempt.to_bytes(8)).digest()[:8])
        waiting = WaitingCall(ids, sampling, seed, loop.create_future())
        self._waiting.append(waiting)
        if self._worker is None:
            self._worker = loop.create_task(self._work())
        answer = await waiting.answer
        message = {"role": "assistant", "content": answer.text}
        if answer.reasoning:
            message["reasoning_content"] = answer.reasoning
        choice = {"index": 0, "message": message, "finish_reason": answer.finish_reason}
        usage = {"prompt_tokens": len(ids), "completion_tokens": len(answer.ids)}
        return Reply(200, json.dumps({"model": self._name, "choices": [choice], "usage": usage}))

    async def close(self) -> None:
        """Wait for the current batch."""
        if self._worker is not None:
            await asyncio.wait([self._worker])

    def _encode(self, messages: Messages, values: Row | None = None) -> Ids:
        """Encode a conversation as the model was trained on it, up to the place where it continues."""
        is_user_turn = not messages[-1]["content"]
        if is_user_turn:
            messages = [*messages[:-1], {**messages[-1], "content": TURN}]
        try:
            text = render_chat(self._encoder, messages, values=values, ask=not is_user_turn)
        except TemplateRefusal as error:
            raise Refused(str(error)) from error
        if is_user_turn:
            text, mark, _ = text.rpartition(TURN)
            if not mark:
                raise Refused(f"the chat template of {self._name} does not leave the user's words as they are")
        ids: Ids = list(self._encoder(text, add_special_tokens=False)["input_ids"])
        if len(ids) >= self._context:
            raise Refused(f"the prompt has {len(ids)} tokens and {self._name} a context of {self._context}", "messages")
        return ids

    async def _work(self) -> None:
        """Generate batch after batch until no call waits. An error goes to every call of its batch."""
        try:
            await asyncio.sleep(GATHER_SECONDS)
            while self._waiting:
                batch = self._take_batch()
                try:
                    answers = await asyncio.to_thread(self._generate, batch)
                except Exception as error:
                    if isinstance(error, torch.OutOfMemoryError):
                        error = Outage(f"{self._name}: out of memory; lower --concurrency or --max-tokens")
                    for waiting in batch:
                        if not waiting.answer.done():
                            waiting.answer.set_exception(error)
                else:
                    self.unanswered_tokens = 0
                    for waiting, answer in zip(batch, answers, strict=True):
                        if not waiting.answer.done():
                            waiting.answer.set_result(answer)
        finally:
            self._worker = None

    def _take_batch(self) -> list[WaitingCall]:
        """Take the call that waits longest, and calls with the same parameters whose lengths are closest to it."""
        first = self._waiting[0]
        fitting = [waiting for waiting in self._waiting if waiting.sampling == first.sampling]
        fitting.sort(key=lambda waiting: len(waiting.ids))
        start = max(0, min(fitting.index(first) - BATCH_SIZE // 2, len(fitting) - BATCH_SIZE))
        batch = fitting[start : start + BATCH_SIZE]
        taken = set(map(id, batch))
        self._waiting = [waiting for waiting in self._waiting if id(waiting) not in taken]
        return batch

    def _generate(self, batch: list[WaitingCall]) -> list[Generated]:
        sampling = batch[0].sampling
        self.unanswered_tokens = 0
        return generate(
            self._model,
            self._tokenizer,
            [waiting.ids for waiting in batch],
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            stop=sampling.stop,
            seeds=[waiting.seed for waiting in batch],
            batch_size=BATCH_SIZE,
            on_tokens=self._count,
        )

    def _count(self, tokens: int) -> None:
        self.unanswered_tokens += tokens


def params_without_form(call: Call) -> Mapping[str, Any]:
    """Return the parameters of a call. What a method asks for in words too is left to the words."""
    if call.schema is None:
        return call.params
    return {name: value for name, value in call.params.items() if name != "response_format"}


def read_params(params: Mapping[str, Any]) -> Sampling:
    """Read the parameters of a request, with the API's defaults; raise Refused for one that would be ignored."""
    values = {name: value for name, value in params.items() if value is not None}
    for name, value in values.items():
        if name not in PARAMS:
            raise Refused(f"hf: models do not know the parameter {name}; they know {', '.join(PARAMS)}", name)
        if name in ("temperature", "top_p"):
            fits = isinstance(value, int | float) and isfinite(value) and 0 <= value <= (1 if name == "top_p" else inf)
        elif name in ("max_tokens", "max_completion_tokens"):
            fits = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        elif name == "stop":
            fits = all(isinstance(text, str) and text for text in (value if isinstance(value, list) else [value]))
        elif name == "chat_template_kwargs":
            fits = isinstance(value, dict)
        else:
            fits = isinstance(value, int)
        if not fits:
            raise Refused(f"{name}: {value!r} does not fit", name)
    stop = values.get("stop", [])
    return Sampling(
        max_tokens=values.get("max_tokens", values.get("max_completion_tokens", 1 << 31)),
        temperature=float(values.get("temperature", 1)),
        top_p=float(values.get("top_p", 1)),
        stop=tuple(stop) if isinstance(stop, list) else (stop,),
    )
