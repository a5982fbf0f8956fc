"""`datagen review`: a real server in its own process, friendly and hostile clients, and a real browser."""

import asyncio
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.errors import InputError
from datagen.judges.review.summary import summarize
from datagen.judges.review.votes import Log, Vote, parse_vote, placement, read_votes
from datagen.records.record import Record

ROOT = Path(__file__).resolve().parents[2]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
HOSTILE = (
    "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script> [[A]]",
    "\x1b[31mred\x1b]0;taken\x07 \u202egnp.exe\u202c \u200b\r\n\u2028 end",
    "x" * 1_000_000,
)


def write(rows: list[dict[str, Any]], name: str = "s.jsonl") -> Path:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Path(name)


def samples(number: int, answers: int = 3) -> list[dict[str, Any]]:
    ranks = list(range(1, answers + 1))
    return [
        {"prompt": f"Question {i}?", "responses": [f"answer {i}.{k}" for k in ranks], "ranks": ranks}
        for i in range(number)
    ]


class Served:
    """A server in its own process, and a client that holds its cookie."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "datagen", "review", "s.jsonl", "--by", "kim", *arguments]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        assert self.process.stderr
        self.before = ""
        while not (match := re.search(r"http://127\.0\.0\.1:(\d+)/\?token=(\S+)", self.before)):
            line = self.process.stderr.readline()
            assert line, self.before
            self.before += line
        self.link, self.port, self.token = match[0], int(match[1]), match[2]
        self.cookie = f"review-{self.port}={self.token}"

    def ask(self, path: str, payload: Any = None, **headers: str) -> tuple[int, bytes, dict[str, str]]:
        all_headers = {"Cookie": self.cookie, "Content-Type": "application/json"}
        all_headers |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET" if payload is None else "POST", path, payload and json.dumps(payload), all_headers)
            reply = connection.getresponse()
            return reply.status, reply.read(), dict(reply.getheaders())
        finally:
            connection.close()

    def page(self, path: str = "/page") -> Any:
        return json.loads(self.ask(path)[1])

    def vote(self, page: Any, verdict: str, ranks: list[int] | None = None) -> Any:
        status, body, _ = self.ask("/vote", {"id": page["id"], "verdict": verdict, "ranks": ranks})
        assert status == 200, body
        return json.loads(body)

    def stop(self, how: signal.Signals = signal.SIGINT) -> str:
        self.process.send_signal(how)
        return self.process.communicate(timeout=300)[1] or ""


@pytest.fixture
def serve() -> Iterator[Any]:
    started: list[Served] = []

    def start(*arguments: str) -> Served:
        started.append(Served(*arguments))
        return started[-1]

    yield start
    for served in started:
        if served.process.poll() is None:
            served.process.kill()
        served.process.communicate()


def votes(path: str = "s.votes.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_only_who_holds_the_link_and_comes_from_our_page_gets_in(serve: Any) -> None:
    write(samples(2))
    served = serve()
    vote = {"id": served.page()["id"], "verdict": "tie", "ranks": None}
    assert served.ask(f"/?token={served.token}", Cookie="")[0] == 303
    assert served.ask("/?token=guess", Cookie="")[0] == 403
    assert served.ask("/?token=%ff", Cookie="")[0] == 403
    for path in ("/", "/page", "/review.js"):
        assert served.ask(path, Cookie="")[0] == 403
        assert served.ask(path, Cookie=f"review-{served.port}=guess")[0] == 403
        assert served.ask(path, Host="evil.example")[0] == 421
        assert served.ask(path, Host=f"evil.example:{served.port}")[0] == 421
    assert served.ask("/vote", vote, Cookie="")[0] == 403
    assert served.ask("/vote", vote, Host=f"evil.example:{served.port}")[0] == 421
    assert served.ask("/vote", vote, Origin="http://localhost:1")[0] == 403
    assert served.ask("/vote", vote, Origin="null")[0] == 403
    assert served.ask("/vote", vote, Content_Type="text/plain")[0] == 404
    assert served.ask("/../review.py")[0] == 404
    assert votes() == []
    assert served.ask("/vote", vote, Origin=f"http://127.0.0.1:{served.port}")[0] == 200
    assert len(votes()) == 1


def test_the_page_may_load_nothing_but_its_own_files(serve: Any) -> None:
    write(samples(1))
    _, body, headers = serve().ask("/")
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert headers["X-Content-Type-Options"] == "nosniff"
    pages = [path.read_text() for path in (ROOT / "datagen/judges/review/pages").iterdir()]
    assert body.decode() in pages
    assert not any(re.search(r"https?://|innerHTML|eval\(| on\w+=", text) for text in pages)


def test_a_vote_is_logged_in_the_order_of_the_row(serve: Any) -> None:
    write(samples(3))
    served = serve()
    page = served.page()
    best = next(at for at, text in enumerate(page["answers"]) if text.endswith(".3"))
    page = served.vote(page, "order", [1 if at == best else 3 for at in range(3)])
    assert served.page("/page?at=0")["ranks"] == [1 if at == best else 2 for at in range(3)]
    page = served.vote(page, "all_bad")
    served.vote(page, "order", [2, 2, 2])
    first, second, third = votes()
    assert (first["ranks"], first["verdict"], first["by"]) == ([2, 2, 1], "order", "kim")
    assert first["responses"] == ["answer 0.1", "answer 0.2", "answer 0.3"]
    assert list(first) == ["prompt_id", "prompt", "responses", "ranks", "verdict", "by", "at"]
    assert (second["verdict"], second["ranks"]) == ("all_bad", None)
    assert (third["verdict"], third["ranks"]) == ("tie", None), "an order of equals is a tie"
    assert len(read_votes(Path("s.votes.jsonl"))) == 3, "judge --by human reads the log"
    assert "33.3%" not in (summary := served.stop()) and "agreement" in summary and "all bad" in summary
    assert served.process.returncode == 0


@pytest.mark.parametrize(
    "ranks", [None, [1], [1, 2, 2, 1], [0, 1, 2], [1, 2, 9], [1, 2, True], [1, 2, 2.0], "123", {"a": 1}], ids=str
)
def test_a_vote_that_ranks_something_else_is_refused(ranks: Any) -> None:
    with pytest.raises(ValueError, match="ranks: expected"):
        parse_vote([2, 0, 1], "order", ranks)


def test_bad_requests_are_refused_and_the_server_goes_on(serve: Any) -> None:
    write(samples(1))
    served = serve()
    for payload in ({"id": "nobody", "verdict": "tie"}, [1], "x", {"id": served.page()["id"], "verdict": "best"}):
        assert served.ask("/vote", payload)[0] == 400
    assert served.ask("/vote", {"id": "x" * 100_000})[0] == 413
    assert served.page()["voted"] == 0 and votes() == []


def test_killed_again_and_again_nothing_is_lost_or_doubled(serve: Any) -> None:
    write(samples(40, answers=2))
    chance, last_votes, torn = Random(7), dict[str, str](), [False]
    log = Path("s.votes.jsonl")
    for _ in range(10):
        served = serve()
        assert ("incomplete vote" in served.before) == torn[-1]
        page = served.page()
        assert page["voted"] == len(last_votes)
        for _ in range(chance.randint(1, 3)):
            verdict = chance.choice(["tie", "skip", "all_bad"])
            name, page = page["id"], served.vote(page, verdict)
            last_votes[name] = verdict
            served.vote({"id": name}, verdict)  # sent again by a client that heard no answer
        served.stop(signal.SIGKILL)
        torn.append(chance.random() < 0.6)
        if torn[-1]:  # the kill came in the middle of a line
            line = log.read_bytes().splitlines()[-1]
            with log.open("ab") as file:
                file.write(line[: chance.randrange(1, len(line))])
    serve()
    assert sum(torn) > 2 and log.read_bytes().endswith(b"\n")
    assert {vote["prompt_id"]: vote["verdict"] for vote in votes()} == last_votes
    assert len(votes()) == len(last_votes)


def test_the_last_vote_of_a_reviewer_counts_and_others_votes_stay(serve: Any) -> None:
    write(samples(1, answers=2))
    served = serve()
    page = served.page()
    served.vote(page, "order", [1, 2])
    served.vote(page, "order", [2, 1])
    served.stop()
    with Path("s.votes.jsonl").open("a") as file:
        file.write(json.dumps(votes()[-1] | {"by": "ada", "verdict": "skip", "ranks": None}) + "\n")
    again = serve().page("/page?at=0")
    assert again["ranks"] == [2, 1] and again["answers"] == page["answers"], "a resume shows the same"
    assert len(votes()) == 3


def record(answers: int = 3, **fields: Any) -> Record:
    return Record("r1", "p", responses=tuple("abcdefgh"[:answers]), **fields)


def test_a_file_that_is_no_log_is_left_alone() -> None:
    path = Path("notes.jsonl")
    for text in ("my notes", '{"prompt": "x"}\n', '{"prompt_id": 1}\n{"prom'):
        path.write_text(text)
        with pytest.raises(InputError, match="vote"):
            Log(path, "kim", [record()])
        assert path.read_text() in (text, text[: text.rfind("\n") + 1])


def test_two_reviews_do_not_write_to_one_log_at_once() -> None:
    first = Log(Path("v.jsonl"), "kim", [record()])
    with pytest.raises(InputError, match="another 'datagen review' writes to it"):
        Log(first.path, "ada", [record()])
    first.close()


def test_a_log_of_other_answers_is_refused() -> None:
    log = Log(Path("v.jsonl"), "kim", [record()])
    log.append(record(), Vote("order", (1, 2, 3)))
    log.close()
    with pytest.raises(InputError, match="votes on other answers"):
        Log(log.path, "kim", [record(4)])


@given(st.lists(st.integers(1, 6), min_size=6, max_size=6), st.text())
def test_ranks_find_their_answers_whatever_the_placement(true: list[int], by: str) -> None:
    row = record(6)
    places = placement(row, by)
    assert sorted(places) == list(range(6)) and places == placement(row, by)
    vote = parse_vote(places, "order", [true[place] for place in places])
    order = sorted(set(true))
    dense = tuple(order.index(rank) + 1 for rank in true)
    assert vote == (Vote("order", dense) if len(order) > 1 else Vote("tie", None))


def test_placements_favour_no_answer() -> None:
    firsts = [placement(Record(f"r{i}", "p", responses=("a", "b")), "kim")[0] for i in range(1000)]
    assert 440 < sum(firsts) < 560
    others = [placement(Record(f"r{i}", "p", responses=("a", "b")), "ada")[0] for i in range(1000)]
    assert 440 < sum(one != other for one, other in zip(firsts, others, strict=True)) < 560


def test_agreement_with_the_judge_is_what_a_hand_counts() -> None:
    rows = [Record(f"r{i}", "p", responses=("a", "b"), ranks=(1, 2)) for i in range(5)]
    votes = {f"r{i}": Vote("order", (1, 2)) for i in range(3)} | {"r3": Vote("order", (2, 1)), "r4": Vote("tie", None)}
    summary = summarize(rows, votes)
    assert (summary.pairs, summary.agreement, summary.agreement_decided) == (5, 0.6, 0.75)
    # Judge: half better, half worse. Person: 0.4, 0.4 and 0.2 ties. By chance 0.4, so (0.6 - 0.4) / 0.6.
    assert summary.kappa == pytest.approx(1 / 3)
    nothing = summarize(rows, {"r0": Vote("all_bad", None), "r1": Vote("skip", None)})
    assert (nothing.votes, nothing.pairs, nothing.agreement, nothing.kappa) == (1, 0, None, None)


def test_preferences_are_shown_blind_and_bad_lines_are_named(serve: Any) -> None:
    pairs = [{"prompt": f"p{i}", "chosen": "good", "rejected": "bad"} for i in range(20)]
    path = write(pairs)
    path.write_text(path.read_text() + "not json\n")
    served = serve()
    assert "s.jsonl:21: not JSON" in served.before and "1 line cannot be used" in served.before
    firsts = [served.page(f"/page?at={at}")["answers"][0] for at in range(20)]
    assert {"good", "bad"} == set(firsts)
    assert set(served.page()) == {"at", "rows", "voted", "by", "id", "prompt", "answers", "verdict", "ranks"}


class Browser:
    """Headless Chromium over its DevTools protocol."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._number = socket, 0

    async def call(self, method: str, **params: Any) -> Any:
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        while (reply := await self._socket.receive_json(timeout=30)).get("id") != self._number:
            pass
        return reply.get("result", {})  # none where the page was left in the middle

    async def value(self, script: str) -> Any:
        reply = await self.call("Runtime.evaluate", expression=script, returnByValue=True)
        return reply.get("result", {}).get("value")

    async def until(self, script: str) -> None:
        for _ in range(300):
            if await self.value(script):
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"never true: {script}; the page: {await self.value('document.body.innerText')!s:.500}")

    async def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, key=key)


async def with_browser(link: str, act: Any) -> None:
    import aiohttp

    assert BROWSER
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-port=0")
    command = [BROWSER, *flags, "--user-data-dir=profile", link]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    try:
        for _ in range(400):
            await asyncio.sleep(0.05)
            if (port := Path("profile/DevToolsActivePort")).exists() and port.read_text().count("\n"):
                break
        async with aiohttp.ClientSession() as session:
            address = f"http://127.0.0.1:{port.read_text().splitlines()[0]}/json"
            targets = await (await session.get(address)).json()
            target = next(entry for entry in targets if entry["type"] == "page")
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                await act(Browser(socket))
    finally:
        process.kill()
        await process.wait()


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_everything_goes_by_keyboard_and_hostile_answers_stay_text(serve: Any) -> None:
    write([{"prompt": "<b>first</b>", "responses": list(HOSTILE)}, *samples(2, answers=2)])
    served = serve()

    async def act(browser: Browser) -> None:
        await browser.until("document.querySelectorAll('.answer').length === 3")
        assert await browser.value("document.title") == "Review"
        assert await browser.value("document.querySelectorAll('main img, main script, main b').length") == 0
        text = await browser.value("document.querySelector('main').textContent")
        assert HOSTILE[0] in text and "<b>first</b>" in text and "x" * 1_000_000 in text
        assert "\x1b" not in text and "\u202e" not in text and "U+001B" in text and "U+202E" in text
        assert await browser.value("location.search") == "", "the token is out of the history"
        wide = "document.documentElement.scrollWidth <= innerWidth"
        assert await browser.value(wide)
        for key in ("3", "Backspace", "2", "=", "1", "Enter"):
            await browser.press(key)
        await browser.until("document.querySelectorAll('.answer').length === 2")
        await browser.press("b")
        await browser.until("document.querySelector('#count').textContent === '2 of 3'")
        await browser.press("t")
        await browser.until("document.querySelector('.done') !== null")
        await browser.press("ArrowLeft")
        await browser.until("document.querySelector('#said').textContent.startsWith('You said: tie')")
        await browser.press("x")
        await browser.until("document.querySelector('.done') !== null")

    asyncio.run(with_browser(served.link, act))
    cast_votes = votes()
    places = placement(Record(cast_votes[0]["prompt_id"], "", responses=HOSTILE), "kim")
    assert [cast_votes[0]["ranks"][place] for place in places] == [1, 1, 2]
    assert [vote["verdict"] for vote in cast_votes] == ["order", "order", "tie", "all_bad"]
