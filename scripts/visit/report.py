"""The last stage of a visit: `report.py OUT` prints what failed and our times beside PyTorch's, and writes OUT/report.md."""

import collections
import csv
import glob
import json
import os
import sys

out = sys.argv[1]


def ours():
    """Medians in microseconds by precision and name, from what criterion has left."""
    found = {}
    for path in glob.glob(f"{out}/criterion-*/**/new/estimates.json", recursive=True):
        precision = os.path.relpath(path, out).split("/")[0].removeprefix("criterion-")
        about = json.load(open(path.replace("estimates.json", "benchmark.json")))
        median = json.load(open(path))["median"]["point_estimate"]
        found[f"{precision} {about['full_id']}"] = median / 1000
    return found


def stages():
    found = [json.load(open(path)) for path in glob.glob(f"{out}/*.json")]
    return sorted((stage for stage in found if "stage" in stage), key=lambda stage: stage["stage"])


def table(ours, theirs):
    """Rows by the microseconds that we lose to PyTorch, most first."""
    key = lambda name: ours[name] - theirs.get(name, ours[name])
    for name in sorted(ours, key=key, reverse=True):
        peer = theirs.get(name)
        beside = f"{peer:.1f} | {ours[name] / peer:.2f}" if peer else " | "
        yield f"| {name} | {ours[name]:.1f} | {beside} |"


def kernels(path):
    """The launches that ncu saw, summed by kernel: a table, the most time first."""
    lines = [line for line in open(path, errors="replace") if line.startswith('"')]
    sums = collections.defaultdict(lambda: [0, 0.0, 0.0, 0.0])
    for row in list(csv.DictReader(lines))[1:]:
        number = lambda metric: float(row.get(metric, "").replace(",", "") or "nan")
        about = sums[row["Kernel Name"].split("(")[0]]
        about[0] += 1
        about[1] += number("gpu__time_duration.sum") / 1e3
        about[2] += number("lts__t_sectors.sum") * 32e-6
        about[3] += number("dram__bytes.sum") / 1e6
    columns = list(zip(*sums.values())) or [(0,)] * 4
    rows = [("all", list(map(sum, columns))), *sorted(sums.items(), key=lambda one: -one[1][1])]
    yield f"| {os.path.basename(path).removesuffix('.csv')} | launches | µs | µs each | MB of L2 | MB of memory |"
    yield "|---|---|---|---|---|---|"
    for name, (launches, time, l2, memory) in rows:
        yield f"| {name} | {launches} | {time:.1f} | {time / max(launches, 1):.2f} | {l2:.0f} | {memory:.0f} |"


times = f"{out}/pytorch-times.json"
theirs = json.load(open(times)) if os.path.exists(times) else {}
lines = ["| stage | | s | tests |", "|---|---|---|---|"]
for stage in stages():
    tests = ", ".join(f"{count} {outcome}" for outcome, count in stage.get("tests", {}).items())
    lines.append(f"| {stage['stage']} | {stage['ended']} | {stage['seconds']} | {tests} |")
lines += ["", "| work | ours, µs | PyTorch, µs | ours / PyTorch |", "|---|---|---|---|", *table(ours(), theirs)]
for path in sorted(glob.glob(f"{out}/kernels-*.csv")):
    lines += ["", *kernels(path)]
text = "\n".join(lines) + "\n"
print(text)
open(f"{out}/report.md", "w").write(text)
