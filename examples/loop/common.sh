# Sourced by the recipes: the settings, which can be set in the environment, and the stages that the recipes share.
set -eu
here=$(cd "$(dirname "$0")" && pwd)

: "${BASE:=tiny}"              # the model that supervised fine-tuning starts from
: "${DEMONSTRATIONS:=3000}"    # training rows of supervised fine-tuning
: "${SFT_STEPS:=400}"
: "${PROMPTS:=2000}"           # prompts to sample answers for; a recipe with rounds divides them
: "${K:=6}"                    # answers to each prompt
: "${TEMPERATURE:=1.6}"        # for training a reward model: varied, because a policy may later write such answers
: "${ROUND_TEMPERATURE:=1}"    # for training the policy
: "${RANKER:=verifier:answer}" # the reward that ranks answers, instead of people
: "${REWARD_STEPS:=1000}"
: "${PPO_STEPS:=30}"
: "${KL_COEF:=0.05}"
: "${DPO_STEPS:=60}"
: "${DPO_LOSS:=sigmoid+sft}"
: "${ROUNDS:=3}"
: "${MAX_TOKENS:=8}"           # maximum length of an answer
: "${FLAGS:=}"                 # options of every trainer, such as "--lora"

if [ "$BASE" = tiny ]; then
    : "${REWARD_RATE:=3e-3}" "${PPO_RATE:=6e-4}" # more steps than a toy takes by default, at higher rates
    : "${OMP_NUM_THREADS:=1}"                    # several threads would wait for each other longer than they compute
    export OMP_NUM_THREADS
fi

stage() { printf '\n%s\n' "$*" >&2; }

# Write the task, unless its files exist, and train the SFT model, which knows it but errs as the demonstrations do.
fine_tune() {
    stage "Supervised fine-tuning"
    [ -f demonstrations.jsonl ] || python "$here/sums.py" --prompts "$PROMPTS" --demonstrations "$DEMONSTRATIONS"
    datagen train sft demonstrations.jsonl -o sft --model "$BASE" --steps "$SFT_STEPS" --eval-every "$SFT_STEPS" \
        $FLAGS
}

# sample POLICY PROMPTS OUT TEMPERATURE: sample K answers of a policy to each prompt.
sample() {
    datagen respond "$2" -o "$3" --model "hf:$1" -k "$K" --temperature "$4" --max-tokens "$MAX_TOKENS"
}

# rank SAMPLES OUT REWARD: rank the answers, best first.
rank() { datagen train score "$1" -o "$2" --reward "$3"; }

# learn_reward RANKED OUT: train a reward model, from the SFT model.
learn_reward() {
    datagen train reward "$1" -o "$2" --model sft --steps "$REWARD_STEPS" --held-out 0.1 \
        ${REWARD_RATE:+--learning-rate "$REWARD_RATE"} $FLAGS
}

# learn_ppo PROMPTS REWARD OUT: train a policy by PPO, from the SFT model.
learn_ppo() {
    datagen train ppo "$1" -o "$3" --model sft --reward "$2" --steps "$PPO_STEPS" --batch-size 128 --ppo-epochs 2 \
        --minibatches 2 --max-tokens "$MAX_TOKENS" --kl-coef "$KL_COEF" \
        ${PPO_RATE:+--learning-rate "$PPO_RATE"} $FLAGS
}

# learn_dpo PAIRS POLICY OUT: train a policy by DPO, from another policy, which is its reference.
learn_dpo() {
    datagen train dpo "$1" -o "$3" --model "$2" --loss "$DPO_LOSS" --steps "$DPO_STEPS" $FLAGS
}

# measure NAME POLICY [REWARD]: evaluate on prompts that were never trained on, of the task and of the second skill.
measure() {
    datagen train eval "$2" sums.test.jsonl --max-tokens "$MAX_TOKENS" ${3:+--reward "$3"} > "$1.sums.json"
    datagen train eval "$2" other.test.jsonl --max-tokens "$MAX_TOKENS" > "$1.other.json"
}

# part ROUND: write the round's share of the prompts, so that no round answers a prompt that was trained on.
part() {
    size=$((PROMPTS / ROUNDS))
    sed -n "$((($1 - 1) * size + 1)),$(($1 * size))p" prompts.jsonl > "prompts-$1.jsonl"
}
