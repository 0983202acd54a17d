#!/usr/bin/env bash
# Write every lock file of this folder from pyproject.toml and the .in files: `make lock`.
# Versions that are locked already are kept; `make lock UPGRADE=1` takes the newest that pyproject.toml allows.
# A lock has versions and hashes, and never the address that a file was fetched from.
set -euo pipefail
cd "$(dirname "$0")/.."

mapfile -t extras < <(.venv/bin/python -c 'import tomllib
print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"], sep="\n")')
upgrade=()
[ "${UPGRADE:-0}" = 0 ] || upgrade=(--upgrade)

compile() { # LOCK ARGUMENTS...
  local lock=requirements/$1
  shift
  echo "locking $lock"
  # shellcheck disable=SC2001 # the address is in the middle of a line
  .venv/bin/uv pip compile --quiet --python .venv/bin/python --generate-hashes --no-emit-index-url \
    --no-emit-find-links --no-header --no-annotate --output-file "$lock" "$@" \
    > /dev/null 2> >(sed -E 's#[a-z+]+://[^[:space:]]+#(address)#g' >&2)
}

# dev.txt has everything; the others are parts of it, so that no two files name two versions of one package.
compile dev.txt "${upgrade[@]}" --all-extras --group dev pyproject.toml
compile all.txt --constraints requirements/dev.txt --all-extras --group build pyproject.toml
for extra in "${extras[@]}"; do
  compile "$extra.txt" --constraints requirements/dev.txt --extra "$extra" --group build pyproject.toml
done
compile triton.txt "${upgrade[@]}" requirements/triton.in
compile tritonserver.txt "${upgrade[@]}" --no-deps requirements/tritonserver.in
compile bench.txt "${upgrade[@]}" requirements/bench.in
compile bench-mlserver.txt "${upgrade[@]}" requirements/bench-mlserver.in
compile mlflow-server.txt "${upgrade[@]}" requirements/mlflow-server.in
