#!/usr/bin/env bash
# From nothing to the weights of tiny-vace: every part, in order. About 75 minutes on one H200.
#
#   training/recipes/tiny_vace.sh [FOLDER] [SUFFIX]
#
# Weights, numbers and pictures come to FOLDER (runs by default), the pipeline to FOLDER/tiny-vace. Interrupted, it goes
# on where it was. SUFFIX _smoke does the same at toy size, in a minute on a CPU.
set -euo pipefail
RUNS=${1:-runs}
SUFFIX=${2:-}

run() { python3 -m igrpo_sdk.training world --recipe "$1" --output "$RUNS/$2" "${@:3}"; }
train() { run "$1$SUFFIX" "${@:2}" --resume auto; }

train tiny_likeness likeness
train tiny_vae vae-crops
train tiny_vae_motion vae-motion --set "init_from=$RUNS/vae-crops/vae"
train tiny_vae_faces vae --set "init_from=$RUNS/vae-motion/vae" --set "likeness=$RUNS/likeness"
train tiny_text text
train tiny_reader reader &
train tiny_flow_stills stills --set "vae=$RUNS/vae/vae" --set "text=$RUNS/text"
train tiny_flow flow-coarse --set "vae=$RUNS/vae/vae" --set "text=$RUNS/stills" --set "init_from=$RUNS/stills"
train tiny_flow_fine flow \
  --set "vae=$RUNS/vae/vae" --set "text=$RUNS/flow-coarse" --set "init_from=$RUNS/flow-coarse"
wait $!
run tiny_assemble tiny-vace --set "vae=$RUNS/vae/vae" --set "flow=$RUNS/flow" --set "runs=$RUNS"
