#!/usr/bin/env bash
# The package on one GPU or TPU, in at most eight minutes: versions, nano.py, the quick proofs, steps and
# texts timed, training timed. Each part leaves a log and is not run again once it has succeeded, so the
# script can be called until all are done. It needs JAX for the accelerator and what pyproject.toml asks for.
#
#     OUT=runs/accelerator PYTHON=python studies/accelerator.sh
#     TINY=1 studies/accelerator.sh      # a try on a CPU: few proofs, few rounds
set -u
cd "$(dirname "$0")/.."
OUT=${OUT:-runs/accelerator}
PYTHON=${PYTHON:-python}
mkdir -p "$OUT"

# part NAME SECONDS COMMAND...: run it within so many seconds, unless it has succeeded before.
part() {
    local name=$1 limit=$2 began=$SECONDS status=0
    shift 2
    if [[ -e $OUT/$name.ok ]]; then return; fi
    timeout "$limit" "$@" >"$OUT/$name.log" 2>&1 || status=$?
    if [[ $status == 0 ]]; then touch "$OUT/$name.ok"; fi
    printf '%-10s status %3d, %4d s: %s\n' "$name" $status $((SECONDS - began)) "$(tail -n 1 "$OUT/$name.log")"
}

rounds=10 proofs="not distribution or speculative"
if [[ -n ${TINY:-} ]]; then rounds=1 proofs="rollback"; fi

part device 60 "$PYTHON" -c 'import jax, sys; print(sys.version.split()[0], jax.__version__, jax.devices())'
part nano 150 "$PYTHON" -m tandem_edu.nano
# Exact equality is promised for full float32 products; XLA's default on a GPU or TPU is coarser.
part proofs 200 env JAX_DEFAULT_MATMUL_PRECISION=highest "$PYTHON" -m pytest -q -p no:cacheprovider \
    -m "not slow" -k "$proofs" tests/model tests/drafters tests/decode
part steps 200 "$PYTHON" -m studies steps --repetitions "$rounds" --work "$OUT"
part training 120 "$PYTHON" -m studies training --repetitions "$rounds" --work "$OUT"
ls "$OUT"
