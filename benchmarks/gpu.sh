#!/usr/bin/env bash
# Everything that wants a GPU, in one go: bash benchmarks/gpu.sh [folder for copies of the results].
# Each part has its own limit, so that a slow one leaves time for the others (32 minutes if all reach it).
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/gpu}
mkdir -p "$out"
nvidia-smi > "$out/nvidia-smi.txt" || echo "no GPU here" >&2

part() { # name, seconds, command
  local name=$1 limit=$2
  shift 2
  timeout "$limit" "$@" > "$out/$name.log" 2>&1
  echo "$name: exit code $?"
  cp benchmarks/results/*_gpu.json docs/latency_gpu.png "$out" 2> /dev/null
}

part resnet3d 240 python -m benchmarks.resnet3d --rounds 2
part latency 180 python benchmarks/latency.py --peers
part roofline 120 python -m benchmarks.roofline --dtype=bfloat16 --batches=1,256
part roofline32 120 python -m benchmarks.roofline --dtype=float32 --batches=1,256
part cnn1d 120 python -m benchmarks.cnn1d
part folds 180 python -m benchmarks.folds --folds=11 --epochs=3 --rows=5400
# The published training of one instance: 1250 epochs of 1950 volumes, and its time in metrics.json.
part expB 700 python launch.py --config=configs/expB.py --workdir="$out/expB" --config.data.progress=False \
  --config.splits=random --config.null_floor=False --config.baselines=
part tests 240 python -m pytest -q -m "not slow" tests/test_{convolution,resnet3d,cnn1d,fitting,fusion,decoder}.py
cp "$out/expB/metrics.json" "$out/expB.json" 2> /dev/null
true
