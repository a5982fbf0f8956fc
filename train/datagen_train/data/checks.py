"""What usually goes wrong silently, looked at before the first step. A check returns a finding, or raises CheckFailed.

end          every answer ends in a token that ends generation, and that token is trained
pad          padding is not the end token
start        no sequence begins with two start tokens
prompt       what is trained behind is what the model is given when it is asked
length       few rows are cut, and few are dropped
vocabulary   every token has a row in the embedding
trained      something is trained, and of it something has a gradient
"""

from collections.abc import Sequence
from dataclasses import dataclass

from datagen_train.data.encode import IGNORED, Account, Encoded, EncodedPair
from datagen_train.errors import CheckFailed
from datagen_train.models.load import Loaded, count_parameters
from datagen_train.models.tokens import turn_end_ids

MOST_CUT, MOST_DROPPED = 0.5, 0.5
"""Shares of the rows beyond which something must be wrong."""
HARDLY_KNOWN = 0.5
"""Share of the median length of an embedding; that of Qwen3-Base's <|im_end|> is a quarter."""


@dataclass(frozen=True)
class CheckInput:
    """What is looked at."""

    loaded: Loaded
    sequences: Sequence[Encoded]
    account: Account
    documents: bool = False
    """Sequences without a prompt, of which only the last of a document ends."""


def as_sequences(pairs: Sequence[EncodedPair]) -> list[Encoded]:
    """Lay preferences out as the sequences that go through the model."""
    return [
        Encoded(pair.prompt + answer, [IGNORED] * len(pair.prompt) + answer, pair.cut)
        for pair in pairs
        for answer in (pair.chosen, pair.rejected)
    ]


def check_end(subject: CheckInput) -> str:
    ends = turn_end_ids(subject.loaded.model, subject.loaded.tokenizer)
    whole = [each for each in subject.sequences if not each.cut]
    ending = sum(each.labels[-1] in ends for each in whole)
    if not subject.documents and ending < len(whole):
        raise CheckFailed(
            f"end: {len(whole) - ending} of {len(whole)} answers do not end in a trained end token; the model would "
            "never stop. Its chat template must close an assistant's turn with an end token"
        )
    generation = subject.loaded.model.generation_config
    known = generation.eos_token_id if generation is not None else None
    stops = set(known if isinstance(known, list) else [known])
    if generation is not None and not ends <= stops:
        raise CheckFailed(f"end: generation would not stop at {sorted(ends - stops)}: set eos_token_id of the model")
    return f"{ending} of {len(whole)} uncut sequences end in a trained end token{_hardly_known(subject, ends)}"


def _hardly_known(subject: CheckInput, ends: set[int]) -> str:
    """Say which end tokens a base model has hardly ever seen: their embeddings are much shorter than is usual."""
    lengths = subject.loaded.model.get_input_embeddings().weight.detach().float().norm(dim=1)
    within = (token for token in sorted(ends) if token < len(lengths))
    few = [token for token in within if lengths[token] < HARDLY_KNOWN * lengths.median()]
    if not few:
        return ""
    names = ", ".join(map(str, subject.loaded.tokenizer.convert_ids_to_tokens(few)))
    return f"; {names} was hardly trained in this base: adapters may not teach it, training the whole model does"


def check_pad(subject: CheckInput) -> str:
    tokenizer = subject.loaded.tokenizer
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        raise CheckFailed("pad: the pad token is missing or the end token, which would then never be trained")
    return f"padding is {tokenizer.pad_token!r}, the end {tokenizer.eos_token!r}"


def check_start(subject: CheckInput) -> str:
    start = subject.loaded.tokenizer.bos_token_id
    if start is not None and any(each.ids[:2] == [start, start] for each in subject.sequences):
        raise CheckFailed("start: sequences begin with two start tokens; the chat template writes one already")
    return "no sequence begins with two start tokens"


def check_length(subject: CheckInput) -> str:
    account, total = subject.account, max(1, len(subject.sequences))
    dropped, readable = account.dropped.total(), account.read - account.unreadable
    if account.cut / total > MOST_CUT:
        raise CheckFailed(f"length: {account.cut} of {total} sequences are cut; raise --max-length")
    if dropped / max(1, readable) > MOST_DROPPED:
        reason, number = account.dropped.most_common(1)[0]
        raise CheckFailed(f"length: {dropped} of {readable} rows are dropped, {number} since: {reason}")
    return f"{account.cut} cut, {dropped} dropped" + "".join(f"; {n}: {why}" for why, n in account.dropped.items())


def check_vocabulary(subject: CheckInput) -> str:
    rows = subject.loaded.model.get_input_embeddings().weight.shape[0]
    highest = max(max(each.ids) for each in subject.sequences)
    if highest >= rows:
        raise CheckFailed(f"vocabulary: token {highest} has no embedding ({rows} rows); tokenizer and model do not fit")
    return f"tokens up to {highest} of {rows}"


def check_trained(subject: CheckInput) -> str:
    trained, total = count_parameters(subject.loaded.model)
    tokens = sum(each.trained for each in subject.sequences)
    if not tokens or not trained:
        raise CheckFailed(f"trained: {tokens} tokens and {trained} parameters are trained; nothing would be learned")
    return f"{tokens:,} tokens, {trained:,} of {total:,} parameters"


CHECKS = {
    "end": check_end,
    "pad": check_pad,
    "start": check_start,
    "length": check_length,
    "vocabulary": check_vocabulary,
    "trained": check_trained,
}


def run_checks(subject: CheckInput) -> dict[str, str]:
    """Run every check; return the findings by name."""
    return {name: check(subject) for name, check in CHECKS.items()}
