#!/usr/bin/env bash
# Runs the measurements for a GPU, in named parts: bash benchmarks/gpu.sh [part...] [--out DIR] [--short]
#
#   bash benchmarks/gpu.sh --list               # the parts, and their time limits
#   bash benchmarks/gpu.sh check resnet3d       # two of them; default: all, within half an hour
#   bash benchmarks/gpu.sh --short              # small trials of all parts on a CPU, ten minutes each at most
#
# Numbers go to DIR/gpu.json (default: runs/gpu), also those of a part that reaches its limit; output goes to
# DIR/gpu.log. A later call adds to both. On a GPU, benchmarks/results/gpu.json is a copy.
set -uo pipefail
cd "$(dirname "$0")/.."

declare -A limit long short
all=()
part() { # name, limit in seconds, module of benchmarks with its flags, the same for a short trial
  all+=("$1")
  limit[$1]=$2 long[$1]=$3 short[$1]=$4
}
part check 45 "gpu_check" "gpu_check"
part cnn1d 135 "gpu_table --network=cnn1d" "gpu_table --network=cnn1d --short"
part resnet3d 480 "gpu_table --network=resnet3d" "gpu_table --network=resnet3d --short"
part layers 300 "gpu_layers" "gpu_layers --short"
part training_a 120 "gpu_training --only=A" "gpu_training --only=A --short"
part training_b 300 "gpu_training --only=B" "gpu_training --only=B --short"
part searchlight 120 "wholebrain_searchlight --ours --permutations=1000 --rounds=1 --keep" \
  "wholebrain_searchlight --ours --permutations=10 --rounds=1 --keep --centres=300"
part piecewise 90 "wholebrain_alignment --ours --rounds=1 --keep" \
  "wholebrain_alignment --ours --rounds=1 --keep --subjects=3 --voxels=1200 --parcels=6"
part permutations 90 "permutation --seeds=2 --permutations=99" "permutation --seeds=1 --permutations=4"
part watch 120 "realtime --rows cnn1d resnet3d" "realtime --rows cnn1d resnet3d --volumes=12"

names=() out=runs/gpu chosen=long failed=0
while [ $# -gt 0 ]; do
  case $1 in
    --list)
      for name in "${all[@]}"; do echo "$name ${limit[$name]} s: python -m benchmarks.${long[$name]}"; done
      exit
      ;;
    --short) chosen=short ;;
    --out) out=${2:?--out wants a folder} && shift ;;
    --out=*) out=${1#--out=} ;;
    *)
      [ -n "${limit[$1]:-}" ] || { echo "no part '$1'; expected some of: ${all[*]}" >&2 && exit 2; }
      names+=("$1")
      ;;
  esac
  shift
done
mkdir -p "$out"
export EMOJAX_BENCH_JSON XLA_PYTHON_CLIENT_PREALLOCATE=false # tools take turns on the device
EMOJAX_BENCH_JSON=$(realpath "$out")/gpu.json
for name in "${names[@]:-${all[@]}}"; do
  [ $chosen = long ] && command=${long[$name]} || command=${short[$name]}
  printf '\n== %s: python -m benchmarks.%s\n' "$name" "$command" >> "$out/gpu.log"
  most=${limit[$name]} start=$SECONDS
  [ $chosen = long ] || most=600
  # shellcheck disable=SC2086  # a module and its flags
  timeout "$most" python -m benchmarks.$command >> "$out/gpu.log" 2>&1
  code=$?
  [ $code -eq 0 ] || failed=1
  echo "$name: exit code $code after $((SECONDS - start)) of $most s"
  python -m benchmarks.gpu_check --ended "$name" "$most" $((SECONDS - start)) $code
done
exit $failed
