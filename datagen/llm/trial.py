"""What a model can do, found out with a few tiny requests: `datagen doctor --try`.

A server may accept a parameter and ignore it, so the answers are looked at, not the status alone. Each finding is
`yes`, or `no` or `not known` with a reason. The requests are the only ones of `doctor` that may cost something.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from datagen.errors import InputError, Outage
from datagen.llm.call import Adapted, Call, Doubtful, Reply, Transient, ends_at_limit, error_message, read_logprobs
from datagen.llm.dialects import Spoken, content_of, read_message
from datagen.llm.endpoint import Endpoint
from datagen.llm.prices import Price, usage_of
from datagen.llm.spec import Spec
from datagen.records.usage import Usage

MOST_TOKENS, FEWEST_TOKENS = 64, 8
"""Of an answer, and of the one whose length is looked at."""
SECONDS = 60.0
"""For one request: a local server may load the model first."""
MOST_TRIES = 4
"""Sends of one request whose parameters are refused one after the other."""
SCHEMA = {
    "type": "object",
    "properties": {"greeting": {"type": "string"}},
    "required": ["greeting"],
    "additionalProperties": False,
}
JSON_SCHEMA = {"name": "hello", "strict": True, "schema": SCHEMA}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a town.",
        "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
    },
}


class Answer(NamedTuple):
    """A reply to one of the requests."""

    reply: Reply
    spoken: Spoken
    text: str
    """The content as it came."""


class Try(NamedTuple):
    """A request, and what its answer shows."""

    prompt: str
    params: Mapping[str, Any]
    judge: Callable[[Answer], str]
    """Returns "yes", or why not."""


class Trial(NamedTuple):
    """What came of all requests."""

    findings: dict[str, str]
    """What each has shown; empty if the model answers nothing."""
    requests: int
    usage: Usage
    """Of the answers, so without requests that were refused."""
    problem: str = ""


class NoAnswer(Exception):
    """There is no answer to look at; the text says why."""


def shows_json(answer: Answer) -> str:
    """Is the answer a JSON object?"""
    return "yes" if isinstance(load(answer.text), dict) else unless_cut(answer, "no: the answer is no JSON object")


def shows_schema(answer: Answer) -> str:
    """Has the answer the form of SCHEMA, for which the prompt does not ask?"""
    value = load(answer.text)
    is_held = isinstance(value, dict) and value.keys() == {"greeting"}
    return "yes" if is_held else unless_cut(answer, "no: accepted and ignored")


def shows_logprobs(answer: Answer) -> str:
    """Has the answer log-probabilities with alternatives?"""
    logprobs = read_logprobs(answer.reply.parsed["choices"][0].get("logprobs"))
    if not logprobs:
        return "no: accepted and ignored"
    return "yes" if any(token.alternatives for token in logprobs) else "no: without alternatives"


def shows_stop(answer: Answer) -> str:
    """Does the answer end before the stop sequence?"""
    if not answer.text.strip():
        return "not known: the answer is empty"
    return "no: accepted and ignored" if "5" in answer.text else "yes"


def shows_tools(answer: Answer) -> str:
    """Does the answer call the tool?"""
    return "yes" if answer.spoken.tool_calls else unless_cut(answer, "not known: accepted, and not called")


def shows_limit(answer: Answer) -> str:
    """Has the answer kept to its length, and does it say that it was cut?"""
    tokens = answer.reply.usage["completion_tokens"]
    if tokens is None:
        return "not known: the server counts no tokens"
    if tokens > FEWEST_TOKENS:
        return f"no: {tokens} tokens where {FEWEST_TOKENS} were the limit"
    return "yes" if ends_at_limit(answer.reply) else "not known: the answer was short"


def shows_reasoning(answer: Answer) -> str:
    """Does the model think, and does the server set that apart from the answer?"""
    if not answer.spoken.reasoning:
        return "not known: the model has not thought"
    return (
        "yes" if answer.text.strip() == answer.spoken.text.strip() else "no: it stands in the text, and is read there"
    )


def load(text: str) -> Any:
    """Return a text as a JSON value; None if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def unless_cut(answer: Answer, otherwise: str) -> str:
    """Return a finding, unless the answer was cut before it could show anything."""
    return f"not known: cut at {MOST_TOKENS} tokens" if ends_at_limit(answer.reply) else otherwise


FIRST = Try("Is water wet? Answer with yes or no.", {}, shows_reasoning)
"""Sent alone: where this has no answer, nothing else is sent."""
TRIES = {
    "json_schema": Try(
        "Say hello.", {"response_format": {"type": "json_schema", "json_schema": JSON_SCHEMA}}, shows_schema
    ),
    "json_object": Try("Say hello, as JSON.", {"response_format": {"type": "json_object"}}, shows_json),
    "logprobs": Try("Say hello.", {"logprobs": True, "top_logprobs": 2}, shows_logprobs),
    "seed": Try("Say hello.", {"seed": 1}, lambda _: "yes"),
    "stop": Try("Count from 1 to 9.", {"stop": ["5"]}, shows_stop),
    "tools": Try("What is the weather in Bern? Call the tool.", {"tools": [TOOL]}, shows_tools),
    "max_tokens": Try("Count from 1 to 100.", {"max_tokens": FEWEST_TOKENS}, shows_limit),
}
"""By what they find out."""


class Trier:
    """The requests to one model at one address.

    Args:
        spec: The model.
        url: One of its addresses.
        price: Of its answers; None if it is unknown.

    Raises:
        InputError: No connection can be opened.
    """

    def __init__(self, spec: Spec, url: str, price: Price | None) -> None:
        self._endpoint = Endpoint(url, spec.name, timeout=SECONDS, connections=len(TRIES), access=spec.access)
        self._params, self._price = spec.params, price
        self.requests, self.usage = 0, Usage()
        """So far."""

    async def run(self) -> dict[str, str]:
        """Send the requests; return what each shows.

        Raises:
            NoAnswer: The model answers nothing.
        """
        try:
            answer = await self._ask(FIRST)
            tries = list(TRIES.items())
            findings = await asyncio.gather(*(self._find(name, one) for name, one in tries))
        finally:
            await self._endpoint.close()
        tokens = "no" if answer.reply.usage["completion_tokens"] is None else "yes"
        return {
            **{name: finding for (name, _), finding in zip(tries, findings, strict=True)},
            "reasoning apart": FIRST.judge(answer),
            "tokens counted": tokens,
        }

    async def _find(self, name: str, one: Try) -> str:
        """Return what a request shows."""
        try:
            answer = await self._ask(one)
        except NoAnswer as error:
            return f"no: {error}"
        if self._endpoint.parameters.left_out & one.params.keys():
            return "no: refused"
        return one.judge(answer)

    async def _ask(self, one: Try) -> Answer:
        """Send a request, and again where a parameter of it is refused."""
        params = {"max_tokens": MOST_TOKENS, **self._params, **one.params}
        call = Call(b"trial", "", [{"role": "user", "content": one.prompt}], params, 0, 1, "trial", {})
        for _ in range(MOST_TRIES):
            self.requests += 1
            try:
                reply = await self._endpoint.send(call)
            except Adapted:
                continue
            except Doubtful as error:
                raise NoAnswer(str(error.outage)) from error
            except (Outage, Transient) as error:
                raise NoAnswer(str(error)) from error
            if reply.status >= 400:
                raise NoAnswer(f"refused (HTTP {reply.status}): {error_message(reply.body)}")
            self.usage += usage_of(call, reply, self._price)
            message = reply.parsed["choices"][0]["message"]
            return Answer(reply, read_message(message), content_of(message.get("content")))
        raise NoAnswer("its parameters are refused, one after the other")


async def try_model(spec: Spec, url: str, price: Price | None) -> Trial:
    """Find out what a model can do."""
    try:
        trier = Trier(spec, url, price)
    except InputError as error:
        return Trial({}, 0, Usage(), str(error))
    try:
        return Trial(await trier.run(), trier.requests, trier.usage)
    except NoAnswer as error:
        return Trial({}, trier.requests, trier.usage, str(error))
