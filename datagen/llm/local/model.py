"""A trained model as a model of every command: hf:PATH. It answers like a server, in this process.

Calls in flight that ask with the same parameters are generated together, in a thread, so that the event loop lives.
What is sampled depends on the call alone (its key and attempt), never on the batch it fell into: equal calls are
answered equally at any concurrency, up to float rounding.

A conversation whose last message is the user's and empty is one in which the user has yet to speak: the model is given
its template up to that place, and writes the user's turn (Magpie, arXiv 2406.08464).
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from hashlib import sha256
from math import isfinite
from typing import Any

import torch

from datagen.errors import InputError, Outage
from datagen.llm.call import Call, Reply, refusal
from datagen.llm.local.generation import Generated, Ids, Sampling, context_length, generate, open_model
from datagen.llm.local.weights import model_folder
from datagen.records.record import Messages

BATCH = 64
"""Sequences generated together."""
TURN = "\ue000the user's turn\ue001"
"""Marks in a conversation where the user would speak."""
GATHER = 0.005
"""Seconds that the first call waits for others."""


class Refused(Exception):
    """A request that this model cannot answer, ever."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


@dataclass(eq=False, slots=True)
class Waiting:
    """A call that waits for its batch."""

    ids: Ids
    sampling: Sampling
    seed: int
    answer: "asyncio.Future[Generated]"


class Local:
    """The innermost layer of an `hf:` model."""

    def __init__(self, spec: str) -> None:
        folder = model_folder(spec)
        self._name = folder.resolve().name
        self._model, self._tokenizer = open_model(folder)
        if self._tokenizer.chat_template is None:
            raise InputError(f"model {spec}: has no chat template, so it cannot be asked; train it first")
        self._encoder = deepcopy(self._tokenizer)  # the other one decodes, in another thread
        self._context = context_length(self._model)
        self._waiting: list[Waiting] = []
        self._worker: asyncio.Task[None] | None = None

    async def send(self, call: Call) -> Reply:
        try:
            ids, sampling = self._ids(call.messages), read_params(call.params)
        except Refused as refused:
            return refusal(400, str(refused), param=refused.param, code="unsupported")
        answer: asyncio.Future[Generated] = asyncio.get_running_loop().create_future()
        self._waiting.append(Waiting(ids, sampling, seed_of(call), answer))
        if self._worker is None:
            self._worker = asyncio.get_running_loop().create_task(self._work())
        return self._reply(len(ids), await answer)

    async def close(self) -> None:
        """Wait for the batch under way."""
        if self._worker is not None:
            await asyncio.wait([self._worker])

    def _ids(self, messages: Messages) -> Ids:
        """Encode a conversation as the model was trained on it, up to where it is to go on."""
        text = self._text(messages) if messages[-1]["content"] else self._up_to_turn(messages)
        ids: Ids = list(self._encoder(text, add_special_tokens=False)["input_ids"])
        if len(ids) >= self._context:
            raise Refused(f"the prompt has {len(ids)} tokens and {self._name} a context of {self._context}", "messages")
        return ids

    def _text(self, messages: Messages, *, answer: bool = True) -> str:
        """Write a conversation in the model's template."""
        try:
            return str(self._encoder.apply_chat_template(messages, tokenize=False, add_generation_prompt=answer))
        except Exception as error:  # a template is a program of the model's maker
            raise Refused(f"the chat template of {self._name} refuses the messages: {error}") from error

    def _up_to_turn(self, messages: Messages) -> str:
        """Write a conversation up to where the user speaks."""
        before, mark, _ = self._text([*messages[:-1], {**messages[-1], "content": TURN}], answer=False).rpartition(TURN)
        if not mark:
            raise Refused(f"the chat template of {self._name} does not leave the user's words as they are")
        return before

    async def _work(self) -> None:
        """Answer until nobody waits."""
        try:
            await asyncio.sleep(GATHER)
            while self._waiting:
                await self._answer(self._take())
        finally:
            self._worker = None

    def _take(self) -> list[Waiting]:
        """Take the call that waits longest, and those that fit it best: same parameters, about its length."""
        first = self._waiting[0]
        fitting = [each for each in self._waiting if each.sampling == first.sampling]
        fitting.sort(key=lambda each: len(each.ids))
        start = max(0, min(fitting.index(first) - BATCH // 2, len(fitting) - BATCH))
        batch = fitting[start : start + BATCH]
        taken = set(map(id, batch))
        self._waiting = [each for each in self._waiting if id(each) not in taken]
        return batch

    async def _answer(self, batch: list[Waiting]) -> None:
        """Generate a batch; whatever goes wrong is told to everyone in it."""
        try:
            made = await asyncio.to_thread(self._generate, batch)
        except torch.OutOfMemoryError:
            self._fail(batch, Outage(f"{self._name}: out of memory; lower --concurrency or --max-tokens"))
        except Exception as error:
            self._fail(batch, error)
        else:
            for each, answer in zip(batch, made, strict=True):
                if not each.answer.done():
                    each.answer.set_result(answer)

    def _generate(self, batch: list[Waiting]) -> list[Generated]:
        prompts, seeds, asked = [each.ids for each in batch], [each.seed for each in batch], batch[0].sampling
        return generate(
            self._model,
            self._tokenizer,
            prompts,
            max_tokens=asked.max_tokens,
            temperature=asked.temperature,
            top_p=asked.top_p,
            stop=asked.stop,
            seeds=seeds,
            batch_size=BATCH,
        )

    def _fail(self, batch: list[Waiting], error: Exception) -> None:
        for each in batch:
            if not each.answer.done():
                each.answer.set_exception(error)

    def _reply(self, asked: int, answer: Generated) -> Reply:
        message = {"role": "assistant", "content": answer.text}
        choice = {"index": 0, "message": message, "finish_reason": answer.finish_reason}
        usage = {"prompt_tokens": asked, "completion_tokens": len(answer.ids)}
        return Reply(200, json.dumps({"model": self._name, "choices": [choice], "usage": usage}))


def seed_of(call: Call) -> int:
    """Draw a call's chance from what it is."""
    return int.from_bytes(sha256(call.key + call.attempt.to_bytes(8)).digest()[:8])


def _number(least: float, most: float = float("inf")) -> Callable[[Any], bool]:
    def fits(value: Any) -> bool:
        return isinstance(value, int | float) and isfinite(value) and least <= value <= most

    return fits


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_stop(value: Any) -> bool:
    texts = value if isinstance(value, list) else [value]
    return all(isinstance(text, str) and text for text in texts)


PARAMS: dict[str, Callable[[Any], bool]] = {
    "temperature": _number(0),
    "top_p": _number(0, 1),
    "max_tokens": _is_count,
    "max_completion_tokens": _is_count,
    "stop": _is_stop,
    "seed": lambda value: isinstance(value, int),  # it is part of the call's key, which every draw comes from
}
"""The parameters that are understood, and what fits them."""


def read_params(params: Mapping[str, Any]) -> Sampling:
    """Read the parameters of a request, with the API's defaults; raise Refused for one that would be ignored."""
    given = {name: value for name, value in params.items() if value is not None}
    for name, value in given.items():
        if name not in PARAMS:
            raise Refused(f"hf: models do not know the parameter {name}; they know {', '.join(PARAMS)}", name)
        if not PARAMS[name](value):
            raise Refused(f"{name}: {value!r} does not fit", name)
    stop = given.get("stop", [])
    return Sampling(
        max_tokens=given.get("max_tokens", given.get("max_completion_tokens", 1 << 31)),
        temperature=float(given.get("temperature", 1)),
        top_p=float(given.get("top_p", 1)),
        stop=tuple(stop) if isinstance(stop, list) else (stop,),
    )
