"""The outermost layer: a model that answers chat requests, asked again until the answer is good.

The stack, outside in: Model (answer retry), Budget, Journal, Limiter with transport retry, Endpoint or Sim. Whether a
reply is good is decided here and again at every replay, so nothing but raw replies is ever recorded.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

from datagen.errors import CallFailed
from datagen.llm.call import BadAnswer, Call, Completion, Layer, call_key, read_reply, reply_text, reply_usage
from datagen.prompts import Prompt
from datagen.records.record import Record, Usage

ATTEMPTS = 3
"""Answers to pay for before a call has failed."""


class Model:
    """One model behind the whole stack."""

    def __init__(self, identity: str, below: Layer) -> None:
        self.identity, self._below = identity, below

    async def chat(
        self,
        prompt: Prompt,
        *,
        sample: int = 0,
        parse: Callable[[str], Any] | None = None,
        used: Callable[[Usage], None] = lambda usage: None,
        cut_ok: bool = False,
        **params: Any,
    ) -> Completion:
        """Return the first good answer, or raise CallFailed; `used` is told of every answer, good or not.

        Attempts that an earlier run recorded are walked first. Where they all were bad, a new block of ATTEMPTS
        is asked: running the command again asks exactly the failed ones again.
        """
        key = call_key(self.identity, prompt.messages, params, sample)
        call = Call(key, self.identity, prompt.messages, params, sample, 1, prompt.task, prompt.fields)
        bad_in_block = 0
        for attempt in count(1):
            reply = await self._below.send(call if attempt == 1 else replace(call, attempt=attempt))
            used(Usage(1, *reply_usage(reply)))
            try:
                said = read_reply(reply, parse, cut_ok=cut_ok)
                said.model = self.identity  # whatever the server calls itself
                return said
            except BadAnswer as bad:
                bad_in_block += 1
                if bad.final or bad_in_block == ATTEMPTS:
                    if not reply.old:
                        raise CallFailed(
                            bad.reason, stage=prompt.task, detail=bad.detail, reply=reply_text(reply)
                        ) from bad
                    bad_in_block = 0
        raise AssertionError


class Roles:
    """The models as one record's generator sees them: by role, with what they use counted."""

    def __init__(
        self,
        models: Mapping[str, Sequence[Model]],
        record: Record,
        params: Mapping[str, Any],
    ) -> None:
        """`params` are the user's sampling parameters; they overrule a method's own."""
        self._models, self._record, self._params = models, record, params
        self.used = Usage()

    def identities(self, role: str) -> list[str]:
        """Name all models of a role."""
        return [model.identity for model in self._models[role]]

    def turn(self, role: str, sample: int = 0) -> int:
        """Say which of a role's models plays it now: several take turns, by record and sample."""
        return (int(self._record.id, 16) + sample) % len(self._models[role])

    def model(self, role: str, sample: int = 0) -> Model:
        """Return the model that plays a role now."""
        return self._models[role][self.turn(role, sample)]

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
        """Ask the model that plays a role, or that member of it. A judge keeps the method's parameters: its verdict is
        a measurement."""
        asked = params if role == "judge" else {**params, **self._params}
        model = self.model(role, sample) if member is None else self._models[role][member]
        return await model.chat(prompt, sample=sample, parse=parse, used=self._count, cut_ok=cut_ok, **asked)

    def _count(self, usage: Usage) -> None:
        self.used += usage
