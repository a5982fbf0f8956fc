"""Encoded rows: a table on the disk that is made once, whole or not at all, and is what encoding in memory gives."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen_train import dpo, sft
from datagen_train.data.encode import IGNORED, Encoded, EncodedPair, Encoder
from datagen_train.data.labels import LabelledExample
from datagen_train.data.layouts import LABELLED_TEXTS, PAIRS, RANKINGS, SEQUENCES, Layout
from datagen_train.data.rankings import Comparison, EncodedRanking
from datagen_train.data.table import PART, EncodedRows, EncodeJob, in_memory
from datagen_train.data.workers import ROWS_OF_PROCESS, encode_parts
from datagen_train.errors import UnusableRow
from datagen_train.models.tiny import make_tiny
from datagen_train.models.tokens import turn_end_ids
from datagen_train.options import DpoOptions
from datagen_train.run.encoding import STORED_ROWS, encode_all
from datagen_train.run.store import KEPT
from tests.train.runs import Notes, train
from tests.train.tasks import problems, write_preferences, write_sft

FEW: dict[str, Any] = {"steps": 2, "max_length": 64, "batch_size": 4, "log_every": 1}


def many_rows(path: str = "rows.jsonl") -> Path:
    write_sft(Path(path), list(islice(cycle(problems(0)), STORED_ROWS + 50)))
    with Path(path).open("a") as file:
        file.write('{"prompt": "Who?"}\n{"prompt": "A", "response": "' + "b c " * 100 + '"}\nno row\n')
    return Path(path)


def tables(folder: str = ".") -> list[Path]:
    return sorted(Path(folder, ".datagen", "encoded").glob("*"))


def job_of(count: int, encode: Callable[[int], list[Encoded]]) -> EncodeJob[int, Encoded]:
    return EncodeJob(range(count), encode, SEQUENCES)


def encode_number(number: int) -> list[Encoded]:
    """No example, one or two, of lengths that depend on the number; 13 is not usable."""
    if number == 13:
        raise UnusableRow("unlucky")
    ids = [number] * (1 + number % 5)
    return [Encoded(ids, [IGNORED, *ids[1:]], number % 7 == 0)] * (number % 3)


def contents(encoded: EncodedRows[Encoded]) -> list[object]:
    examples = [(list(example.ids), list(example.labels), example.cut) for example in encoded.examples]
    return [examples, encoded.sizes.tolist(), encoded.starts, encoded.dropped, encoded.counts]


def stored(count: int = STORED_ROWS, encode: Any = encode_number, notes: Notes | None = None) -> EncodedRows[Encoded]:
    return encode_all(job_of(count, encode), lambda: "key", Path("out"), None, notes or Notes())


def plain(count: int) -> EncodedRows[Encoded]:
    job = job_of(count, encode_number)
    return in_memory(job, encode_parts(job, 1, lambda done, total: None))


numbers = st.integers(0, 2**31 - 1)
ids = st.lists(numbers, min_size=1, max_size=9)


pairs = st.builds(EncodedPair, ids, ids, ids, st.booleans())
texts = st.builds(LabelledExample, ids, numbers, st.booleans())


@st.composite
def sequences(draw: Any) -> Encoded:
    tokens = draw(st.lists(st.tuples(numbers, st.booleans()), min_size=1, max_size=9))
    labels = [token if is_trained else IGNORED for token, is_trained in tokens]
    return Encoded([token for token, _ in tokens], labels, draw(st.booleans()))


@st.composite
def rankings(draw: Any) -> EncodedRanking:
    answers = tuple(np.array(one, dtype=np.int32) for one in draw(st.lists(ids, min_size=2, max_size=4)))
    comparison = st.builds(Comparison, st.integers(0, 1), st.integers(0, 1), st.floats(0, 1), st.floats(0, 1))
    compared = tuple(draw(st.lists(comparison, min_size=1, max_size=4)))
    source, cut = draw(st.text(max_size=5)), draw(st.booleans())
    return EncodedRanking(answers, tuple(map(len, answers)), compared, 1, source, cut)


KINDS: list[tuple[Any, Any]] = [
    (SEQUENCES, sequences()),
    (PAIRS, pairs),
    (RANKINGS, rankings()),
    (LABELLED_TEXTS, texts),
]


@given(st.one_of([st.tuples(st.just(layout), st.lists(kind, max_size=4)) for layout, kind in KINDS]))
def test_a_table_gives_back_what_was_put_in(case: tuple[Layout[Any], list[Any]]) -> None:
    layout, examples = case
    job: EncodeJob[int, Any] = EncodeJob([0], lambda row: examples, layout)
    encoded = in_memory(job, [job.encode_part(0)])
    assert [in_lists(example) for example in encoded.examples] == [in_lists(example) for example in examples]
    assert encoded.sizes.tolist() == [list(map(int, layout.measure(example))) for example in examples]


def in_lists(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, tuple):
        return [in_lists(part) for part in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: in_lists(getattr(value, name)) for name in value.__dataclass_fields__}
    return value


def test_the_second_start_reads_the_table_and_reports_the_same() -> None:
    many_rows()
    reports, notes = list[dict[str, Any]](), list[Notes]()
    starts: dict[str, dict[str, Any]] = {"one": {}, "two": {"learning_rate": 1e-4}, "three": {}}
    for output, options in starts.items():
        notes.append(Notes())
        reports.append(train(sft, "rows.jsonl", None, notes[-1], output=output, **{**FEW, **options}))
    assert len(tables()) == 1
    assert ["read from" in "".join(note.messages) for note in notes] == [False, True, True]
    assert reports[0] == reports[2]
    assert reports[0]["rows"]["dropped"] and reports[0]["rows"]["cut"] == 1
    for name in ("metrics.jsonl", "dropped.jsonl", "trained.bin"):
        assert Path("one/run", name).read_bytes() == Path("three/run", name).read_bytes()


@pytest.mark.parametrize("count", [0, 1, PART, PART + 1, 3 * PART])
def test_processes_give_what_one_gives(count: int) -> None:
    job = job_of(count, encode_number)
    assert contents(in_memory(job, encode_parts(job, 3, lambda done, total: None))) == contents(plain(count))


def test_an_error_in_a_process_is_raised_and_one_that_dies_is_named() -> None:
    def fail(number: int) -> list[Encoded]:
        if number == PART + 3:
            raise ValueError("no such number")
        return encode_number(number)

    def die(number: int) -> list[Encoded]:
        if number == PART + 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return encode_number(number)

    for encode, words in ((fail, "no such number"), (die, "--encode-workers 1")):
        with pytest.raises(Exception, match=words):
            list(encode_parts(job_of(3 * PART, encode), 2, lambda done, total: None))


def damage_nothing(place: Path) -> None: ...


def cut(place: Path) -> None:
    os.truncate(place / "rows.arrow", 1000)


def flip(place: Path) -> None:
    data = bytearray((place / "rows.arrow").read_bytes())
    data[len(data) // 2] ^= 1
    (place / "rows.arrow").write_bytes(data)


def unmark(place: Path) -> None:
    (place / "done.json").unlink()


def scribble(place: Path) -> None:
    (place / "done.json").write_text('{"digest": [')


@pytest.mark.parametrize("damage", [damage_nothing, cut, flip, unmark, scribble])
def test_a_table_that_is_not_whole_is_made_again(damage: Callable[[Path], None]) -> None:
    first, notes, encodings = contents(stored()), Notes(), list[int]()
    damage(tables()[0])

    def encode(number: int) -> list[Encoded]:
        encodings.append(number)
        return encode_number(number)

    assert contents(stored(STORED_ROWS, encode, notes)) == first == contents(plain(STORED_ROWS))
    assert len(encodings) == (0 if damage is damage_nothing else STORED_ROWS)
    assert any("is damaged" in text for text in notes.messages) == (damage in (cut, flip, scribble))


def test_what_changes_the_encoding_makes_another_table() -> None:
    many_rows()
    train(sft, "rows.jsonl", output="out", **FEW)
    changes: list[dict[str, Any]] = [{"max_length": 48}, {"limit": STORED_ROWS}, {"template": "plain"}]
    for number, options in enumerate(changes, 2):
        train(sft, "rows.jsonl", output=f"out{number}", **{**FEW, **options})
        assert len(tables()) == number
    with Path("rows.jsonl").open("a") as file:
        file.write('{"prompt": "Who?", "response": "I."}\n')
    newest = {path: path.stat().st_mtime_ns for path in tables()}
    train(sft, "rows.jsonl", output="out9", **FEW)
    assert len(tables()) == KEPT
    assert min(newest, key=lambda path: newest[path]) not in tables()


def test_losses_of_other_rows_do_not_share_a_table() -> None:
    write_preferences(Path("p.jsonl"), list(islice(cycle(problems(0)), STORED_ROWS)))
    write_sft(Path("s.jsonl"), problems(0)[:40])
    train(sft, "s.jsonl", output="base", **FEW)
    assert not tables(), "few rows leave nothing behind"
    for loss in ("sigmoid", "kto", "hinge"):
        train(dpo, "p.jsonl", DpoOptions(loss=loss), model="base", output=loss, **FEW)
    assert len(tables()) == 2


def test_the_fast_call_gives_the_ids_of_the_library() -> None:
    model, tokenizer = make_tiny("tiny", ["Name a river. The Rhine, of course!"] * 9, 0)
    encoder = Encoder(tokenizer, turn_end_ids(model, tokenizer), 64)
    assert encoder._backend is not None

    @given(st.text(), st.booleans())
    def equal(text: str, after_document: bool) -> None:
        if after_document:
            list(encoder.document(text))
        text = text + "<|im_end|>" + text
        assert encoder.ids(text) == tokenizer(text, add_special_tokens=False)["input_ids"]

    equal()


def test_a_full_disk_is_one_line() -> None:
    script = (
        "import resource\nfrom datagen_train.errors import TrainingStopped\n"
        "from tests.train.test_encoded_rows import *\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "try:\n    stored(3000)\nexcept TrainingStopped as error:\n    print('ONE', error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=in_checkout())
    assert ran.stdout.startswith("ONE the disk is full"), ran.stderr
    assert not list(Path(".datagen").rglob("rows.arrow"))


def in_checkout() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}


def slow_number(number: int) -> list[Encoded]:
    time.sleep(0.002)
    return encode_number(number)


@pytest.mark.slow
def test_kill_while_encoding_and_two_at_once() -> None:
    """A killed process leaves nothing that is taken for a table, and no process; of two at once one encodes."""
    count = 2 * ROWS_OF_PROCESS
    script = (
        "from tests.train.test_encoded_rows import *\n"
        f"notes = Notes()\nencode_all(job_of({count}, slow_number), lambda: 'key', Path('out'), 2, notes)\n"
        "print(*notes.messages)"
    )

    def start() -> "subprocess.Popen[str]":
        return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=in_checkout())

    killed = start()
    wait_for(lambda: len(children_of(killed.pid)) == 2 and any(Path(".datagen").rglob(".*.part")))
    children = children_of(killed.pid)
    killed.kill()
    killed.communicate()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))
    assert not list(Path(".datagen").rglob("done.json"))

    outputs = [process.communicate()[0] for process in (start(), start())]
    assert sorted("read from" in output for output in outputs) == [False, True]
    assert sorted(path.name for path in tables()[0].iterdir()) == ["done.json", "rows.arrow"]
    assert contents(stored(count)) == contents(plain(count))


def wait_for(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 300
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
