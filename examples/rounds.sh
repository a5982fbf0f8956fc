#!/bin/sh
# Evolve one round at a time, train on all rounds so far, and stop when the score on other rows falls. WizardCoder
# chooses its number of rounds in this way (arXiv 2306.08568, section 4). The score is the loss on the rows of DEV, from
# which nothing was evolved.
#
#     sh examples/rounds.sh SEEDS DEV BASE [options of datagen evolve]
#
# At most ROUNDS rounds (6). Answers are recorded, so each round pays only for its own calls. The last line names the
# rows of the best round.
set -e
seeds=$1 dev=$2 base=$3
shift 3
best=0 least=inf
for round in $(seq "${ROUNDS:-6}"); do
  datagen evolve "$seeds" --rounds "$round" -o "round-$round.jsonl" -q "$@"
  datagen train sft "round-$round.jsonl" --model "$base" -o "round-$round" -q
  loss=$(datagen train eval "round-$round" "$dev" --generate 0 |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["loss"])')
  echo "round $round: $(wc -l < "round-$round.jsonl") rows, loss $loss"
  if python3 -c "import sys; sys.exit($loss < float('$least'))"; then break; fi
  best=$round least=$loss
done
echo "best: round-$best.jsonl"
