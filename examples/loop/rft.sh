#!/bin/sh
# Rejection sampling fine-tuning in rounds (RFT, arXiv 2308.01825): the policy answers, right answers are kept, and the
# base model is trained again on the right demonstrations and all answers kept so far.
# The toy model answers with a number alone, so there is one path to each answer: the prompts are repeated until enough
# of them have a right answer. For a model that writes chains: RESPOND="--strategy rft -k 8".
. "$(dirname "$0")/common.sh"
: "${RFT_STEPS:=700}"
: "${RESPOND:=--verify answer -n $((PROMPTS / ROUNDS / 2))}"

fine_tune
measure sft sft
stage "The right demonstrations"
datagen filter demonstrations.jsonl -q -o gold.jsonl --rule none --verify answer

policy=sft table=sft:demonstrations.jsonl kept=gold.jsonl
for round in $(seq "$ROUNDS"); do
    stage "Round $round: $policy answers, right answers are kept, the base model is trained"
    part "$round"
    datagen respond "prompts-$round.jsonl" -o "rft-$round.right.jsonl" --model "hf:$policy" \
        --temperature "$ROUND_TEMPERATURE" --max-tokens "$MAX_TOKENS" $RESPOND || [ $? = 3 ] # short of -n
    kept="$kept rft-$round.right.jsonl"
    cat $kept > "rft-$round.rows.jsonl"
    datagen train sft "rft-$round.rows.jsonl" -o "rft-$round" --model "$BASE" --steps "$RFT_STEPS" \
        --eval-every "$RFT_STEPS" $FLAGS
    policy=rft-$round table="$table rft-$round:rft-$round.right.jsonl,rft-$round.rows.jsonl"
    measure "$policy" "$policy"
done
python "$here/table.py" $table
