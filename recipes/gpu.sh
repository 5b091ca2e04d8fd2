#!/usr/bin/env bash
# Every figure that wants a GPU: speed beside PyTorch, and the paper's 64,000 steps on CIFAR-10 with their plain twins.
#
#   KERAS_BACKEND=jax bash recipes/gpu.sh DATA OUT [PYTHON]
#
# DATA: cifar10 as class folders (train/CLASS/*, test/CLASS/*). OUT: a folder for records and runs. PYTHON: of an environment with
# torch and torchvision, by default this one. Without KERAS_BACKEND, on TensorFlow. Start it again to go on where it was stopped.
# To try it: DEVICE=cpu STEPS=20 and a single round.
set -euo pipefail
data=$(realpath "$1") out=$2 peer=${3:-python}
device=${DEVICE:-gpu} rounds=${STEPS:+1}
mkdir -p "$out/runs"

bench() { # NAME ARGUMENTS...
  [ -e "$out/$1.json" ] || reszoo bench "${@:2}" --device "$device" --rounds "${rounds:-5}" --peer "$peer" --json "$out/$1.json"
}
run() { # NAME ARGUMENTS...
  if [ -e "$out/runs/$1/test.json" ]; then return; fi
  if [ -e "$out/runs/$1/recipe.toml" ]; then
    reszoo train --resume --run-dir "$out/runs/$1"
  else
    reszoo train "${@:2}" --set "data.name=folder:$data" ${STEPS:+--set "train.steps=$STEPS" --set train.epochs=0} \
      --devices "$device" --run-dir "$out/runs/$1"
  fi
}

fast="--precision mixed_bfloat16 --against torch,torch-compile"
bench train_cifar_b128 train resnet20 resnet56 resnet110 --batch 128 $fast
bench train_cifar_b1024 train resnet20 resnet56 resnet110 --batch 1024 $fast
bench train_resnet50_b256 train resnet50 --batch 256 $fast
bench train_cifar_float32 train resnet20 resnet56 --batch 128 --against torch
bench input input cifar # beside train_cifar_b128: the share of a step that its images cost
bench first_step first-step resnet110 --batch 128 --against torch

for net in resnet20 plain20 resnet56 plain56; do
  run "$net" "cifar10_$net"
done
# akamaster's schedule (pytorch_resnet_cifar10, trainer.py): 200 epochs of all images, the rate divided by ten after 100 and 150.
for net in resnet20 resnet56; do
  run "${net}_200_epochs" "cifar10_$net" --set data.validation=0 --set train.steps=0 --set train.epochs=200 \
    --set schedule.unit=epochs --set "schedule.boundaries=[100, 150]" --set data.normalize=channel
done
