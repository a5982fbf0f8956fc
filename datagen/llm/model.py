"""The outermost layer: the models that answer chat requests, asked again until an answer is good.

The stack from the outside in: Roles (choice of the model, retry of bad answers), Budget, Journal, Limiter (retry of
transport), then Endpoint, Local, Replay or Sim. Whether a reply is good is decided here, and again at every replay, so
nothing but raw replies is ever recorded.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import count
from typing import Any

from datagen.errors import CallFailed
from datagen.llm.call import BadAnswer, Call, Completion, Layer, read_reply
from datagen.records.record import Messages, Prompt, Record, Usage, canonical

ATTEMPTS = 3
"""Bad answers to pay for before a call has failed."""
KEY_VERSION = 1
"""Part of every call key."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model, and the layers that send its calls."""

    identity: str
    below: Layer


@dataclass(eq=False, slots=True)
class Roles:
    """The models as the generator of one record sees them: by role. It counts what the record uses."""

    models: Mapping[str, Sequence[Model]]
    """Role to its models, which take turns."""
    record: Record
    params: Mapping[str, Any]
    """The user's sampling parameters. They override those of the method."""
    used: Usage = Usage()

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
        member: int | None = None,
        cut_ok: bool = False,
        **params: Any,
    ) -> Completion:
        """Ask the model that plays a role until an answer is good, at most ATTEMPTS times.

        Attempts that an earlier run recorded are read first. Where all of them were bad, ATTEMPTS more are made, so the
        same command asks exactly the failed calls again.

        Args:
            role: A role of the method, such as "teacher".
            prompt: The rendered template: messages, task and fields.
            sample: The number of the sample; equal requests with different numbers are answered independently.
            parse: Turns the text into `Completion.value`; ParseError makes the answer a bad one.
            member: The place of the model among those of its role. None: they take turns.
            cut_ok: Accept an answer that reached the length limit.
            params: Sampling parameters of the method, by their names in the chat completions API. The user's own
                override them, but for a judge: its verdict is a measurement.

        Returns:
            The first good answer. `model` is the identity of the model; `usage` counts the tokens of this answer only.

        Raises:
            CallFailed: There was no good answer. Fields: `reason`, `stage`, `detail` and `reply`, for `fail()`.
            Stopped: The run is ending, and the call was not sent.
            Outage: The endpoint cannot be used.
        """
        # 1. Choose the model and the parameters.
        model = self.models[role][self.turn(role, sample) if member is None else member]
        merged = params if role == "judge" else {**params, **self.params}
        key = call_key(model.identity, prompt.messages, merged, sample)
        call = Call(key, model.identity, prompt.messages, merged, sample, 1, prompt.task, prompt.fields)

        # 2. Send attempt after attempt, and count the tokens of every answer, good or bad.
        bad_in_block = 0
        for attempt in count(1):
            reply = await model.below.send(call if attempt == 1 else replace(call, attempt=attempt))
            tokens, used = reply.usage, self.used
            self.used = Usage(
                used.calls + 1,
                used.prompt_tokens + (tokens["prompt_tokens"] or 0),
                used.completion_tokens + (tokens["completion_tokens"] or 0),
            )
            try:
                completion = read_reply(reply, parse, cut_ok=cut_ok)
                completion.model = model.identity  # whatever name the server gives
                return completion
            except BadAnswer as bad:
                # 3. Give up after a block of bad answers, unless it ends in a recorded one: then a new block begins.
                bad_in_block += 1
                if bad.final or bad_in_block == ATTEMPTS:
                    if not reply.from_earlier_run:
                        raise CallFailed(bad.reason, stage=prompt.task, detail=bad.detail, reply=reply.text) from bad
                    bad_in_block = 0
        raise AssertionError


def call_key(model: str, messages: Messages, params: Mapping[str, Any], sample: int) -> bytes:
    """Return the digest of everything that decides the answer to a request: 32 bytes."""
    return sha256(canonical([KEY_VERSION, model, messages, params, sample])).digest()
