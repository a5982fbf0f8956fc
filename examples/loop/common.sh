# Read by the recipes: the settings, each of which can be set in the environment, and the stages that they share.
set -eu
here=$(cd "$(dirname "$0")" && pwd)

: "${BASE:=tiny}"              # what supervised fine-tuning starts from
: "${DEMONSTRATIONS:=3000}"    # rows that it learns from
: "${SFT_STEPS:=400}"
: "${PROMPTS:=2000}"           # prompts that answers are sampled for; a recipe with rounds parts them
: "${K:=6}"                    # answers to each
: "${TEMPERATURE:=1.6}"        # wide, where a reward model is to learn: it has to have seen what a policy may come to say
: "${ROUND_TEMPERATURE:=1}"    # where the policy is to learn
: "${RANKER:=verifier:answer}" # who ranks them: in place of people
: "${REWARD_STEPS:=250}"
: "${PPO_STEPS:=30}"
: "${KL_COEF:=0.05}"
: "${DPO_STEPS:=60}"
: "${DPO_LOSS:=sigmoid+sft}"
: "${ROUNDS:=3}"
: "${MAX_TOKENS:=8}"           # the longest answer
: "${FLAGS:=}"                 # for every trainer, such as "--lora"

stage() { printf '\n%s\n' "$*" >&2; }

# The task, unless its files are there, and a model that knows it and answers by habit.
fine_tune() {
    stage "Supervised fine-tuning"
    [ -f demonstrations.jsonl ] || python "$here/sums.py" --prompts "$PROMPTS" --demonstrations "$DEMONSTRATIONS"
    datagen train sft demonstrations.jsonl -q -o sft --model "$BASE" --steps "$SFT_STEPS" --eval-every "$SFT_STEPS" $FLAGS
}

# sample POLICY PROMPTS OUT TEMPERATURE: K answers of a policy to each prompt.
sample() {
    datagen respond "$2" -q -o "$3" --model "hf:$1" -k "$K" --temperature "$4" --max-tokens "$MAX_TOKENS"
}

# rank SAMPLES OUT REWARD: the answers, the best first.
rank() { datagen train score "$1" -q -o "$2" --reward "$3"; }

# learn_reward RANKED OUT: a reward model, from the SFT model.
learn_reward() {
    datagen train reward "$1" -q -o "$2" --model sft --steps "$REWARD_STEPS" --held-out 0.1 $FLAGS
}

# learn_ppo PROMPTS REWARD OUT: a policy that the reward model rewards, from the SFT model.
learn_ppo() {
    datagen train ppo "$1" -q -o "$3" --model sft --reward "$2" --steps "$PPO_STEPS" --batch-size 128 --ppo-epochs 2 \
        --minibatches 2 --max-tokens "$MAX_TOKENS" --kl-coef "$KL_COEF" $FLAGS
}

# learn_dpo PAIRS POLICY OUT: a policy that prefers the chosen answers, from another, which is its reference.
learn_dpo() {
    datagen train dpo "$1" -q -o "$3" --model "$2" --loss "$DPO_LOSS" --steps "$DPO_STEPS" $FLAGS
}

# measure NAME POLICY [REWARD]: on prompts that were never trained on; the second skill is what the others are paid with.
measure() {
    datagen train eval "$2" sums.test.jsonl --max-tokens "$MAX_TOKENS" ${3:+--reward "$3"} > "$1.sums.json"
    datagen train eval "$2" other.test.jsonl --max-tokens "$MAX_TOKENS" > "$1.other.json"
}

# part ROUND: the round's share of the prompts, so that no round answers a prompt that was learned from.
part() {
    size=$((PROMPTS / ROUNDS))
    sed -n "$((($1 - 1) * size + 1)),$(($1 * size))p" prompts.jsonl > "prompts-$1.jsonl"
}
