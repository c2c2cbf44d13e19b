#!/bin/sh
# The reproduction of docs/reproduction.md: run.sh PROGRAM OUT [NAME..]. Continues where it was stopped.
# One thread a process is the fastest way to many small runs: start it twice with different names to use two cores.
set -eu
program=$1 out=$2
shift 2
[ $# -gt 0 ] || set -- placements inits first-block qk-post depth sparse
configs=$(cd "$(dirname "$0")" && pwd)/configs
export RAYON_NUM_THREADS="${RAYON_NUM_THREADS:-1}"
for name in "$@"; do
    case $name in
    placements) flags="--config $configs/small.toml --placements pre,post,pre-qk,mix-ln,deepnorm,sandwich,output-norm,qkv-pre,hybrid,hybrid-star" ;;
    placements-medium) flags="--config $configs/medium.toml --placements pre,post,pre-qk,mix-ln,deepnorm,sandwich,output-norm,qkv-pre,hybrid,hybrid-star" ;;
    inits) flags="--config $configs/small.toml --placements pre,hybrid --inits normal,depth-scaled,megatron" ;;
    first-block) flags="--config $configs/small.toml --placements hybrid,hybrid-star,first-qkv-pre,hybrid-embed-norm" ;;
    qk-post) flags="--config $configs/small.toml --placements hybrid,qk-post --learning-rates 4e-3,1.6e-2" ;;
    depth) flags="--config $configs/deep.toml --placements pre,post,hybrid,hybrid-star --depths 4,24 --learning-rates 1e-3,8e-3" ;;
    sparse) flags="--config $configs/sparse.toml --placements pre,hybrid-star" ;;
    *) echo "no comparison named $name" >&2; exit 2 ;;
    esac
    # shellcheck disable=SC2086
    "$program" compare $flags --seeds "${SEEDS:-3}" --device flex --out "$out/$name"
done
