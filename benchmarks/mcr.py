"""Multi-chain reasoning against its own chains: one chain, their majority vote, and the meta-reasoner over all facts.

    python -m benchmarks.mcr [--quick]

Two- and three-hop questions are built from the facts in examples/facts.jsonl; the procedural teacher reads the facts
from the passages in its prompt, correctly at each hop with probability 0.7 (datagen/llm/sim/reason.py).
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
from datagen.verify.answers import answer_key
from datagen.verify.equality import same_answer
from tests.jobs import respond, rows

CORPUS = Path(__file__).resolve().parents[1] / "examples" / "facts.jsonl"
MODEL, SEEDS, CHAINS = "sim:skill=0.7", (0, 1, 2), 5


def questions(count: int, seed: int) -> list[dict[str, str]]:
    """Build questions by following facts at random."""
    random = Random(seed)
    text = " ".join(json.loads(line)["text"] for line in CORPUS.read_text().splitlines())
    facts: dict[str, list[tuple[str, str]]] = {}
    for relation, entity, value in FACT.findall(text):
        facts.setdefault(entity, []).append((relation, value))
    answers: dict[str, str] = {}
    while len(answers) < count:
        at = entity = random.choice(sorted(facts))
        relations: list[str] = []
        while at in facts and len(relations) < 3:
            relation, at = random.choice(facts[at])
            relations.append(relation)
        if len(relations) > 1:
            answers[f"What is the {' of the '.join(reversed(relations))} of {entity}?"] = at
    return [{"prompt": prompt, "answer": answer} for prompt, answer in answers.items()]


def measure(count: int, seed: int) -> dict[str, float]:
    with TemporaryDirectory() as name:
        path = Path(name, "questions.jsonl")
        path.write_bytes(b"".join(map(dump_line, questions(count, seed))))
        output = Path(name, "out.jsonl")
        respond(path, MODEL, str(output), strategy="mcr", corpus=CORPUS, k=CHAINS, seed=seed)
        answers = {row["prompt"]: row["answer"] for row in rows(path)}
        kept_rows = rows(output)
        metas = [(row["prompt"], row["meta"]) for row in kept_rows]
        metas += [(row["record"]["prompt"], row["meta"]) for row in rows(output.with_suffix(".rejected.jsonl"))]
    finals = {prompt: [chain["final"] for chain in meta["chains"]] for prompt, meta in metas}
    keys = {
        prompt: Counter(answer_key(final) for final in chain_answers if final)
        for prompt, chain_answers in finals.items()
    }
    right = [same_answer(row["meta"]["answer"], answers[row["prompt"]]) is True for row in kept_rows]
    return {
        "one chain": mean(
            same_answer(final, answers[prompt]) is True
            for prompt, chain_answers in finals.items()
            for final in chain_answers
        ),
        "majority of 5 chains": mean(
            top(chain_answers) == answer_key(answers[prompt]) for prompt, chain_answers in keys.items()
        ),
        "mcr": sum(right) / count,
        "mcr, where it does not abstain": mean(right),
    }


def top(votes: Counter[str]) -> str | None:
    return votes.most_common(1)[0][0] if votes else None


def main() -> None:
    count = 30 if "--quick" in sys.argv else 200
    measured = [measure(count, seed) for seed in SEEDS]
    print(f"{count} questions, seeds {', '.join(map(str, SEEDS))}\n\n| | right | by seed |\n|---|---|---|")
    for method in measured[0]:
        shares = [100 * shares_of_seed[method] for shares_of_seed in measured]
        print(f"| {method} | {mean(shares):.1f} % | {', '.join(f'{share:.1f}' for share in shares)} |")


if __name__ == "__main__":
    main()
