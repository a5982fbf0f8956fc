#!/bin/sh
# From demonstrations to an aligned model (InstructGPT, arXiv 2203.02155, section 3.1): supervised fine-tuning, samples,
# a ranking, a reward model, PPO with it; and DPO (arXiv 2305.18290) on pairs of the same ranking.
. "$(dirname "$0")/common.sh"

fine_tune
stage "Samples of the SFT model, ranked"
sample sft prompts.jsonl samples.jsonl "$TEMPERATURE"
rank samples.jsonl ranked.jsonl "$RANKER"

stage "A reward model, and PPO with it"
learn_reward ranked.jsonl rm
learn_ppo prompts.jsonl rm ppo

stage "DPO on pairs of the same ranking"
datagen pairs ranked.jsonl -q -o pairs.jsonl
learn_dpo pairs.jsonl sft dpo

for policy in sft ppo dpo; do measure "$policy" "$policy" rm; done
python "$here/table.py" sft:demonstrations.jsonl ppo:ranked.jsonl dpo:pairs.jsonl
