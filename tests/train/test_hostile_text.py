"""Training on hostile rows, in folders with hostile names: the terminal obeys nothing, and the card shows text."""

import json
import shlex
from pathlib import Path

import pytest

from datagen.report.markdown import code, plain
from tests.pty_screen import EVIL, NAME, obeyed, show

HOSTILE = {"prompt": f"What is 1 + 1?{EVIL}", "response": f"two {EVIL}", "meta": {"model": f"m{EVIL}"}, EVIL: EVIL}
COMMANDS = {
    "sft": "train sft {rows} --model tiny --steps 2 --output {out}",
    "no such model": "train sft {rows} --model {out}",
    "check": "train check {rows} --model tiny",
    "wrong trainer": "train dpo {rows} --model tiny",
    "score": "train score {samples} --reward verifier:answer -o -",
    "no such reward": "train score {samples} --reward {out}",
    "no such tool": "train {out}",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_terminal_obeys_nothing_while_training(name: str) -> None:
    rows, samples, out = Path(f"rows{NAME}.jsonl"), Path(f"samples{NAME}.jsonl"), Path(f"out{NAME}")
    lines = [json.dumps(HOSTILE | {"prompt": f"{i} {HOSTILE['prompt']}"}) for i in range(30)]
    rows.write_text("\n".join([*lines, EVIL]))
    samples.write_text(json.dumps({"prompt": EVIL, "responses": [EVIL, "2"]}) + f"\n{EVIL}")
    names = {"rows": rows, "samples": samples, "out": out}
    text = show(COMMANDS[name].format(**{key: shlex.quote(str(path)) for key, path in names.items()}))
    assert text
    assert obeyed(text) == []
    assert "\x1b[2J" not in text and "\x1b[Kspoof" not in text and "\x1b[8m" not in text
    if name == "sft":
        card = (out / "README.md").read_text(encoding="utf-8")
        assert obeyed(card) == []
        assert "Made by `datagen train sft` from `tiny` on `rowsa" in card


@pytest.mark.parametrize("text", ["<script>x</script>", "[x](javascript:y)", "# title", "a\nb | c", "`x`", "![](z)"])
def test_names_of_others_are_text_on_the_card(text: str) -> None:
    assert "\n" not in plain(text) + code(text)
    assert not any(mark in plain(text).replace("\\" + mark, "") for mark in "<>[]|#`!")
    assert code(text).count("`") == 2
