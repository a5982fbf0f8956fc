"""The layer that collects the calls of a model for batches, and answers them from the batches that have ended.

It stands between the journal and what sends calls one by one. A run is a replay: what is recorded does not come here.
A call that a batch has answered is answered, as its endpoint reads a response, and so it is recorded like any other.
One that is in an open batch, or that a batch is to have, is `Queued`: its record ends for this run. At the end of the
run, `submit` sends what was collected; `fetch`, at the beginning of the next one, what has been answered.

The first call of a run that can count on no answer is sent at once: it finds out whether the key, the name and the
parameters are taken, before a day is spent on a batch that is refused.
"""

import asyncio
import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from tempfile import TemporaryFile
from time import time
from typing import BinaryIO, cast

from datagen.errors import CallFailed, Outage, Queued, Stopped
from datagen.llm.batches.client import BatchClient, Status
from datagen.llm.batches.comparison import comparison
from datagen.llm.batches.lines import (
    MOST_REQUESTS,
    Oddities,
    RequestLine,
    files_of,
    is_text,
    read_results,
    request_line,
)
from datagen.llm.batches.options import BatchOptions
from datagen.llm.batches.store import BatchStore, OpenBatch
from datagen.llm.budget import Cap, Stop
from datagen.llm.call import Adapted, Call, Doubtful, Layer, Reply, Transient
from datagen.llm.claims import Name
from datagen.llm.endpoint import Endpoint, Received
from datagen.llm.purse import Purse
from datagen.records.record import canonical
from datagen.text import count_of

MOST_ROUNDS = 3
"""Batches that a call is in without an answer before it has failed."""
SETTLE = 60.0
"""Seconds after which a batch that the server does not list was never created, where its file cannot be deleted."""
FIRST_POLL, LONGEST_POLL, POLL_GROWTH = 1.0, 60.0, 1.5
"""Seconds between two looks at a batch that is waited for."""
CANCEL_PATIENCE = 900.0
"""Seconds that a cancelled batch is waited for: "up to 10 minutes", https://platform.openai.com/docs/guides/batch."""


@dataclass(frozen=True, slots=True)
class Ways:
    """What a model's calls are sent by.

    Args:
        endpoint: It knows the form of requests, and reads responses.
        below: Sends a call at once.
        client: The provider's batches.
        store: What the journal knows of them.
    """

    endpoint: Endpoint
    below: Layer
    client: BatchClient
    store: BatchStore


class Batches:
    """The batches of one model at its address.

    Args:
        model: Its identity.
        ways: How its calls are sent.
        purse: Holds what the calls of batches may cost.
        cap: Counts answers that cannot be read.
        stop: The switch of the run.
        options: What the user wants.
    """

    def __init__(self, model: str, ways: Ways, purse: Purse, cap: Cap, stop: Stop, options: BatchOptions) -> None:
        self._model, self._endpoint, self._below = model, ways.endpoint, ways.below
        self._client, self._store = ways.client, ways.store
        self._purse, self._cap, self._stop = purse, cap, stop
        self._is_on, self._wait = options.is_on, options.wait
        self._collected: list[Call] = []
        self._open: dict[str, OpenBatch] = {}
        self._cancelled: dict[str, float] = {}
        self._late: set[Name] = set()
        """Calls that no batch is to have: they are sent at once."""
        self._trial: asyncio.Event | None = None
        """Set when the first call that was sent at once has ended."""
        self.states: dict[str, str] = {}
        """What is to be said of each batch that is open, by its name."""
        self.notes: dict[str, None] = {}

    # Calls

    async def send(self, call: Call) -> Reply:
        name = call.key, call.attempt
        place = self._store.place(name)

        # 1. An answer that a batch has brought; one that is no answer is as good as none.
        if place is not None and (reply := await self._answer(call, place.sent)) is not None:
            return reply

        # 2. A call that an open batch has.
        if place is not None and place.batch in self._open:
            await self._purse.queue(call)
            raise Queued

        # 3. One that is sent at once: a straggler, what no file can hold, and the first one.
        if not self._is_on or self._wait == 0 or name in self._late or not is_encodable(call):
            return await self._below.send(call)
        if self._trial is None and not self._open:
            return await self._try(call)

        # 4. One for the next batch.
        if place is not None and place.rounds >= MOST_ROUNDS:
            detail = f"{place.rounds} batches without an answer"
            raise CallFailed("no answer", stage=call.task, detail=detail)
        await self._purse.queue(call)
        self._collected.append(call)
        if len(self._collected) >= MOST_REQUESTS:
            await self.submit()
        raise Queued

    async def _try(self, call: Call) -> Reply:
        self._trial = asyncio.Event()
        try:
            return await self._below.send(call)
        finally:
            self._trial.set()

    def _end_trial(self) -> None:
        """Note that the server takes the calls: no first one is to be tried."""
        self._trial = asyncio.Event()
        self._trial.set()

    async def _answer(self, call: Call, sent: Mapping[str, object] | None) -> Reply | None:
        """Read the answer to a call that a batch has brought, as one to a request; None if there is none."""
        name = call.key, call.attempt
        answer = self._store.answer(name)
        if answer is None:
            return None
        status, body = answer
        try:
            reply = self._endpoint.read(Received(status, {}, body, ()), call, call.params if sent is None else sent)
        except Adapted:
            self._store.drop(name, is_new=True)
            return None
        except Transient as fault:
            self._store.drop(name, is_new=False)
            if fault.is_paid:
                self._cap.count_unanswered()
                await self._purse.pay_batched(call, None)
            return None
        except Doubtful as doubt:
            reply = doubt.reply  # the first call was taken, so it is this request that is refused
        except Outage as error:
            self._store.drop(name, is_new=True)
            self._stop.now("outage", error)
            raise
        reply = replace(reply, is_batched=True)
        await self._purse.pay_batched(call, reply)
        return reply

    # The end of a run

    async def submit(self) -> None:
        """Submit what was collected, in as many files as it takes. Raises Outage where a batch is not taken."""
        calls, self._collected = self._collected, []
        if not calls:
            return
        if self._trial is not None:
            await self._trial.wait()
        if self._stop.reason in ("outage", "interrupted", "error"):
            raise Stopped
        for part in files_of(map(self._line, calls)):
            await self._submit(part)
        self.notes.setdefault(comparison(self._model, calls, self._purse.tag(calls[0]).look_up()))

    def _line(self, call: Call) -> RequestLine:
        params = self._endpoint.adapted(call)
        name, body = (call.key, call.attempt), self._endpoint.body(call, params)
        line = request_line(name, f"/v1/{self._endpoint.path}", body, self._endpoint.description(call))
        sent = None if params == call.params else dict(params)
        return RequestLine(name, line, canonical(call.content).decode(), sent)

    async def _submit(self, part: list[RequestLine]) -> None:
        """Submit one file. What happens is recorded before and after each step."""
        batch = self._store.begin({line.name: line.sent for line in part})
        try:
            names = self._store.names(batch.token)
            with TemporaryFile() as file:
                for line in part:
                    file.write(line.line if line.name in names else b"")
                file.seek(0)
                uploaded = await self._client.upload(batch.token, file) if names else ""
            if not names or not self._store.set_file(batch.token, uploaded):
                self._store.forget(batch.token)  # another run has these calls
                return
            batch = replace(batch, file=uploaded)
            identity = await self._client.create(self._endpoint.path, uploaded, batch.token)
        except Outage:
            self._store.forget(batch.token)
            raise
        if identity is None and (batch := await self._identified(batch)).id == "":
            raise Outage(f"{self._model}: the server has not taken a batch. Run the same command again to continue.")
        self._store.set_id(batch.token, identity or batch.id)
        self._open[batch.token] = batch
        self.states[identity or batch.id] = f"{count_of(len(names), 'request')}, submitted now"

    # The beginning of a run

    async def fetch(self) -> None:
        """Read what the open batches have answered; with a time to wait, until they have ended.

        Raises:
            Outage: The server cannot be asked, or has refused a whole batch.
            Stopped: The run ends.
        """
        if not self._is_on:
            if count := sum(batch.calls for batch in self._store.open()):
                what = f"{count_of(count, 'request')} to {self._model} are in open batches: --batch reads their answers"
                self.notes[f"{what}; without it, what is needed of them is sent, and paid for, again"] = None
            return
        pause = FIRST_POLL
        while True:
            for batch in self._store.open():
                await self._fetch(batch)
            self._open = {batch.token: batch for batch in self._store.open()}
            if not self._open or self._wait is None:
                break
            await self._stop.sleep(pause)
            pause = min(pause * POLL_GROWTH, LONGEST_POLL)
        if self._store.has_answers():
            self._end_trial()

    async def _fetch(self, batch: OpenBatch) -> None:
        """Read the answers of a batch if it has ended, and cancel it if it is late."""
        batch = await self._identified(batch)
        if not batch.id:
            return
        status = await self._client.look(batch.id)
        if not status.is_over and self._wait is not None and time() >= batch.began + self._wait:
            since = self._cancelled.setdefault(batch.token, time())
            is_given_up = time() - since > CANCEL_PATIENCE
            if is_given_up or (status.state != "cancelling" and not await self._client.cancel(batch.id)):
                names = count_of(batch.calls, "request")
                self.notes[f"{batch.id} could not be cancelled: up to {names} may be paid for twice"] = None
                await self._conclude(batch, status)
                return
        if status.is_over:
            await self._conclude(batch, status)
        else:
            self.states[batch.id] = f"{count_of(batch.calls, 'request')}, {status.state}, {status.done:,} done"

    async def _identified(self, batch: OpenBatch) -> OpenBatch:
        """Return a batch with its name; without one it does not exist, and its calls are free again, or it is too early
        to know that."""
        if batch.id:
            return batch
        if batch.file:
            identity = await self._client.find(batch.token, batch.file)
            if identity is None:  # it may still come: from a file that is deleted it cannot
                is_deleted = await self._client.delete(batch.file)
                identity = await self._client.find(batch.token, batch.file)
                if identity is None and not is_deleted and time() < batch.began + SETTLE:
                    self.states[f"(file {batch.file})"] = (
                        f"{count_of(batch.calls, 'request')}, not known yet whether a batch was created"
                    )
                    return batch
            if identity is not None:
                self._store.set_id(batch.token, identity)
                return replace(batch, id=identity)
        self._store.forget(batch.token)
        return batch

    async def _conclude(self, batch: OpenBatch, status: Status) -> None:
        """Record the answers of a batch, and that it has ended."""
        names, oddities = self._store.names(batch.token), Oddities()
        with ExitStack() as stack:
            files: list[BinaryIO] = []
            for name in status.files:
                files.append(cast(BinaryIO, stack.enter_context(TemporaryFile())))
                await self._client.download(name, files[-1])
            results = read_results(files, names, oddities)
        answers = {name: result for name, result in results.items() if result.status}
        self.states.pop(batch.id, None)
        if words := oddities.words():
            self.notes[f"{batch.id}: odd lines in its results, which were left out: {words}"] = None
        if status.state == "failed" and not answers:
            self._store.forget(batch.token)
            words = f": {status.words.rstrip('.')}" if status.words else ""
            raise Outage(f"{self._model}: batch {batch.id} failed{words}. The same command submits its requests again")
        self._end_trial()
        rows = ((name, result.status, result.body) for name, result in answers.items())
        self._store.conclude(batch.token, rows)
        if missing := len(names) - len(answers):
            why = next((f" ({result.words})" for result in results.values() if result.words), "")
            number = f"{missing:,} of {count_of(len(names), 'request')}"
            self.notes[f"{batch.id} {status.state}: {number} not answered{why}"] = None
        if batch.token in self._cancelled:
            self._late |= names - answers.keys()

    @property
    def waiting(self) -> int:
        """Requests in open batches."""
        return sum(batch.calls for batch in self._open.values())

    def close(self, *, ended: bool) -> None:
        """Remove what is not needed any more."""
        self._store.clean(ended=ended)


def is_encodable(call: Call) -> bool:
    """Check that a request can be written: a prompt may hold half a character (a lone surrogate)."""
    return is_text(json.dumps([call.content, dict(call.params)], ensure_ascii=False))
