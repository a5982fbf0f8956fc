#!/bin/sh
# Stages two and three again (InstructGPT, arXiv 2203.02155, section 3.1; online in arXiv 2204.05862, section 4.5): the
# policy's new answers are ranked, the reward model is trained again on all rankings so far, and PPO runs with it, from
# the SFT model. The first reward model has seen little variety in answers, so it can be exploited.
. "$(dirname "$0")/common.sh"
: "${FIRST_TEMPERATURE:=1}"

fine_tune
policy=sft table=sft:demonstrations.jsonl rankings= temperature=$FIRST_TEMPERATURE
for round in $(seq "$ROUNDS"); do
    stage "Round $round: $policy answers, the reward model is refreshed, PPO runs with it"
    part "$round"
    sample "$policy" "prompts-$round.jsonl" "refresh-$round.samples.jsonl" "$temperature"
    rank "refresh-$round.samples.jsonl" "refresh-$round.ranked.jsonl" "$RANKER"
    rankings="$rankings refresh-$round.ranked.jsonl"
    cat $rankings > "refresh-$round.rankings.jsonl"
    learn_reward "refresh-$round.rankings.jsonl" "rm-$round"
    learn_ppo prompts.jsonl "rm-$round" "refresh-$round"
    temperature=$TEMPERATURE policy=refresh-$round
    table="$table refresh-$round:refresh-$round.samples.jsonl,refresh-$round.rankings.jsonl"
    measure "$policy" "$policy" "rm-$round"
done
measure sft sft rm-1
python "$here/table.py" $table
