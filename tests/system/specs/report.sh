#!/bin/sh
# A user's program: three metrics, a checkpoint and a line of output.
set -e
for step in 1 2 3; do
    athanor report metric --step "$step" "loss=$((10 - step))"
done
mkdir -p "$ATHANOR_JOB_DIR/checkpoints/mine"
echo weights >"$ATHANOR_JOB_DIR/checkpoints/mine/weights.txt"
athanor report checkpoint --step 3 "$ATHANOR_JOB_DIR/checkpoints/mine" --metric val_loss=7
echo "hello from $ATHANOR_JOB_NAME rank $RANK of $WORLD_SIZE"
