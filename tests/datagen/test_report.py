"""`datagen report`: the numbers of the files, in a page whose every element is the template's."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.commands.report import Options, run
from datagen.commands.table import load_methods
from datagen.engine.reasons import reason_sentence
from datagen.errors import InputError
from datagen.judges.difficulty import Options as DifficultyOptions
from datagen.records.files import dump_line
from datagen.records.lines import BOM
from datagen.records.record import Row
from datagen.report.outputs import STATUS
from datagen.report.rows import Sample, read_figures, row_at
from datagen.report.similarity import Vocabulary, nearest_others
from datagen.report.text import HIDDEN, markup, shown, visible
from datagen.select.novelty import Pool
from datagen.text import tokens
from tests.datagen.test_review import BROWSER, with_browser
from tests.hostile import hostile
from tests.jobs import STYLES, evolve, perform, rows, write_seeds

TAGS = set(
    "html head meta title style body header p h1 h2 h3 dl div dt dd nav table thead tbody tr th td a main section code "
    "span svg rect path circle text g figure figcaption article b details summary".split()
)
"""All elements that the template and the charts make."""
ATTRIBUTES = {
    "html": {"lang"}, "meta": {"charset", "http-equiv", "content", "name"}, "header": {"class", "id"}, "a": {"href"},
    "nav": {"aria-label"}, "section": {"id"}, "div": {"class", "dir", "lang"}, "th": {"class"}, "td": {"class"},
    "p": {"class"}, "span": {"class"}, "table": {"class"}, "tr": {"class"}, "dl": {"class"}, "figure": {"class"},
    "article": {"class"}, "details": {"class"}, "g": set(), "circle": {"class", "cx", "cy", "r", "fill"},
    "svg": {"class", "role", "width", "height", "viewbox", "aria-hidden"},
    "rect": {"class", "x", "y", "width", "height", "fill", "rx"},
    "path": {"class", "d", "fill", "stroke", "stroke-width"},
    "text": {"class", "x", "y", "text-anchor", "fill", "font-weight"},
}  # fmt: skip
HOSTILE = (
    "<script>document.title='taken'</script>",
    "</style><script>document.title='taken'</script>",
    "</title></head><body onload=\"document.title='taken'\">",
    '"><img src=x onerror="document.title=\'taken\'">',
    "' onmouseover='alert(1)' x='",
    "javascript:alert(1) [link](javascript:alert(1))",
    "NUL \x00 bell \x07 \x1b]0;taken\x07",
    "\u202egnp.exe\u202c \u200b\u2066moc\u2069 \U000e0041",
    "x" * 100_000,
    "{{ 7 * 7 }} {% raw %} {{ self.__init__.__globals__ }}",
    "</div></article></section><h1>taken</h1><!-- ",
    "&lt;b&gt; &#x3c;script&#x3e; ]]> <![CDATA[ <svg onload=alert(1)>",
    "مرحبا بالعالم، كيف حالك اليوم؟",
    "请解释一下为什么月亮会改变形状，并给出三个例子。",
    "half \ud800 of a character",
    "\r\n\u2028\u2029\x85 end",
)


class Page(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")

    def unknown_decl(self, data: str) -> None:
        raise AssertionError(f"a section: {data}")

    def handle_pi(self, data: str) -> None:
        raise AssertionError(f"an instruction: {data}")


def report(*files: str | Path, **options: Any) -> str:
    """Write a page, and return it."""
    assert run([str(file) for file in files], Options(quiet=True, **options)) == 0
    return Path(options.get("output", "report.html")).read_text(encoding="utf-8")


def section(page: str, name: str) -> str:
    """Return the text of the section of a file."""
    part = next(part for part in page.split("<section ")[1:] if f"<h2>{name}</h2>" in part)
    return Page(f"<section {part}").text


def rate(file: str, output: str) -> Row:
    """Rate the difficulty of prompts."""
    method = load_methods("judge")["difficulty"]
    return perform(method, Path(file), "sim", output, DifficultyOptions()).result


def check_elements(page: str) -> None:
    """Check that every element and attribute is one of the template's, and that none leads elsewhere."""
    parsed = Page(page)
    for tag, attributes in parsed.elements:
        assert tag in TAGS, tag
        assert set(attributes) <= ATTRIBUTES.get(tag, set()), (tag, attributes)
        if tag == "a":
            assert re.fullmatch(r"#(top|(file|run)-\d+)", str(attributes["href"]))
    counts = Counter(tag for tag, _ in parsed.elements)
    assert [counts[name] for name in ("html", "head", "title", "style", "body", "main", "h1")] == [1] * 7
    assert counts["section"] == counts["h2"]
    assert not HIDDEN.search(page), "nothing hidden is left"


def write_hostile(count: int = 60) -> None:
    """Write rows of hostile texts in every place, and prompts to evolve."""
    random = Random(1)
    texts = [*HOSTILE, *(hostile(random)[:20_000] for _ in range(count))]
    with open("rows.jsonl", "wb") as file:
        for number, text in enumerate(texts):
            meta = {"method": text, "op": text, "model": text, "round": text, "parents": [text], "seed_id": text}
            row = {"id": text[:50], "prompt": f"{text} {number}", "response": text, "scores": [1, text], "meta": meta}
            kinds: list[Row] = [row, {"prompt": text, "chosen": text, "rejected": text, "margin": text}]
            kinds += [{"prompt": [{"role": text, "content": text}], "responses": [text, text], "ranks": [text]}]
            file.writelines(map(dump_line, kinds))
    with open("prompts.jsonl", "wb") as file:
        file.writelines(dump_line({"prompt": f"{text} {n}"}) for n, text in enumerate(HOSTILE) if "\ud800" not in text)


def test_the_numbers_of_the_page_are_those_of_the_files() -> None:
    outcome = evolve(write_seeds(30), "sim:leak=0.2,refuse=0.1,malformed=0.05", rounds=3, max_failed=100)
    text = section(page := report("out.jsonl"), "out.jsonl")
    funnel = outcome.result["funnel"]
    for reason, number in funnel["rejected"].items():
        sentence = reason_sentence(STYLES["general"], reason)
        assert re.search(rf"{reason}{number:,}{100 * number / funnel['asked']:.1f} %{re.escape(str(sentence))}", text)
    assert f"kept{funnel['kept']:,} · {100 * funnel['kept'] / funnel['asked']:.1f} %" in text
    for number, counts in outcome.result["table"]["rounds"].items():
        assert f"{number}{counts['asked']}{100 * counts['kept'] / counts['asked']:.0f} %" in text
    for name, counts in outcome.result["table"]["operators"].items():
        assert f"{name}{counts['asked']}" in text
    kept = rows("out.jsonl")
    lengths = sorted(len(row["prompt"].split()) for row in kept)
    assert f"longest {lengths[-1]}" in text and STATUS["incomplete"] not in text
    assert "datagen judge out.jsonl --by difficulty --judge MODEL" in text, "how to have the difficulty"
    check_elements(page)


def test_sample_rows_stand_behind_the_rows_that_they_were_made_from() -> None:
    evolve(write_seeds(12), "sim", rounds=2)
    text = section(report("out.jsonl", samples=50), "out.jsonl")
    for row in rows("out.jsonl"):
        seed = Path("seeds.jsonl").read_text().splitlines()
        assert row["id"] in text and row["meta"]["parents"][0] in text and row["meta"]["seed_id"] in text
        prompts = [json.loads(line)["prompt"] for line in seed]
        assert any(prompt in text for prompt in prompts)
    assert text.count("seed → evolve") == len(rows("out.jsonl"))


def test_the_difficulty_of_each_round_is_shown_beside_that_of_the_seeds() -> None:
    evolve(write_seeds(20), "sim", rounds=3)
    judged, seeds = rate("out.jsonl", "judged.jsonl"), rate("seeds.jsonl", "seeds-judged.jsonl")
    text = section(report("out.jsonl", "judged.jsonl", "seeds-judged.jsonl"), "out.jsonl")
    groups = {"seeds": seeds["table"]["difficulty"][""]}
    groups |= {f"round {name}": counts for name, counts in judged["table"]["difficulty"].items()}
    assert set(groups) == {"seeds", "round 1", "round 2", "round 3"}
    for name, counts in groups.items():
        total = sum(counts.values())
        mean = sum(int(value) * number for value, number in counts.items()) / total
        assert f"{name}{total}{mean:.2f}" in text
    assert "--by difficulty" not in text

    evolve(write_seeds(5, "others.jsonl"), "sim", "other.jsonl", rounds=1)
    other = section(report("other.jsonl", "judged.jsonl", "seeds-judged.jsonl"), "other.jsonl")
    assert "--by difficulty" in other and "Judged difficulty" not in other, "that of another file"


def test_files_stand_in_the_order_of_their_flow_whatever_the_order_of_their_names() -> None:
    evolve(write_seeds(6), "sim", "z.jsonl", rounds=1)
    rate("z.jsonl", "a.jsonl")
    page = report()  # everything in the folder
    assert page.index("<h2>z.jsonl</h2>") < page.index("<h2>a.jsonl</h2>")
    assert re.search(r'from <a href="#file-1">z.jsonl</a>', page)


def test_what_a_person_wrote_or_a_model_said_is_never_markup() -> None:
    write_hostile()
    outcome = evolve(Path("prompts.jsonl"), "sim:leak=0.3,refuse=0.1", rounds=2)
    assert outcome.result["funnel"]["rejected"]
    page = report("rows.jsonl", "out.jsonl", samples=50)
    check_elements(page)
    assert len(page) < 2_000_000
    text = Page(page).text
    assert "taken" in text and "{{ 7 * 7 }}" in text and "49 {%" not in text
    assert "请解释一下" in text and "U+202E" in text and 'lang="zh"' in page


def test_the_page_has_a_bounded_size_whatever_the_rows_are() -> None:
    for name, unit in (("a", "&"), ("b", "\u202ea"), ("c", "<"), ("d", "字")):
        texts = [f"{unit * 3_000}{number}" for number in range(30)]
        with open(f"{name}.jsonl", "wb") as file:
            file.writelines(dump_line({"prompt": text, "responses": [text] * 6}) for text in texts)
    page = report("a.jsonl", "b.jsonl", "c.jsonl", "d.jsonl", samples=50)
    assert len(page.encode()) < 2_000_000
    check_elements(page)


@given(st.text() | st.sampled_from(HOSTILE))
def test_a_text_comes_out_as_itself_with_its_hidden_characters_named(text: str) -> None:
    parsed = Page(str(markup(text[:5_000])))
    assert {tag for tag, _ in parsed.elements} <= {"span"}
    assert not HIDDEN.search(parsed.text)
    assert HIDDEN.sub("", text[:5_000]) == re.sub(r"U\+[0-9A-F]{4,6}(?: |(?=\S)|$)|and \d+ more", "", parsed.text) or (
        HIDDEN.search(text) is not None or "U+" in text or "more" in text
    )
    if not HIDDEN.search(text):
        assert parsed.text == text[:5_000].replace("\r\n", "\n")
    assert not HIDDEN.search(visible(text))


@given(st.text(st.sampled_from("ab \n"), max_size=4_000), st.integers(1, 500), st.integers(1, 500))
def test_a_long_text_is_cut_and_nothing_of_it_is_miscounted(text: str, first: int, rest: int) -> None:
    view = shown(text, first, rest)
    both = view.first.unescape() + (view.rest.unescape() if view.rest else "")
    assert text.startswith(both) and len(text) - len(both) == view.omitted
    assert len(view.first) <= 1.25 * first + 1


def test_the_same_files_give_the_same_page() -> None:
    evolve(write_seeds(10), "sim:leak=0.3", rounds=2)
    pages = set()
    for seed in ("1", "2"):
        command = [sys.executable, "-m", "datagen", "report", "out.jsonl", "-o", "-"]
        pages.add(
            subprocess.run(command, capture_output=True, check=True, env=os.environ | {"PYTHONHASHSEED": seed}).stdout
        )
    assert len(pages) == 1


@given(st.lists(st.integers(0, 2**64 - 1), unique=True, max_size=60), st.integers(1, 20), st.randoms())
def test_a_sample_does_not_depend_on_the_order_of_the_rows(keys: list[int], size: int, random: Random) -> None:
    drawn = []
    for _ in range(2):
        random.shuffle(keys)
        sample = Sample(size)
        for key in keys:
            sample.add(key, {"prompt": str(key)})
        drawn.append([row["prompt"] for row in sample.rows])
    assert drawn[0] == drawn[1] == [str(key) for key in sorted(keys)[:size]]


@given(st.lists(st.text(st.sampled_from("abc de"), min_size=1, max_size=30), min_size=2, max_size=12))
def test_the_nearest_prompt_is_that_of_the_exact_search(texts: list[str]) -> None:
    vocabulary = Vocabulary()
    encoded = [vocabulary.encode(tokens(text)) for text in texts]
    nearest = nearest_others(encoded, [str(place) for place in range(len(texts))])
    for place, text in enumerate(texts):
        pool = Pool()
        for other in texts[:place] + texts[place + 1 :]:
            pool.add(other)
        match = pool.nearest(text, above=0.0)
        assert nearest[place] == pytest.approx(match.score if match else 0.0)


def test_a_row_is_looked_up_where_it_stands() -> None:
    evolve(write_seeds(9), "sim", rounds=2)
    lines = Path("out.jsonl").read_bytes().splitlines()
    Path("out.jsonl").write_bytes(BOM + b"\n\n".join(lines))
    index = read_figures(Path("out.jsonl")).index
    for row in map(json.loads, lines):
        position = index.find(row["id"])
        assert position and (same := row_at(position)) and same["prompt"] == row["prompt"]
    assert index.find("0123456789abcdef") is None and index.find("no id") is None


def test_questions_of_a_benchmark_are_looked_for_in_all_rows() -> None:
    questions = [f"How many apples does person number {n} keep when {n} friends take two each?" for n in range(10)]
    Path("bench.jsonl").write_bytes(b"".join(dump_line({"question": text}) for text in questions))
    copies = [{"prompt": text, "response": "None."} for text in questions[:3]]
    Path("rows.jsonl").write_bytes(b"".join(map(dump_line, [*copies, {"prompt": "Name a river.", "response": "Po."}])))
    text = section(report("rows.jsonl", against=["bench.jsonl#question"]), "rows.jsonl")
    assert "bench3310contaminated" in text


def test_a_training_run_is_shown_with_its_curves_and_an_unfinished_one_too() -> None:
    folder = Path("policy/run")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"command": "train sft", "learning_rate": 0.1}))
    lines = [{"step": step, "loss": 1 / step, "eval_loss": 2.0} for step in range(1, 2_000)]
    (folder / "metrics.jsonl").write_text("\n".join([*map(json.dumps, lines), '{"step": 3, "loss": "<b>"}', "{torn"]))
    text = section(page := report("policy"), "policy")
    assert "not finished" in text and "eval_loss" in text and page.count("L") < 5_000, "the curve is thinned"
    result = {
        "outcome": "eval_loss: 2 before, <b>1</b> after",
        "learned": False,
        "checks": {"end": "</td><script>"},
        "alarms": {"overfitting": "since step 40"},
        "start": {"eval_loss": 2.0},
        "end": {"eval_loss": 1.0},
    }
    (folder / "report.json").write_text(json.dumps({"result": result, "run": {"data": "rows.jsonl"}}))
    page = report("policy")
    text = section(page, "policy")
    assert "<b>1</b> after" in text and "Alarm: overfitting." in text and "loss21" in text and "</td><script>" in text
    check_elements(page)


def test_evaluations_stand_side_by_side_and_other_json_is_none() -> None:
    write_seeds(2)
    counts = {"rows": 200, "left_out_as_trained_on": 0, "loss": 0.5}
    Path("eval-sft.json").write_text(json.dumps(counts | {"exact_match": 0.295, "reward": "</td><script>"}))
    Path("eval-ppo.json").write_text(json.dumps(counts | {"exact_match": 0.84, "reward": -0.25}))
    Path("recipe.json").write_text('{"steps": {}}')
    page = report("seeds.jsonl", "eval-sft.json", "eval-ppo.json")
    assert "rowslossexact matchreward" in section(page, "Evaluations").replace("\n", "")
    assert "eval-sft2000.50.295-" in section(page, "Evaluations").replace("\n", "")
    assert "eval-ppo2000.50.84-0.25" in section(page, "Evaluations").replace("\n", "")
    check_elements(page)
    with pytest.raises(InputError, match="no rows of JSON lines"):
        report("recipe.json")


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ([], {}, r"^no output and no training run in this folder"),
        (["nothing.jsonl"], {}, r"^nothing\.jsonl: no such file or folder"),
        (["seeds.meta.json"], {}, r"^seeds\.meta\.json: belongs to an output"),
        (["empty"], {}, r"^empty: a folder with no output"),
        (["text.txt"], {}, r"^text\.txt: no rows of JSON lines"),
        (["edited.jsonl"], {}, r"^edited\.meta\.json: not as datagen wrote it"),
        (["seeds.jsonl"], {"output": "seeds.jsonl"}, r"^seeds\.jsonl: is read by this command"),
        (["seeds.jsonl"], {"output": "text.txt"}, r"^text\.txt: exists and is no report of datagen"),
        (["seeds.jsonl"], {"output": "no/x.html"}, r"no such folder no"),
        (["seeds.jsonl"], {"against": ["nothing.jsonl"]}, r"^nothing\.jsonl: no such file"),
    ],
)
def test_a_mistake_is_one_line(files: list[str], options: dict[str, Any], message: str) -> None:
    Path("text.txt").write_text("A line.\n")
    Path("empty").mkdir()
    if files:
        write_seeds(2)
        write_seeds(2, "edited.jsonl")
        funnel = {"asked": 2, "kept": 2, "unreadable": 0, "rejected": {}, "failed": {}}
        result = {"status": "finished", "fingerprint": {}, "funnel": funnel, "usage": {"calls": "2"}}
        Path("edited.meta.json").write_text(json.dumps({"result": result, "run": {}}))
    with pytest.raises(InputError, match=message):
        run(files, Options(quiet=True, **options))
    assert Path("text.txt").read_text() == "A line.\n"


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_a_browser_shows_hostile_rows_as_text_on_narrow_and_wide_screens() -> None:
    write_hostile()
    evolve(Path("prompts.jsonl"), "sim:leak=0.3,refuse=0.1", rounds=2)
    page = report("rows.jsonl", "out.jsonl", samples=50)
    title = re.search("<title>(.*)</title>", page)
    elements = Counter(tag for tag, _ in Page(page).elements)

    async def act(browser: Any) -> None:
        await browser.until("location.protocol === 'file:' && document.readyState === 'complete'")
        assert title and await browser.value("document.title") == title[1]
        for tag in ("article", "section", "span", "details", "div", "svg", "td", "b"):
            assert await browser.value(f"document.querySelectorAll('{tag}').length") == elements[tag], tag
        assert await browser.value("document.querySelectorAll('script, img, iframe, object, link, form').length") == 0
        assert await browser.value("getComputedStyle(document.body).margin") == "0px", "its own style sheet is allowed"
        for width in (390, 1280):
            await browser.call(
                "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False
            )
            assert await browser.value("innerWidth") == width
            assert await browser.value("document.documentElement.scrollWidth <= innerWidth")

    asyncio.run(with_browser(Path("report.html").resolve().as_uri(), act))
