#!/bin/sh
# DPO in rounds: the policy answers new prompts, a reward model ranks the answers, DPO learns from the best and the
# worst, and the new policy answers the prompts of the next round (online iterative DPO, arXiv 2312.11456 and
# 2405.07863). The reference of a round is the policy that it starts from.
. "$(dirname "$0")/common.sh"

fine_tune
stage "A reward model"
sample sft prompts.jsonl samples.jsonl "$TEMPERATURE"
rank samples.jsonl ranked.jsonl "$RANKER"
learn_reward ranked.jsonl rm
measure sft sft rm

policy=sft table=sft:demonstrations.jsonl
for round in $(seq "$ROUNDS"); do
    stage "Round $round: $policy answers, the reward model ranks, DPO learns"
    part "$round"
    sample "$policy" "prompts-$round.jsonl" "idpo-$round.samples.jsonl" "$ROUND_TEMPERATURE"
    rank "idpo-$round.samples.jsonl" "idpo-$round.ranked.jsonl" rm
    datagen pairs "idpo-$round.ranked.jsonl" -q -o "idpo-$round.pairs.jsonl"
    learn_dpo "idpo-$round.pairs.jsonl" "$policy" "idpo-$round"
    policy=idpo-$round table="$table idpo-$round:idpo-$round.samples.jsonl,idpo-$round.pairs.jsonl"
    measure "$policy" "$policy" rm
done
python "$here/table.py" $table
