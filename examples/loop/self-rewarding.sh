#!/bin/sh
# Self-Rewarding Language Models (arXiv 2401.10020): the policy answers, judges its own answers by the additive rubric,
# three times and averaged, and DPO learns from the best and the worst; the new policy answers and judges next.
# The toy model cannot judge, so sim, which knows the sums, is the judge here. With a real model: JUDGE=policy. In the
# paper the model writes the new prompts, too (datagen self-instruct); here they are the next ones of the task.
. "$(dirname "$0")/common.sh"
: "${JUDGE:=sim}"

fine_tune
measure sft sft

policy=sft table=sft:demonstrations.jsonl
for round in $(seq "$ROUNDS"); do
    [ "$JUDGE" = policy ] && judge=hf:$policy || judge=$JUDGE
    stage "Round $round: $policy answers, $judge judges, DPO learns"
    part "$round"
    sample "$policy" "prompts-$round.jsonl" "self-$round.samples.jsonl" "$ROUND_TEMPERATURE"
    datagen judge "self-$round.samples.jsonl" -o "self-$round.ranked.jsonl" --by score --samples 3 --judge "$judge" \
        --allow-self
    datagen pairs "self-$round.ranked.jsonl" -q -o "self-$round.pairs.jsonl"
    learn_dpo "self-$round.pairs.jsonl" "$policy" "self-$round"
    policy=self-$round table="$table self-$round:self-$round.samples.jsonl,self-$round.pairs.jsonl"
    measure "$policy" "$policy"
done
python "$here/table.py" $table
