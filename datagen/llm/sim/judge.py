"""How the procedural teacher judges and improves answers: by checking. It knows which answer is right and which demands
are met, and sees it as often as its skill says; otherwise it errs at random. A biased judge follows its bias instead.
"""

import json
import re
from collections.abc import Sequence
from math import log
from typing import Any

from datagen.llm.sim import Fields, Handler, SimRandom
from datagen.llm.sim.answer import answer, unmet
from datagen.llm.sim.families import solve
from datagen.llm.sim.reason import write_chain
from datagen.text import count_words
from datagen.verify.answers import final_answer
from datagen.verify.equality import same_answer

MAX_POINTS = 5
"""Points per aspect."""
WORDS_PER_POINT = 8
"""Words of a request that raise its difficulty by one."""
MAX_PROBABILITY = 0.99
"""The highest probability of a verdict."""


def quality(prompt: str, text: str) -> int:
    """Return how good an answer is, from 0 to 5: two points for a right result, the others for demands that are met."""
    solved = solve(prompt)
    right = solved is None or same_answer(final_answer(text), solved.answer) is True or solved.answer in text
    wrong_end = solved is not None and same_answer(final_answer(text), solved.answer) is False
    missing = [demand for demand in unmet(prompt, text) if demand != "result"]
    refused = text.lower().startswith("i'm sorry")
    return max(0, MAX_POINTS - 2 * (not right or wrong_end) - len(missing) - 3 * refused)


def biased(answers: Sequence[str], points: Sequence[float], rng: SimRandom) -> list[float]:
    """Return the points as a judge with these biases and this skill sees them. A bias overrules everything else."""
    if rng.random() < rng.position_bias:
        return [*range(len(answers), 0, -1)]
    if rng.random() < rng.verbosity_bias:
        return [float(len(text)) for text in answers]
    if rng.errs():
        return [rng.random() for _ in answers]
    return list(points)


def compare(fields: Fields, rng: SimRandom) -> str:
    answers = [fields["first"], fields["second"]]
    first, second = biased(answers, [quality(fields["prompt"], text) for text in answers], rng)
    verdict = "tie" if first == second else fields["first_label" if first > second else "second_label"]
    return f"One of them does more of what was asked.\nVerdict: {verdict}"


def labelled_answers(fields: Fields) -> dict[str, str]:
    """Return the answers to a prompt by their labels, which no answer contains."""
    parts = re.split(r"(?:\n\n|^)Answer (\w{3}):\n<<<\n", fields["answers"])
    return {label: text.removesuffix("\n>>>") for label, text in zip(parts[1::2], parts[2::2], strict=True)}


def screen(fields: Fields, rng: SimRandom) -> str:
    """Order all answers to a prompt, the best first."""
    answers = labelled_answers(fields)
    points = [quality(fields["prompt"], text) for text in answers.values()]
    seen = dict(zip(answers, biased(list(answers.values()), points, rng), strict=True))
    return f"I looked at each.\nOrder: {' > '.join(sorted(seen, key=lambda label: -seen[label]))}"


def score(fields: Fields, rng: SimRandom) -> str:
    """Give points for every answer and aspect in the form."""
    lines = []
    for label, aspect, highest in re.findall(r"^(\w{3}) ([\w-]+): \(0 to (\d+)\)$", fields["form"], re.MULTILINE):
        lines.append(f"{label} {aspect}: {points_for(label, int(highest), fields, rng)}")
    return "Each was looked at.\n" + "\n".join(lines)


def score_aspects(fields: Fields, rng: SimRandom) -> str:
    """Give points for every answer and aspect in the form, as JSON."""
    form = json.loads(fields["form"])
    for answer_form in form["answers"]:
        for aspect, span in answer_form["points"].items():
            highest = int(span.rpartition(" ")[2])
            answer_form["points"][aspect] = points_for(answer_form["answer"], highest, fields, rng)
    return json.dumps({**form, "reasons": "Each was looked at."})


def points_for(label: str, highest: int, fields: Fields, rng: SimRandom) -> int:
    """Return the points for an answer under one aspect."""
    answers = labelled_answers(fields)
    points = quality(fields["prompt"], answers[label])
    points = rng.randint(0, MAX_POINTS) if rng.errs() else points
    is_longest = answers[label] == max(answers.values(), key=len)
    points = MAX_POINTS if rng.random() < rng.verbosity_bias and is_longest else points
    return min(points, highest)


def rate_difficulty(fields: Fields, rng: SimRandom) -> str:
    """Rate a request by its length, since every operator of Evol-Instruct adds words."""
    label, highest = re.findall(r"^(\w{3}) difficulty: \(1 to (\d+)\)$", fields["form"])[0]
    rating = 1 + count_words(fields["request"]) // WORDS_PER_POINT
    rating = rng.randint(1, int(highest)) if rng.errs() else min(rating, int(highest))
    return f"I counted what it asks for.\n{label} difficulty: {rating}"


def logprobs(text: str, fields: Fields, skill: float) -> list[dict[str, Any]]:
    """Return the log-probabilities of a reply's tokens. Where a token is a verdict or a number of points, the judge
    gives the alternatives a probability too, the lower the higher its skill."""
    labels = {fields.get("first_label", ""), fields.get("second_label", ""), "tie"}
    certainty = min(MAX_PROBABILITY, (1 + skill) / 2)
    tokens = []
    for token in re.findall(r"\s*\w+|\s*[^\w\s]|\s+", text):
        word = token.strip()
        allowed = labels if word in labels else set(map(str, range(MAX_POINTS + 1)))
        others = sorted(allowed - {word}) if word in allowed else []
        shares = {word: certainty if others else 1.0} | {other: (1 - certainty) / len(others) for other in others}
        blank = token.removesuffix(word)
        top = [{"token": blank + name, "logprob": log(share)} for name, share in shares.items()]
        tokens.append({"token": token, "logprob": top[0]["logprob"], "top_logprobs": top})
    return tokens


def revise(fields: Fields, rng: SimRandom) -> str:
    """Solve the task again and meet what the old answer missed; without skill, only make the answer longer."""
    prompt, response = fields["prompt"], fields["response"]
    if rng.errs():
        return f"{response}\nIn other words, and to say it once more at greater length: that is the answer."
    if quality(prompt, response) == MAX_POINTS:
        return response
    solved = solve(prompt)
    text = answer(fields, rng)
    return f"{text}\n{write_chain(solved, rng).splitlines()[-1]}" if solved and not unmet(prompt, text) else text


def critique(fields: Fields, rng: SimRandom) -> str:
    missed = unmet(fields["prompt"], fields["response"])
    return f"It misses: {', '.join(missed)}." if missed else "No weakness."


HANDLERS: dict[str, Handler] = {
    "judge/compare": compare,
    "judge/screen": screen,
    "judge/score": score,
    "judge/aspects": score_aspects,
    "judge/difficulty": rate_difficulty,
    "improve/edit": revise,
    "improve/revise": revise,
    "improve/rewrite": revise,
    "improve/critique": critique,
}
