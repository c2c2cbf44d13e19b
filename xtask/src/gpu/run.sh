#!/usr/bin/env bash
# Runs what `cargo xtask gpu` packed: the device list, `verify`, the tests and the benchmark beside
# PyTorch, in under nine minutes, on a machine with the device's driver and Python with PyTorch.
#
#   OUT=./out bash run.sh
#
# Writes $OUT/results.json, $OUT/log.txt and what each part says. A part that fails, or outruns its
# time, fails the whole; the next part runs all the same.
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
OUT=${OUT:-$PWD/out}
mkdir -p "$OUT" && OUT=$(cd "$OUT" && pwd) || exit 1
device=$(<"$here/device")
python=${PYTHON:-python3}
budget=530 # seconds in all; the tests and the benchmark get what the parts before them leave
failed=0
: >"$OUT/parts.tsv"

# part NAME SECONDS COMMAND...: the command's standard output goes to $OUT/NAME, and to the log.
part() {
    local name=$1 limit=$2 start=$SECONDS rc
    shift 2
    ((limit > budget - SECONDS)) && limit=$((budget - SECONDS))
    ((limit < 1)) && limit=1
    printf '\n[%s, at most %d s]\n' "$name" "$limit"
    timeout --kill-after=5 "$limit" "$@" >"$OUT/$name"
    rc=$?
    cat "$OUT/$name"
    ((rc == 124 || rc == 137)) && echo "[$name] stopped after $limit s"
    ((rc == 0)) || failed=1
    printf '%s\t%d\t%d\t%d\n' "$name" "$rc" "$((SECONDS - start))" "$limit" >>"$OUT/parts.tsv"
    echo "[$name] exit code $rc after $((SECONDS - start)) s"
}

# Short programs for the machine's Python; `timeout` runs no shell function.
unpack='
import sys, tarfile
with tarfile.open(sys.argv[1], "r:xz") as pack:
    pack.extractall(sys.argv[2])
'
# The device must have been found: `devices` itself succeeds without any.
found='
import json, sys
row = [row for row in json.load(open(sys.argv[1])) if row["name"] == sys.argv[2]]
if not row or not row[0].get("found"):
    sys.exit("%s was not found: %s" % (sys.argv[2], row and row[0].get("hint")))
print(json.dumps(row[0]["found"]))
'
# Flags that leave out the test cases of every other device, and so keep those without a device.
others='
import json, sys
for row in json.load(open(sys.argv[1])):
    if row["name"] != sys.argv[2]:
        for number in range(1, 10):
            print("--skip")
            print("::case_%d_%s" % (number, row["name"]))
'

# 151M parameters: activations, and PyTorch's logits of 100,352 words, take about 3 GiB for each 1,024 tokens.
shapes() {
    local mib
    [[ $device == cuda ]] || { echo demo && return; }
    mib=$(nvidia-smi --query-gpu=memory.total --format=csv,noheader,nounits 2>/dev/null | head -n 1)
    [[ $mib =~ ^[0-9]+$ ]] || mib=16384
    local short=$((mib / 1024 / 4)) long=$((mib / 1024 / 16))
    echo "6m 151m:seq=1024,batch=$((short > 0 ? short : 1)) 151m:seq=4096,batch=$((long > 0 ? long : 1))"
}

results() {
    "$python" - "$OUT" "$device" "$failed" "$SECONDS" <<'PYTHON'
import json, os, re, subprocess, sys, time
out, device, failed, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
def text(name):
    try:
        with open(os.path.join(out, name), errors="replace") as file:
            return file.read()
    except OSError:
        return ""
def parsed(name):
    body = text(name)
    for candidate in (body, (body.strip().splitlines() or [""])[-1]):
        try:
            return json.loads(candidate)
        except ValueError:
            pass
    return None
def gpu():
    try:
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        return subprocess.run(query, capture_output=True, text=True, timeout=20).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None
parts = [line.split("\t") for line in text("parts.tsv").splitlines()]
tests = re.search(r"^test result: .*$", text("tests.txt"), re.M)
results = {
    "device": device, "gpu": gpu(), "passed": not failed, "seconds": seconds,
    "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    "parts": {name: {"exit_code": int(rc), "seconds": int(took), "limit": int(limit)} for name, rc, took, limit in parts},
    "devices": parsed("devices.json"), "verify": parsed("verify.json"), "bench": parsed("bench.json"),
    "tests": {"closing_line": tests and tests.group(0),
              "failed": sorted(set(re.findall(r"^test (\S+) \.\.\. FAILED", text("tests.txt"), re.M)))},
}
with open(os.path.join(out, "results.json"), "w") as file:
    json.dump(results, file, indent=1)
    file.write("\n")
PYTHON
}

main() {
    local skips=() chosen=() fusion=() work program rest root link=
    work=$(mktemp -d) || return 1
    part unpack.txt 30 "$python" -c "$unpack" "$here/pack.tar.xz" "$work"
    program=$work/bin/hybridnorm-train
    export LD_LIBRARY_PATH="$work/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    # The tests look for their files where they were built; here, a link stands in for that place.
    if root=$(cat "$work/root") && [[ ! -e $root ]] && mkdir -p "$(dirname "$root")"; then
        ln -s "$work" "$root" && link=$root
    fi

    part devices.json 30 "$program" devices --json
    part found.txt 10 "$python" -c "$found" "$OUT/devices.json" "$device"
    # `verify` refuses the flag for a device that compiles no kernels.
    [[ $device == cuda ]] && fusion=(--fusion both)
    part verify.json 100 "$program" verify --reference "$work/crates/hybridnorm-train/reference" \
        --device "$device" "${fusion[@]}" --json

    mapfile -t skips < <("$python" -c "$others" "$OUT/devices.json" "$device")
    cd "$work/crates/hybridnorm-train" || failed=1
    # One thread: a kernel's error surfaces where a result is next read, so two tests at once could
    # blame each other, and autotune would measure kernels beside a neighbour's.
    part tests.txt 200 "$work/bin/tests" --test-threads=1 "${skips[@]}"

    cd "$work" || failed=1
    read -ra chosen <<<"$(shapes)"
    # Beside PyTorch is the point of it on a GPU; elsewhere its column may stay empty.
    [[ $device == cuda ]] && chosen+=(--require-torch)
    rest=$((budget - SECONDS))
    # It starts no run in its last quarter, so as to end by itself with a table.
    part bench.md "$rest" "$work/bin/xtask" bench "${chosen[@]}" --program "$program" --device "$device" \
        --python "$python" --time-limit $((rest * 3 / 4)) --json "$OUT/bench.json"

    results || failed=1
    [[ -n $link ]] && rm -f "$link"
    rm -rf "$work"
    printf '\n%s\n' "$(column -t "$OUT/parts.tsv" 2>/dev/null || cat "$OUT/parts.tsv")"
    if ((failed)); then echo "FAILED, in $SECONDS s"; else echo "passed in $SECONDS s"; fi
    return "$failed"
}

main 2>&1 | tee "$OUT/log.txt"
exit "${PIPESTATUS[0]}"
