"""Meta-reasoning against its own chains: one chain, their majority, and the explanation that weighs all facts.

    python -m benchmarks.mcr [--quick]

Two- and three-hop questions are put together of the facts in examples/facts.jsonl; the procedural teacher reads them
off the passages it is shown, rightly at each hop with probability 0.7 (datagen/llm/sim/reason.py).
"""

import json
import sys
from collections import Counter
from pathlib import Path
from random import Random
from statistics import mean
from tempfile import TemporaryDirectory

from datagen.llm.sim.reason import FACT
from datagen.records.files import dump_line
from datagen.verify.answers import answer_key, same_answer
from tests.jobs import respond, rows

CORPUS = Path(__file__).resolve().parents[1] / "examples" / "facts.jsonl"
MODEL, SEEDS, CHAINS = "sim:skill=0.7", (0, 1, 2), 5


def questions(count: int, seed: int) -> list[dict[str, str]]:
    """Put questions together by following facts at random."""
    random = Random(seed)
    text = " ".join(json.loads(line)["text"] for line in CORPUS.read_text().splitlines())
    facts: dict[str, list[tuple[str, str]]] = {}
    for relation, entity, value in FACT.findall(text):
        facts.setdefault(entity, []).append((relation, value))
    made: dict[str, str] = {}
    while len(made) < count:
        at = entity = random.choice(sorted(facts))
        relations: list[str] = []
        while at in facts and len(relations) < 3:
            relation, at = random.choice(facts[at])
            relations.append(relation)
        if len(relations) > 1:
            made[f"What is the {' of the '.join(reversed(relations))} of {entity}?"] = at
    return [{"prompt": prompt, "answer": answer} for prompt, answer in made.items()]


def measure(count: int, seed: int) -> dict[str, float]:
    with TemporaryDirectory() as name:
        path = Path(name, "questions.jsonl")
        path.write_bytes(b"".join(map(dump_line, questions(count, seed))))
        output = Path(name, "out.jsonl")
        respond(path, MODEL, str(output), strategy="mcr", corpus=CORPUS, k=CHAINS, seed=seed)
        told = {row["prompt"]: row["answer"] for row in rows(path)}
        made = rows(output)
        every = [(row["prompt"], row["meta"]) for row in made]
        every += [(row["record"]["prompt"], row["meta"]) for row in rows(output.with_suffix(".rejected.jsonl"))]
    finals = {prompt: [chain["final"] for chain in meta["chains"]] for prompt, meta in every}
    keys = {prompt: Counter(answer_key(final) for final in said if final) for prompt, said in finals.items()}
    right = [same_answer(row["meta"]["answer"], told[row["prompt"]]) is True for row in made]
    return {
        "one chain": mean(
            same_answer(final, told[prompt]) is True for prompt, said in finals.items() for final in said
        ),
        "majority of 5 chains": mean(top(said) == answer_key(told[prompt]) for prompt, said in keys.items()),
        "mcr": sum(right) / count,
        "mcr, where it does not abstain": mean(right),
    }


def top(votes: Counter[str]) -> str | None:
    return votes.most_common(1)[0][0] if votes else None


def main() -> None:
    count = 30 if "--quick" in sys.argv else 200
    measured = [measure(count, seed) for seed in SEEDS]
    print(f"{count} questions, seeds {', '.join(map(str, SEEDS))}\n\n| | right | by seed |\n|---|---|---|")
    for way in measured[0]:
        shares = [100 * each[way] for each in measured]
        print(f"| {way} | {mean(shares):.1f} % | {', '.join(f'{share:.1f}' for share in shares)} |")


if __name__ == "__main__":
    main()
