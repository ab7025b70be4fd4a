#!/usr/bin/env bash
# Everything that wants a GPU, in one go: bash benchmarks/gpu.sh [folder for copies of the results].
# Each part has its own limit, so that a slow one leaves time for the others (46 minutes if all reach it).
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
# Longer trainings than a CPU has time for: rate, penalty and batch norm of A; both momenta of B.
part settings 300 python -m benchmarks.paper_settings --epochs 30 --minutes 4
part settingsB 120 python -m benchmarks.paper_settings --experiment B --epochs 60 --minutes 1
# The paper's Experiment A, 200 of its 5000 epochs in all eleven folds.
part expA 420 python launch.py --config=configs/expA.py --workdir="$out/expA" --config.data.progress=False \
  --config.train.epochs=200 --config.headline=network --config.protocols=nested --config.align.regimes=independent_runs \
  --config.null_floor=False --config.baselines=
part tests 240 python -m pytest -q -m "not slow" tests/test_{convolution,resnet3d,cnn1d,fitting,fusion,decoder}.py
for name in expA expB; do cp "$out/$name/metrics.json" "$out/$name.json" 2> /dev/null; done
true
