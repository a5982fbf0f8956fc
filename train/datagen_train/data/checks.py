"""Checks before the first step, for faults that training would not report.

end          every answer ends in a token that ends generation, and that token is trained
start        no sequence begins with two start tokens
length       few rows are cut, and few are dropped
vocabulary   every token has a row in the embedding
unknown      the tokenizer knows nearly all of the text
trained      there are tokens with a loss and parameters with a gradient

Packing has a check of its own. It puts several short rows in one sequence, so it is right only where the attention
keeps the rows apart. Whether it does depends on the attention implementation, the library's version and the model.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from datagen_train.data.encode import BY_CHOICE, Encoded
from datagen_train.data.split import Account
from datagen_train.errors import CheckFailed
from datagen_train.models.load import Loaded, count_parameters
from datagen_train.models.tokens import turn_end_ids

MAX_CUT, MAX_DROPPED = 0.5, 0.5
"""Shares of the rows above which something must be wrong."""
MAX_UNKNOWN = 0.1
"""Share of the tokens; rare signs in a vocabulary of characters are some hundredths."""
PACKING_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}
"""Largest difference of a logit between packed and single rows, by the data type of the weights."""
SHORT_EMBEDDING = 0.5
"""Share of the median norm of an embedding below which a token is hardly trained; Qwen3-Base's <|im_end|> has 0.25."""


@dataclass(frozen=True)
class CheckInput:
    """What the checks read."""

    loaded: Loaded
    sequences: Iterable[Encoded]
    """Read once."""
    account: Account
    documents: bool = False
    """The sequences are windows of documents: only the last one of a document ends in an end token."""


@dataclass
class Facts:
    """What is known of all sequences."""

    sequences: int = 0
    uncut: int = 0
    ending: int = 0
    """Uncut ones that end in a trained end token."""
    twice: int = 0
    """Those that begin with two start tokens."""
    tokens: int = 0
    trained: int = 0
    """Tokens with a loss."""
    unknown: int = 0
    """Tokens for unknown text."""
    highest: int = 0
    """The highest token."""


def find_facts(inputs: CheckInput, ends: set[int]) -> Facts:
    """Read all sequences once."""
    tokenizer, facts = inputs.loaded.tokenizer, Facts()
    start, unknown = tokenizer.bos_token_id, tokenizer.unk_token_id
    for sequence in inputs.sequences:
        ids = np.asarray(sequence.ids)
        facts.sequences += 1
        if not sequence.cut:
            facts.uncut += 1
            facts.ending += int(sequence.labels[-1]) in ends
        facts.twice += start is not None and list(ids[:2]) == [start, start]
        facts.tokens += len(ids)
        facts.trained += sequence.trained
        facts.unknown += int(np.count_nonzero(ids == unknown))
        facts.highest = max(facts.highest, int(ids.max()))
    return facts


def run_checks(inputs: CheckInput) -> dict[str, str]:
    """Run every check.

    Returns:
        The findings by the name of the check.

    Raises:
        CheckFailed: training would not do what it should; the message says what to change.
    """
    model = inputs.loaded.model
    facts = find_facts(inputs, turn_end_ids(model, inputs.loaded.tokenizer))
    findings = {"end": check_end(inputs, facts)}

    if facts.twice:
        raise CheckFailed("start: sequences begin with two start tokens; the chat template writes one already")
    findings["start"] = "no sequence begins with two start tokens"

    findings["length"] = check_length(inputs.account, facts.sequences)

    rows = model.get_input_embeddings().weight.shape[0]
    if facts.highest >= rows:
        raise CheckFailed(
            f"vocabulary: token {facts.highest} has no embedding ({rows} rows); tokenizer and model do not fit"
        )
    findings["vocabulary"] = f"tokens up to {facts.highest} of {rows}"
    findings |= check_unknown(inputs.loaded.tokenizer, facts)

    trained, total = count_parameters(model)
    if not facts.trained or not trained:
        raise CheckFailed(
            f"trained: {facts.trained} tokens and {trained} parameters are trained; nothing would be learned"
        )
    findings["trained"] = f"{facts.trained:,} tokens, {trained:,} of {total:,} parameters"
    return findings


def check_end(inputs: CheckInput, facts: Facts) -> str:
    """Check that answers end in a trained end token, and that generation stops there; name hardly trained ones."""
    model, tokenizer = inputs.loaded.model, inputs.loaded.tokenizer
    ends = turn_end_ids(model, tokenizer)
    if not inputs.documents and facts.ending < facts.uncut:
        raise CheckFailed(
            f"end: {facts.uncut - facts.ending} of {facts.uncut} answers do not end in a trained end token; the model "
            "would never stop. Its chat template must close an assistant's turn with an end token"
        )
    generation = model.generation_config
    eos = generation.eos_token_id if generation is not None else None
    stops = set(eos if isinstance(eos, list) else [eos])
    if generation is not None and not ends <= stops:
        raise CheckFailed(f"end: generation would not stop at {sorted(ends - stops)}: set eos_token_id of the model")
    finding = f"{facts.ending} of {facts.uncut} uncut sequences end in a trained end token"

    norms = model.get_input_embeddings().weight.detach().float().norm(dim=1)
    usual = norms.median()
    short = [token for token in sorted(ends) if token < len(norms) and norms[token] < SHORT_EMBEDDING * usual]
    if short:
        names = ", ".join(map(str, tokenizer.convert_ids_to_tokens(short)))
        finding += (
            f"; {names} was hardly trained in this base: adapters may not teach it, training the whole model does"
        )
    return finding


def check_unknown(tokenizer: PreTrainedTokenizerBase, facts: Facts) -> dict[str, str]:
    """Check that few tokens are those for unknown text; nothing is said of a tokenizer that has none."""
    if tokenizer.unk_token_id in (None, tokenizer.eos_token_id, tokenizer.bos_token_id):
        return {}
    finding = f"{facts.unknown:,} of {facts.tokens:,} tokens are {tokenizer.unk_token}"
    if facts.unknown > MAX_UNKNOWN * facts.tokens:
        raise CheckFailed(
            f"unknown: {finding}: the tokenizer does not know this text, and the model would learn to write nothing "
            "else. Is its vocabulary damaged, or for another language? Choose another --model"
        )
    return {"unknown": finding}


def check_length(account: Account, sequences: int) -> str:
    """Check that most rows are neither cut nor dropped."""
    total = max(1, sequences)
    by_choice = sum(account.dropped[reason] for reason in BY_CHOICE)
    dropped, readable = account.dropped.total() - by_choice, account.read - account.unreadable - by_choice
    if account.cut / total > MAX_CUT:
        raise CheckFailed(f"length: {account.cut} of {total} sequences are cut; raise --max-length")
    if dropped / max(1, readable) > MAX_DROPPED:
        reason, number = next(pair for pair in account.dropped.most_common() if pair[0] not in BY_CHOICE)
        raise CheckFailed(f"length: {dropped} of {readable} rows are dropped, {number} because: {reason}")
    return f"{account.cut} cut, {account.dropped.total()} dropped" + "".join(
        f"; {n}: {why}" for why, n in account.dropped.items()
    )


def check_packing(loaded: Loaded, sequences: Sequence[Encoded]) -> float:
    """Compare the logits of two rows packed with those of the same rows alone.

    Returns:
        The largest difference.

    Raises:
        CheckFailed: it is larger than rounding explains.
    """
    first, second = (torch.tensor([list(sequence.ids)]) for sequence in (sequences[0], sequences[-1]))
    model = loaded.model
    was_training = model.training
    model.eval()
    with torch.no_grad():
        alone = torch.cat([model(ids.to(model.device)).logits[0] for ids in (first, second)])
        positions = torch.cat([torch.arange(ids.shape[1]) for ids in (first, second)])[None]
        packed = torch.cat([first, second], dim=1).to(model.device)
        together = model(packed, position_ids=positions.to(model.device), use_cache=False).logits[0]
    model.train(was_training)
    difference = float((alone - together).abs().max())
    if difference > PACKING_TOLERANCE.get(model.dtype, PACKING_TOLERANCE[torch.bfloat16]):
        raise CheckFailed(
            f"packing: rows in one sequence see each other (logits differ by {difference:.2g}); leave --packing out"
        )
    return difference
