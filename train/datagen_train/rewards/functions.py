"""What a reward is, and the rewards that are no neural network: a function, a verifier, an HTTP service.

A reward is a function of TRL's protocol:

    f(prompts, completions, completion_ids, **columns, trainer_state, log_extra, log_metric) -> list[float | None]

Args:
    prompts: One per answer: a text, or a list of messages.
    completions: One per prompt, in the same form: a text, or a list with one assistant message.
    completion_ids: The policy's token ids of each answer. Another tokenizer numbers tokens differently: use the texts.
    columns: One list per field of the rows: `response` (the expected answer, or None), `record` (the row itself), and
        every input field that is not ours.
    trainer_state: The state of the training loop, such as `global_step`; None outside training.
    log_extra: Call `log_extra(name, values)` to write one value per answer beside the samples.
    log_metric: Call `log_metric(name, value)` to log a number.

Returns:
    One number per answer, in order. None or NaN means "no score": the answer is left out of training and counted. The
    function may be async.

An exception ends the run: it says nothing about any answer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from datagen.errors import InputError
from datagen.llm.spec import SECRET, without_proxy
from datagen.records.record import Messages, Record, Text
from datagen_train.errors import TrainingStopped, first_line

RewardFunction = Callable[..., Any]
"""A function of TRL's protocol; it returns scores, or an awaitable of them."""
Score = float | None
TRIES = 3
"""Tries of a request to a service."""
TIMEOUT = 60.0
"""Seconds to wait for its reply."""


def completion_text(completion: str | Messages) -> str:
    """Return the text of a completion in either form."""
    return completion if isinstance(completion, str) else completion[-1]["content"]


@dataclass(frozen=True)
class Verifier:
    """A verifier of answers as a reward: 1 for right, 0 for wrong, no score where it does not know."""

    verify: Callable[[Record, str], bool | None]

    def __call__(
        self, prompts: Sequence[Text], completions: Sequence[Any], record: Sequence[Record], **_: Any
    ) -> list[Score]:
        return [self.score(row, completion_text(answer)) for row, answer in zip(record, completions, strict=True)]

    def score(self, row: Record, answer: str) -> Score:
        """Score one answer; None also where what the row demands cannot be read."""
        try:
            verdict = self.verify(row, answer)
        except InputError:
            return None
        return None if verdict is None else float(verdict)


@dataclass(frozen=True)
class Service:
    """The user's HTTP service: POST {"prompts": [...], "responses": [...]} returns {"rewards": [number or null, ...]}.

    Connection faults, HTTP 429 and 5xx are retried; any other refusal ends the run, and so does a redirect: prompts and
    answers go to the named host only. No key is sent.

    Raises:
        InputError: The URL may hold a secret, which would stand in the report.
    """

    url: str

    def __post_init__(self) -> None:
        if SECRET.search(self.url):
            raise InputError(
                f"--reward {SECRET.sub('//...', self.url)}: its URL must not hold a user, a password or a query, since "
                "the report shows it; a function of yours (--reward FILE.py:NAME) can ask a service that needs a key"
            )

    def __call__(self, prompts: Sequence[Text], completions: Sequence[Any], **_: Any) -> list[Score]:
        import httpx2

        body = {"prompts": list(prompts), "responses": [completion_text(completion) for completion in completions]}
        reason = ""
        for _try in range(TRIES):
            try:
                with httpx2.Client(timeout=TIMEOUT, mounts=without_proxy(self.url)) as client:
                    reply = client.post(self.url, json=body)
            except httpx2.TransportError as error:
                reason = first_line(error)
                continue
            if reply.status_code >= 500 or reply.status_code == 429:
                reason = f"HTTP {reply.status_code}"
                continue
            if reply.status_code != 200:
                raise TrainingStopped(f"reward {self.url}: HTTP {reply.status_code}: {reply.text[:200]!r}")
            try:
                return list(reply.json()["rewards"])
            except (ValueError, KeyError, TypeError):
                raise TrainingStopped(f'reward {self.url}: no JSON with "rewards": {reply.text[:200]!r}') from None
        raise TrainingStopped(f"reward {self.url}: {reason}, {TRIES} times")
