"""The outermost layer: the models that answer chat requests, asked again until an answer is good.

The stack from the outside in: Roles (choice of the model, retry of bad answers), Budget, Journal, Paying (dollars held
for a call), Limiter (retry of transport), then Endpoint, Local, Replay or Sim. Whether a reply is good is decided here,
and again at every replay, so nothing but raw replies is ever recorded.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from datagen.errors import UNPARSED, CallFailed
from datagen.llm.call import EMBEDDING, BadAnswer, Call, Completion, Layer, Reply, read_reply
from datagen.llm.parameters import LENGTHS
from datagen.llm.purse import Purse
from datagen.records.record import Messages, Prompt, Record, canonical, request_messages
from datagen.records.usage import Purpose, Usage
from datagen.schemas import Schema

if TYPE_CHECKING:
    from datagen.llm.vectors import Vector

ATTEMPTS = 3
"""Bad answers to pay for before a call has failed."""
JUDGE_PARAMS = ("chat_template_kwargs",)
"""Parameters of the user's that a judge gets too: how its chat template is filled in is no matter of sampling."""
KEY_VERSION = 1
"""Part of every call key."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model, and the layers that send its calls."""

    identity: str
    below: Layer
    params: Mapping[str, Any] = field(default_factory=dict)
    """Its own parameters, from models.toml."""
    purse: Purse | None = None
    """Counts what its answers cost. None: it sends nothing."""


@dataclass(eq=False, slots=True)
class Roles:
    """The models as the generator of one record sees them: by role. It counts what the record uses."""

    models: Mapping[str, Sequence[Model]]
    """Role to its models, which take turns."""
    record: Record
    params: Mapping[str, Any]
    """The user's parameters, for all roles but the judge's."""
    judge_params: Mapping[str, Any] = field(default_factory=dict)
    """The user's parameters for the role "judge"."""
    used: Usage = Usage()
    spending: dict[Purpose, Usage] = field(default_factory=dict)
    """The parts of what it used since the engine last took them."""

    def identities(self, role: str) -> list[str]:
        """Return the identities of all models of a role."""
        return [model.identity for model in self.models[role]]

    def turn(self, role: str, sample: int = 0) -> int:
        """Return the place of the model that plays a role: several take turns, by record and sample."""
        return (int(self.record.id, 16) + sample) % len(self.models[role])

    def model(self, role: str, sample: int = 0) -> Model:
        """Return the model that plays a role for this record and sample."""
        return self.models[role][self.turn(role, sample)]

    async def chat(
        self,
        role: str,
        prompt: Prompt,
        *,
        sample: int = 0,
        parse: Callable[[str], Any] | None = None,
        schema: Schema | None = None,
        member: int | None = None,
        cut_ok: bool = False,
        calls_ok: bool = False,
        reminder: Prompt | None = None,
        **params: Any,
    ) -> Completion:
        """Ask the model that plays a role until an answer is good, at most ATTEMPTS times.

        Attempts that an earlier run recorded are read first. Where all of them were bad, ATTEMPTS more are made, so the
        same command asks exactly the failed calls again, but for cut answers: those need a higher limit, in another
        request.

        Args:
            role: A role of the method, such as "teacher".
            prompt: The rendered template: messages, task and fields.
            sample: The number of the sample; equal requests with different numbers are answered independently.
            parse: Turns the text into `Completion.value`; ParseError makes the answer a bad one.
            schema: The form that the prompt asks for: sent as `response_format`, unless the user or the model has one
                of their own. `parse` reads the reply all the same, since servers refuse or ignore it.
            member: The place of the model among those of its role. None: they take turns.
            cut_ok: Accept an answer that reached the length limit.
            calls_ok: Accept an answer without text that calls tools (`tools` among the parameters).
            reminder: At temperature 0, where the same request has the same answer, what is added to the question once
                `parse` has not accepted an answer; it is sent once, in place of the same request.
            params: Parameters of the method, by their names in the chat completions API. Those of the model override
                them, and the user's override both; for a judge see `merge_judge_params`.

        Returns:
            The first good answer. `model` is the identity of the model; `usage` counts the tokens of this answer only.

        Raises:
            CallFailed: There was no good answer. Fields: `reason`, `stage`, `detail` and `reply`, for `fail()`.
            Stopped: The run is ending, and the call was not sent.
            Outage: The endpoint cannot be used.
        """
        # 1. Choose the model and the parameters.
        model = self.models[role][self.turn(role, sample) if member is None else member]
        if role == "judge":
            merged = merge_judge_params(params, model.params, self.params, self.judge_params)
        else:
            merged = {**params, **model.params, **self.params}
        if schema and "response_format" not in merged:
            merged["response_format"] = schema.response_format
        else:
            schema = None
        messages = request_messages(prompt.messages)
        key = call_key(model.identity, messages, merged, sample)
        call = Call(key, model.identity, messages, merged, sample, 1, prompt.task, prompt.fields, schema)

        # 2. Send attempt after attempt, and count the tokens of every answer, good or bad.
        bad_in_block, attempt, is_greedy = 0, 1, reminder is not None and merged.get("temperature") == 0
        while True:
            reply = await model.below.send(call if attempt == 1 else replace(call, attempt=attempt))
            await self._count(role, model, call, reply)
            try:
                completion = read_reply(reply, parse, cut_ok=cut_ok, calls_ok=calls_ok)
                completion.model = model.identity  # whatever name the server gives
                return completion
            except BadAnswer as bad:
                # 3. Ask with a reminder of the form, where the model would answer the same again.
                bad_in_block, attempt = bad_in_block + 1, attempt + 1
                unread = is_greedy and bad.reason == UNPARSED
                if unread and reminder and bad_in_block < ATTEMPTS:
                    call, attempt, reminder = reminded(call, reminder), 1, None
                    continue

                # 4. Give up after a block of bad answers, unless it ends in a recorded one: then a new block begins.
                #    A cut answer, and an unread one at temperature 0, come again, whoever asks for them.
                if bad.settled or unread or bad.final or bad_in_block == ATTEMPTS:
                    if bad.settled or unread or not reply.from_earlier_run:
                        raise CallFailed(bad.reason, stage=prompt.task, detail=bad.detail, reply=reply.text) from bad
                    bad_in_block = 0

    async def embed(self, role: str, text: str) -> "Vector":
        """Return the vector of a text, of length 1, from the model that plays a role.

        A vector that cannot be used is not asked for again in this run: the same text has the same vector. A later run
        asks once more.

        Raises:
            CallFailed: There is no vector that can be used.
            Stopped: The run is ending, and the call was not sent.
            Outage: The endpoint cannot be used.
        """
        from datagen.llm.vectors import read_vector, vector_key  # numpy, which most commands do without

        model = self.models[role][0]
        params, messages = {**model.params, **self.params}, request_messages([{"role": "user", "content": text}])
        key = vector_key(model.identity, text, params, KEY_VERSION)
        call = Call(key, model.identity, messages, params, 0, 1, EMBEDDING, {}, is_embedding=True)
        while True:
            reply = await model.below.send(call)
            await self._count(role, model, call, reply)
            try:
                return read_vector(reply)
            except BadAnswer as bad:
                if not reply.from_earlier_run:
                    words = reply.body if reply.status >= 400 else None
                    raise CallFailed(bad.reason, stage=EMBEDDING, detail=bad.detail, reply=words) from bad
                call = replace(call, attempt=call.attempt + 1)

    async def _count(self, role: str, model: Model, call: Call, reply: Reply) -> None:
        """Count the tokens of an answer."""
        if model.purse is not None:
            usage, purpose = await model.purse.use(call, reply), Purpose(role, model.identity, call.task)
            self.used += usage
            self.spending[purpose] = self.spending.get(purpose, Usage()) + usage


def reminded(call: Call, reminder: Prompt) -> Call:
    """Return a call with a reminder at the end of its question."""
    *before, question = call.messages
    content = "\n\n".join(message["content"] for message in (question, *reminder.messages))
    messages = request_messages([*before, question | {"content": content}])
    key = call_key(call.model, messages, call.params, call.sample)
    return replace(call, key=key, messages=messages, attempt=1)


def merge_judge_params(
    method: Mapping[str, Any], model: Mapping[str, Any], user: Mapping[str, Any], judge: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the parameters of a request to a judge.

    A verdict is a measurement, so the method's parameters override those of the model and of the user. The length is
    none: the highest limit holds, since a judge that thinks needs more than the method's.

    Args:
        method: Of the method.
        model: Of the model, from models.toml.
        user: For all roles; JUDGE_PARAMS and the length are read.
        judge: For the judge alone. They override all others.
    """
    lengths = [params.get(name) for params in (method, model, user) for name in LENGTHS]
    longest = max((length for length in lengths if isinstance(length, int)), default=None)
    merged = {**model, **method, **{name: user[name] for name in JUDGE_PARAMS if name in user}}
    kept = {name: value for name, value in merged.items() if name not in LENGTHS}
    limit = {} if longest is None or judge.keys() & set(LENGTHS) else {LENGTHS[0]: longest}
    return {**kept, **limit, **judge}


async def gather_all(calls: Iterable[Awaitable[Any]]) -> list[Any]:
    """Return the results of calls in order. If one fails or is stopped, the others are still awaited: what is in flight
    is paid for, so it is recorded and counted."""
    calls = list(calls)
    if len(calls) == 1:  # a task of its own would cost as much as the call, where its answer is recorded
        return [await calls[0]]
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def call_key(model: str, messages: Messages, params: Mapping[str, Any], sample: int) -> bytes:
    """Return the digest of everything that decides the answer to a request: 32 bytes."""
    return sha256(canonical([KEY_VERSION, model, messages, params, sample])).digest()
