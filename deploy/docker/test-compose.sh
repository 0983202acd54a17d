#!/usr/bin/env bash
# `docker compose up --build --wait` from this clone, a small demonstration against it, and a look at its report.
# In a project of its own, of which nothing is left. The ports are those of every stack, so no other may run.
# EVENTS=n takes more or fewer payments.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

export COMPOSE_PROJECT_NAME=headrace-test
# The demonstration comes by the usual ports.
unset "${!HEADRACE_PORT_@}"
events=${EVENTS:-5000}
report=.run/demo/report.json
python=.venv/bin/python

fail() { printf 'test-compose: %s\n' "$*" >&2; exit 1; }
say() { printf 'test-compose: %s\n' "$*"; }

[ -x .venv/bin/headrace ] || fail "there is no .venv with headrace in it: run \`make test-compose\`, which makes it"
"$python" -m deploy.docker check || fail "the stack cannot start, as the lines above say"

log=
remove() {
  local status=$?
  rm -f "$log"
  if [ "$status" -ne 0 ]; then
    echo "test-compose: the containers, and the end of their logs:" >&2
    docker compose ps --all >&2 || true
    docker compose logs --no-color --tail 15 2>&1 | cut -c -600 >&2 || true
  fi
  say "removing the containers and their data"
  docker compose down --volumes --remove-orphans --timeout 20 > /dev/null 2>&1 ||
    echo "test-compose: \`docker compose -p $COMPOSE_PROJECT_NAME down --volumes\` failed: run it by hand" >&2
  exit "$status"
}
trap remove EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say "docker compose up --build --wait (the first time takes some minutes)"
log=$(mktemp)
docker compose --progress plain up --build --detach --wait --wait-timeout 300 2>&1 | tee "$log" |
  grep --line-buffered -E '^#[0-9]+ \[.* RUN |^ *Container .* (Healthy|Exited)|Pulling$' |
  awk '!seen[$0]++ { print; fflush() }' ||
  { tail -n 30 "$log" >&2; fail "the stack did not become ready"; }
say "ready after $SECONDS s"

rm -f "$report"
say "a demonstration with $events payments"
# Slow enough that versions are published while it flows.
.venv/bin/headrace demo run --stack compose --events "$events" --rate 400 --keep || fail "the demonstration failed"
"$python" deploy/docker/check_report.py "$report" "$events" || fail "the report does not hold, as the lines above say"
say "passed after $SECONDS s: $events events, nothing missing, doubled, failed or different"
