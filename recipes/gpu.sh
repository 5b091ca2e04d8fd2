#!/usr/bin/env bash
# Measure what needs a GPU, within a time limit: training speed beside PyTorch, and figure 6 of
# arXiv 1512.03385. reszoo/bench/gpu.py lists the measurements.
#
#     bash recipes/gpu.sh DATA OUT SECONDS [PEER]
#
# DATA: CIFAR-10 as class folders (train/CLASS/*, test/CLASS/*).
# OUT: a folder for records, logs and runs. SECONDS: the limit. Run the script again to resume.
# PEER: the Python of an environment with PyTorch. To rehearse without a GPU: DEVICE=cpu STEPS=2.
set -euo pipefail
: "${3:?usage: gpu.sh DATA OUT SECONDS [PEER]}"
python=${PYTHON:-python3}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# A checkout need not be installed.
[ -d "$root/reszoo" ] && export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
export KERAS_BACKEND=tensorflow
exec "$python" -m reszoo.bench.gpu "$1" "$2" "$3" \
  --peer "${4:-$python}" --device "${DEVICE:-gpu}" --steps "${STEPS:-0}"
