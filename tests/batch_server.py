"""A server that also speaks the Files and Batches API of OpenAI, with faults, and that can kill its client at any step.

The answers in a batch are those of the same requests one by one. `lines` counts how often each call was in a batch that
was run: more than once in batches that answered it means that it was paid for twice.
"""

import asyncio
import json
import os
import re
import signal
from collections import Counter
from dataclasses import dataclass, field
from email import message_from_bytes
from random import Random
from typing import Any

from tests.server import ERROR, LogEntry, Server, completion, embeddings, http, request_key

Row = dict[str, Any]
STEPS = (
    "before upload",
    "after upload",
    "before create",
    "after create",
    "late create",
    "look",
    "list",
    "download",
    "read",
)
"""Moments at which the client can be killed. `late create`: the batch is created after its client is dead,
and after the next run has looked for it once or twice."""
PAGE = 2
"""Batches in one page of the list."""


@dataclass(frozen=True)
class Plan:
    """What becomes of a batch."""

    looks: int = 0  # that find it in progress
    end: str = "completed"
    answered: float = 1.0  # the share of the requests that are
    errors: float = 0.0  # the share of the requests that end as `error_status`
    error_status: int = 500
    error: bytes = ERROR
    odd: bool = False  # lines are there twice, contradict each other, name unknown requests, or are no results
    words: str = ""  # of a failure
    create_status: int = 200  # of the response to its creation, which works all the same


@dataclass(eq=False, repr=False)
class BatchServer(Server):
    """Files and batches."""

    plans: list[Plan] = field(default_factory=list)  # of the next batches; then all goes well
    can_delete: bool = True
    can_cancel: bool = True
    files: dict[str, bytes] = field(default_factory=dict, init=False)
    batches: dict[str, Row] = field(default_factory=dict, init=False)
    lines: Counter[str] = field(default_factory=Counter, init=False)  # calls in batches that answered them
    submissions: Counter[str] = field(default_factory=Counter, init=False)  # pages asked for, without names
    client: int = 0  # the process to be killed
    kill_at: str = ""  # one of STEPS
    kills: int = 0
    late: tuple[int, Row] | None = None  # a batch to be created after so many times that the batches were listed

    def page(self, page: str, headers: dict[str, str], body: bytes) -> bytes:
        path, _, query = page.partition("?")
        self.submissions[re.sub(r"(file|batch)-\d+", "X", path)] += 1
        match path.split("/")[2:]:
            case ["files"]:
                return self.upload(headers, body)
            case ["files", name] if path.startswith("DELETE"):
                if not self.can_delete:
                    return http(405, ERROR)
                return json_reply({"deleted": True}) if self.files.pop(name, None) is not None else http(404, ERROR)
            case ["files", name, "content"]:
                self.kill("download")
                if self.kill_at == "read":
                    asyncio.get_running_loop().call_later(Random(self.kills).uniform(0.0, 0.06), self.kill, "read")
                return http(200, self.files[name]) if name in self.files else http(404, ERROR)
            case ["batches"] if path.startswith("POST"):
                return self.create(json.loads(body))
            case ["batches"]:
                self.kill("list")
                return self.listing(query)
            case ["batches", name]:
                self.kill("look")
                return json_reply(self.look(self.batches[name])) if name in self.batches else http(404, ERROR)
            case ["batches", name, "cancel"]:
                return self.cancel(name)
        return http(404, ERROR)

    def kill(self, step: str) -> bool:
        """Kill the client if this is the step for it."""
        if step != self.kill_at or not self.client:
            return False
        os.kill(self.client, signal.SIGKILL)
        self.client, self.kill_at, self.kills = 0, "", self.kills + 1
        return True

    def upload(self, headers: dict[str, str], body: bytes) -> bytes:
        if self.kill("before upload"):
            return b""
        parts = message_from_bytes(f"Content-Type: {headers['content-type']}\r\n\r\n".encode() + body)
        (content,) = (bytes(part.get_payload(decode=True)) for part in parts.walk() if part.get_filename())
        name = f"file-{len(self.files) + self.submissions['POST /v1/files']}"
        self.files[name] = content
        self.kill("after upload")
        return json_reply({"id": name, "object": "file", "bytes": len(content), "purpose": "batch"})

    def create(self, request: Row) -> bytes:
        if self.kill("before create"):
            return b""
        if self.kill("late create"):
            self.late = (1 + self.kills % 2, request)
            return b""
        batch = self.add(request)
        if batch is None:
            return http(400, b'{"error": {"message": "no such file"}}')
        self.kill("after create")
        return (
            json_reply(public(batch))
            if batch["plan"].create_status == 200
            else http(batch["plan"].create_status, ERROR)
        )

    def add(self, request: Row) -> Row | None:
        """Create a batch from a file, if it is there."""
        if request["input_file_id"] not in self.files:
            return None
        name = f"batch-{len(self.batches) + 1}"
        plan = self.plans.pop(0) if self.plans else Plan()
        rows = [json.loads(line) for line in self.files[request["input_file_id"]].splitlines()]
        self.batches[name] = {**request, "id": name, "object": "batch", "status": "in_progress", "created_at": 0,
                              "plan": plan, "rows": rows, "looks": 0}  # fmt: skip
        return self.batches[name]

    def listing(self, query: str) -> bytes:
        if self.late and "after=" not in query:
            lists, request = self.late
            self.late = (lists - 1, request) if lists > 1 else None
            if self.late is None:
                asyncio.get_running_loop().call_soon(self.add, request)
        names = list(self.batches)
        after = re.search(r"after=([\w-]+)", query)
        start = names.index(after[1]) + 1 if after else 0
        shown = [public(self.batches[name]) for name in names[start : start + PAGE]]
        more = start + PAGE < len(names)
        return json_reply({"object": "list", "data": shown, "has_more": more})

    def look(self, batch: Row) -> Row:
        if batch["status"] in ("in_progress", "cancelling"):
            if batch["looks"] >= batch["plan"].looks or batch["status"] == "cancelling":
                self.finish(batch)
            batch["looks"] += 1
        return public(batch)

    def cancel(self, name: str) -> bytes:
        if not self.can_cancel:
            return http(404, ERROR)
        self.batches[name]["status"] = "cancelling"
        return json_reply(public(self.batches[name]))

    def finish(self, batch: Row) -> None:
        """Run a batch, as far as its plan says, and write its files."""
        plan, dice = batch["plan"], Random(batch["id"])
        is_cancelled = batch["status"] == "cancelling"
        batch["status"] = "cancelled" if is_cancelled else plan.end
        if plan.words:
            batch["errors"] = {"object": "list", "data": [{"message": plan.words, "code": "x"}]}
            return
        good, bad = list[Row](), list[Row]()
        for row in dice.sample(batch["rows"], len(batch["rows"])):
            if dice.random() >= plan.answered:
                if plan.end == "expired":
                    error = {"code": "batch_expired", "message": "This request was not made in time."}
                    bad.append({"custom_id": row["custom_id"], "response": None, "error": error})
            elif dice.random() < plan.errors:
                bad.append(result(row, plan.error_status, json.loads(plan.error)))
            else:
                status, body = self.run(row)
                (good if status == 200 else bad).append(result(row, status, body))
        lines = [json.dumps(row, ensure_ascii=False) for row in good]
        if plan.odd:
            lines += odd_lines(good, dice)
        for key, content in (("output_file_id", lines), ("error_file_id", [json.dumps(row) for row in bad])):
            if content:
                batch[key] = f"{batch['id']}-{key}"
                self.files[batch[key]] = "\n".join(content).encode(errors="surrogatepass")

    def run(self, row: Row) -> tuple[int, Row]:
        """Answer one request, as it would be answered alone."""
        request, place = row["body"], json.loads(row["headers"]["x-datagen"])
        if refused := self.refuse(request):
            return refused
        messages = request.get("messages") or [{"content": request["input"]}]
        key = request_key(request["model"], messages, place["sample"])
        entry = LogEntry(key, place["key"], place["sample"], place["attempt"], place["task"], 0.0, "ok", delivered=True)
        self.log.append(entry)
        self.lines[row["custom_id"]] += 1
        if "input" in request:
            return 200, json.loads(embeddings(request, self.embed(request["model"], request["input"])))
        answer = self.answer(request["model"], request["messages"], entry.sample, entry.task)
        message = answer if isinstance(answer, dict) else {"content": answer}
        return 200, json.loads(completion(request, key, message, "stop"))


def result(row: Row, status: int, body: Any) -> Row:
    """Return a line of results."""
    response = {"status_code": status, "request_id": "r", "body": body}
    return {"id": "x", "custom_id": row["custom_id"], "response": response, "error": None}


def odd_lines(good: list[Row], dice: Random) -> list[str]:
    """Return lines that must change nothing: they come behind the right ones."""
    first = json.loads(json.dumps(good[0]))
    first["response"]["body"]["choices"][0]["message"]["content"] = "another answer"
    wrong = [{**good[-1], "custom_id": name} for name in ("ff" * 32 + ":1", "", 7, None, "x" * 10_000)]
    responses: list[Any] = [[], "text", {"status_code": "200", "body": {}}, {}]
    shapeless = [{**good[-1], "response": response} for response in responses]
    return [
        json.dumps(dice.choice(good)),
        json.dumps(first),
        *map(json.dumps, wrong),
        *map(json.dumps, shapeless),
        "", "no JSON", "[1, 2]", "\ud800", '{"custom_id": ', "[" * 100_000,
    ]  # fmt: skip


def json_reply(value: Any) -> bytes:
    return http(200, json.dumps(value).encode())


def public(batch: Row) -> Row:
    """Return what a client sees of a batch."""
    names = "id object status created_at endpoint input_file_id metadata output_file_id error_file_id errors"
    shown = {name: batch[name] for name in names.split() if name in batch}
    return {**shown, "request_counts": {"total": len(batch["rows"]), "completed": 0, "failed": 0}}
