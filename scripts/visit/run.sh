#!/usr/bin/env bash
# A visit to a GPU: `run.sh OUT` measures and checks, and leaves everything in the folder OUT. `run.sh OUT STAGE ...` runs only
# these stages. With SHOWTELL_VISIT_DATA=FOLDER the recipes train on that data set, too.
#
# Each stage has a time limit, a log OUT/STAGE.log and a result OUT/STAGE.json: the seconds it took, how it ended. Later
# stages run whatever failed before. The last one writes OUT/report.md: what failed, and our times beside PyTorch's.
# Stages whose tool is missing are skipped and say so. With SHOWTELL_VISIT=rehearsal the driver is the emulator: only small
# work is done.
set -uo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
mkdir -p "${1:?usage: run.sh OUT [STAGE ...]}"
out="$(cd "$1" && pwd)"
shift
chosen=" $* "
cd "$here" || exit 1
rehearsal=""
[ "${SHOWTELL_VISIT:-}" = rehearsal ] && rehearsal=yes
# The tests' executable finds goldens and the program here.
export CARGO_MANIFEST_DIR="$here" SHOWTELL_TEST_GPU=1 SHOWTELL_BENCH_GPU=tf32

# Runs a stage: its name, its limit in seconds, the command.
stage() {
  local name="$1" limit="$2" start status
  shift 2
  case "$chosen" in
  "  " | *" $name "*) ;;
  *) return ;;
  esac
  start="$(date +%s.%N)"
  timeout --kill-after 5 "$limit" "$@" >"$out/$name.log" 2>&1
  status=$?
  python3 - "$name" "$start" "$status" "$out" <<'PYTHON'
import json, re, sys, time
name, start, status, out = sys.argv[1:]
log = open(f"{out}/{name}.log", errors="replace").read()
tests = {outcome: len(re.findall(rf"^test .* \.\.\. {outcome}", log, re.M)) for outcome in ("ok", "FAILED")}
ended = {"0": "ok", "77": "skipped", "124": "out of time"}.get(status, "failed")
result = dict(stage=name, seconds=round(time.time() - float(start), 1), status=int(status), ended=ended)
if sum(tests.values()):
    result["tests"] = tests
json.dump(result, open(f"{out}/{name}.json", "w"), indent=1)
print(f"{name}: {ended}, {result['seconds']} s", *(f"{n} {o}" for o, n in tests.items() if n), flush=True)
PYTHON
}

# Ends a stage as skipped when a program is missing.
needs() {
  command -v "$1" >/dev/null && return
  echo "skipped: there is no $1 here"
  exit 77
}

facts() {
  echo "commit $(cat commit), needs $(cat glibc), has $(ldd --version | head -n 1)"
  ./showtell devices
  needs nvidia-smi
  nvidia-smi --query-gpu=name,driver_version,vbios_version,memory.total,clocks.sm,clocks.max.sm,clocks.mem,power.limit,ecc.mode.current --format=csv
  nvidia-smi -q
  ncu --version
  compute-sanitizer --version
  python3 -c 'import torch; print("torch", torch.__version__, torch.version.cuda, torch.backends.cudnn.version())'
  true
}

# A few pictures with captions, so that the program can train here: BMP files of 40x40 pixels.
pictures() {
  python3 - "$out/data" <<'PYTHON'
import os, random, struct, sys
random.seed(8)
folder = sys.argv[1]
os.makedirs(f"{folder}/Images", exist_ok=True)
captions = ["image,caption"]
for i in range(32):
    pixels = bytes(random.randrange(256) for _ in range(3 * 40 * 40))
    head = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54 + len(pixels), 0, 0, 54, 40, 40, 40, 1, 24, 0, len(pixels), 0, 0, 0, 0)
    open(f"{folder}/Images/{i}.bmp", "wb").write(head + pixels)
    captions += [f"{i}.bmp,a {word} picture number {i % 7}" for word in ("red", "small", "loud")]
open(f"{folder}/captions.txt", "w").write("\n".join(captions) + "\n")
PYTHON
}

# Trains a small captioner of this kind into the folder $out/$2.
train() {
  rm -rf "${out:?}/$2"
  ./showtell train --model "$1" --data "$out/data" --out "$out/$2" --device cuda --encoder-weights random --encoder-blocks 1,1 \
    --encoder-width 8 --image-size 32 --embed 24 --hidden 40 --batch-size 12 --epochs 2 --fine-tune --fine-tune-from 2 --seed 8
}

smoke() {
  pictures && train show-tell show-tell && train attend attend &&
    ./showtell eval --run "$out/attend" --data "$out/data" --device cuda --beam 3 &&
    ./showtell caption --run "$out/show-tell" --device cuda "$out/data/Images/1.bmp" "$out/data/Images/2.bmp"
}

# Two runs, and one from PTX, have the same bits: the tensors, whose bytes follow the header of a safetensors file.
determinism() {
  pictures && train attend first && train attend second && SHOWTELL_PTX=built-in train attend ptx || return 1
  python3 - "$out" <<'PYTHON'
import hashlib, sys
def tensors(run):
    data = open(f"{sys.argv[1]}/{run}/last.safetensors", "rb").read()
    return hashlib.sha256(data[8 + int.from_bytes(data[:8], "little"):]).hexdigest()
found = {run: tensors(run) for run in ("first", "second", "ptx")}
print(found)
sys.exit(len(set(found.values())) > 1)
PYTHON
}

# Small shapes and odd tails, under a tool of compute-sanitizer. Each test is a process of its own, those first whose kernels share
# the most: a stage that runs out of time has seen them.
sanitizer() {
  needs compute-sanitizer
  local test
  for test in op_lstm_devices::the_cell op_attention_devices::the_cuda_device op_cross_entropy::every_device op_gemm::parts_of_k \
    op_pool::max op_embedding::every_device op_gate::every_device op_optimiser::the_cuda_device op_clip::norm_on_every op_top_k::every_device op_add::sums_on \
    op_dropout::bf16 op_batch_norm_devices::every_device op_conv_devices::every_pass op_lstm_devices::a_step; do
    compute-sanitizer --tool "$1" --error-exitcode 9 ./tests/all --test-threads=1 --skip cost "$test" || return 1
  done
}

# Our times on cold caches, in one precision; each goes to OUT/criterion-PRECISION.
benches() {
  local precision="$1"
  shift
  export SHOWTELL_BENCH_GPU="$precision" CRITERION_HOME="$out/criterion-$precision"
  for filter in "$@"; do
    ./benches --bench --noplot --warm-up-time 0.2 --measurement-time 0.5 --sample-size 10 "$filter" || return 1
  done
}

# Every launch of a training step in this precision, and of one pass of an encoder: time, sectors, bytes.
kernels() {
  needs ncu
  local work limit
  for work in "training step/show-tell" "training step/attend" resnet50; do
    limit=1200
    [ "$work" = resnet50 ] && limit=80
    SHOWTELL_BENCH_GPU="$1" ncu --csv --page raw --print-units base --target-processes all --launch-count "$limit" \
      --clock-control none --cache-control none \
      --metrics gpu__time_duration.sum,lts__t_sectors.sum,dram__bytes.sum,smsp__inst_executed.sum \
      ./benches --noplot --test "$work" >"$out/kernels-$1-$(tr -c 'a-z0-9\n' - <<<"$work").csv" || return 1
  done
}

# What a launch, a node of a graph and a barrier cost.
latency() {
  needs nvcc
  nvcc -arch=native -O3 -std=c++17 latency.cu -o "$out/latency" && "$out/latency"
}

# Where a step, the encoder and captions spend their time, as the program shows it; `$1` are flags that make it small.
profiles() {
  local model precision
  for precision in tf32 bf16; do
    for model in show-tell attend; do
      # shellcheck disable=SC2086
      ./showtell profile step --device cuda --model "$model" --precision "$precision" $1 --trace "$out/trace-$model-$precision.json" || return 1
      ./showtell profile step --dry-run --model "$model" --precision "$precision" $1 | tail -3
    done
  done
  [ -n "$1" ] || { ./showtell profile encoder --device cuda --batch 32 && ./showtell profile caption --device cuda --batch 8; }
}

# The recipes on real photos, with encoders in full size and random weights: captions a second with all that a step needs.
recipes() {
  [ -n "${SHOWTELL_VISIT_DATA:-}" ] || {
    echo "skipped: SHOWTELL_VISIT_DATA names no data set"
    exit 77
  }
  local model
  for model in show-tell attend; do
    rm -rf "$out/recipe-$model"
    ./showtell train --model "$model" --data "$SHOWTELL_VISIT_DATA" --out "$out/recipe-$model" --device cuda \
      --encoder-weights random --epochs 6 --seed 8 || return 1
    rm -f "$out/recipe-$model/"*.safetensors
  done
  time ./showtell demo --device cuda --out "$out/demo"
  rm -f "$out/demo/"*.safetensors
}

export -f facts needs pictures train smoke determinism sanitizer benches kernels latency profiles recipes
export out
bash_stage() {
  local name="$1" limit="$2"
  shift 2
  stage "$name" "$limit" bash -c "$*"
}

bash_stage facts 20 facts
bash_stage smoke 60 smoke
if [ -n "$rehearsal" ]; then
  stage suite 120 ./tests/all op_add op_copy graph_replay device_cuda::launches
  stage benches-tf32 120 ./benches --test top_k
  SHOWTELL_BENCH_GPU=bf16 stage benches-bf16 120 ./benches --test 'cell/|gate/|step forward|regulariser'
  bash_stage determinism 60 determinism
  bash_stage profiles 120 profiles "'--batch 4 --length 4 --vocab 64'"
else
  stage suite 120 ./tests/all op_ device_cuda graph_replay nn_ parity step_arena own_decoder --test-threads 8
  SHOWTELL_PTX=built-in stage suite-ptx 60 ./tests/all op_ parity --test-threads 8
  bash_stage determinism 40 determinism
  bash_stage profiles 60 profiles "''"
  bash_stage latency 40 latency
  bash_stage benches-bf16 90 benches bf16 "'training step'" gemm/product resnet50 conv_forward lstm/ attention cross_entropy
  bash_stage benches-tf32 90 benches tf32 "'training step'" gemm/product conv_forward resnet50 lstm/ optimiser attention
  stage pytorch 60 python3 pytorch.py "$out"
  for tool in memcheck racecheck synccheck initcheck; do
    bash_stage "$tool" 45 sanitizer "$tool"
  done
  bash_stage kernels-tf32 60 kernels tf32
  bash_stage kernels-bf16 60 kernels bf16
  bash_stage recipes 60 recipes
fi
stage report 20 python3 report.py "$out"
cat "$out/report.log"
