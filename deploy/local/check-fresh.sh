#!/usr/bin/env bash
# Prove that a fresh Debian 12 with git, make, ca-certificates, python3 and root is enough: clone the committed HEAD
# into a new, minimal root and run there what README says. Needs root and mmdebstrap. Usage: make check-fresh
#   STEPS="demo test"   the make targets to run, in this order
#   EVENTS=n            how many payments `make demo` replays
#   KEEP_ROOT=1         leave the root, to look into it
#   CACHE=directory     keep what pip and Maven download there, and take it from there
#   ROOTS=directory     where to make the root (/var/tmp); it takes 5 GB
# The root gets this machine's way to the package registries: its certificates, proxies, and the settings of pip,
# Maven and apt. Everything that runs in it has process ids and mounts of its own, which end with it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

STEPS=${STEPS:-demo test}
CLONE=root/headrace
# The targets that do not start the stack, so that its ports do not matter.
WITHOUT_STACK=" help setup test-unit lint "

refuse() { printf 'check-fresh: %s\n' "$@" >&2; exit 2; }
say() { printf 'check-fresh: %s\n' "$*"; }

contained() { # COMMAND...: run it with mounts and processes that end with it, and it with this script
  unshare --mount --pid --fork --kill-child --propagation private "$@" &
  child=$!
  local status=0
  wait "$child" || status=$?
  child=
  return "$status"
}

inside() { # ROOT COMMAND...: run it in the root
  contained "${BASH_SOURCE[0]}" --inside "$@"
}

if [ "${1:-}" = --inside ]; then
  root=$2
  shift 2
  mount -t proc proc "$root/proc"
  mount -t sysfs -o ro sysfs "$root/sys"
  mount -t tmpfs -o mode=755 tmpfs "$root/dev"
  for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
  done
  mkdir "$root/dev/pts" "$root/dev/shm"
  mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
  mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
  ln -s pts/ptmx "$root/dev/ptmx"
  ln -s /proc/self/fd "$root/dev/fd"
  for number in 0:stdin 1:stdout 2:stderr; do
    ln -s "/proc/self/fd/${number%:*}" "$root/dev/${number#*:}"
  done
  if [ -n "${CACHE:-}" ]; then
    mkdir -p "$CACHE/pip" "$CACHE/maven" "$root/root/.cache/pip" "$root/root/.m2/repository"
    mount --bind "$CACHE/pip" "$root/root/.cache/pip"
    mount --bind "$CACHE/maven" "$root/root/.m2/repository"
  fi
  while read -r path; do
    mkdir -p "$root$path"
    mount --bind -o ro "$path" "$root$path"
  done < "$root/root/directories"
  mapfile -t variables < "$root/root/environment"
  status=0
  chroot "$root" /usr/bin/env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=C.UTF-8 TERM="${TERM:-dumb}" "${variables[@]}" "$@" || status=$?
  # All but this process itself: a target must leave none behind. What has ended but is not waited for yet counts
  # as ended.
  left=
  for directory in "$root"/proc/[0-9]*; do
    id=${directory##*/}
    [ "$id" != 1 ] && [ "$(sed -n 's/^State:\t\(.\).*/\1/p' "$directory/status" 2>/dev/null)" != Z ] || continue
    command=$(tr '\0' ' ' 2>/dev/null < "$directory/cmdline") || continue
    [ -z "$command" ] || left+="  $id: $command"$'\n'
  done
  if [ -n "$left" ]; then
    printf 'check-fresh: left running by `%s`:\n%s' "${*: -2}" "$left" >&2
    [ "$status" != 0 ] || status=1
  fi
  exit "$status"
fi

# Refuse what cannot work before anything is made.
[ "$(id -u)" -eq 0 ] || refuse "only root can make a root and change into it: sudo make check-fresh"
for program in mmdebstrap git unshare python3; do
  command -v "$program" > /dev/null || refuse "$program is missing: apt-get install mmdebstrap git util-linux python3"
done
if [ -n "${CACHE:-}" ]; then
  mkdir -p "$CACHE"
  CACHE=$(realpath "$CACHE")
  export CACHE
fi
for step in $STEPS; do
  [[ "$WITHOUT_STACK" != *" $step "* ]] || continue
  # Layout and process table are plain Python files, as nothing is installed here.
  taken=$(python3 - << 'PYTHON'
import runpy

ports = vars(runpy.run_path("deploy/local/layout.py")["Ports"]())
processes = runpy.run_path("deploy/local/processes.py")
numbers = {name: port for name, port in ports.items() if name != "operations"} | dict(ports["operations"])
for name, port in numbers.items():
    if not processes["port_is_free"](port):
        holder = processes["port_holder"](port)
        print(f"port {port} ({name}) is taken by {f'pid {holder.id} ({holder.command})' if holder else 'a process'}")
PYTHON
  )
  [ -z "$taken" ] || refuse "$taken" "the root shares this machine's network: run \`make down\` first" \
    "(STEPS=\"setup test-unit\" needs no port)"
  break
done
[ -z "$(git status --porcelain)" ] || say "what is not committed is not part of the check"

child=
# In a directory for this user alone: the root itself must be readable for the users in it.
made_for_this=$(mktemp --directory "${ROOTS:-/var/tmp}/headrace-fresh-XXXXXX")
root=$made_for_this/root
cleanup() {
  local status=$?
  trap - EXIT INT TERM
  if [ -n "$child" ]; then
    # The namespace's processes and mounts go with it.
    kill -KILL "$child" 2> /dev/null || true
    wait "$child" 2> /dev/null || true
  fi
  if [ "${KEEP_ROOT:-0}" != 0 ]; then
    say "the root is left at $root"
  else
    rm -rf --one-file-system "$made_for_this"
  fi
  exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The root: Debian 12 from the sources that this machine uses, where it is a Debian 12 too.
say "making a minimal Debian 12 in $root"
began=$SECONDS
sources=()
codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
if [ "$codename" = bookworm ]; then
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources; do
    [ ! -s "$file" ] || sources+=("$file")
  done
fi
aptopt=$made_for_this/apt.conf
apt-config dump 2> /dev/null | grep -E '^Acquire::(https?|Retries|Check|ForceIPv)' > "$aptopt" || true
made=0
contained mmdebstrap --quiet --mode=root --variant=minbase --include=git,make,ca-certificates,python3 \
  --aptopt="$aptopt" bookworm "$root" "${sources[@]}" || made=$?
[ "$made" = 0 ] || refuse "the root could not be made: mmdebstrap ended with status $made"

# This machine's way to the package registries.
carry() { [ ! -f "$1" ] || install -D --mode=600 "$1" "$root$2"; }
cp --dereference /etc/resolv.conf /etc/hosts "$root/etc/"
for certificate in /usr/local/share/ca-certificates/*.crt; do
  [ ! -f "$certificate" ] || install -D --mode=644 "$certificate" -t "$root/usr/local/share/ca-certificates"
done
home=/root
carry /etc/pip.conf /etc/pip.conf
carry "$HOME/.pip/pip.conf" "$home/.pip/pip.conf"
carry "${XDG_CONFIG_HOME:-$HOME/.config}/pip/pip.conf" "$home/.config/pip/pip.conf"
[ -z "${PIP_CONFIG_FILE:-}" ] || carry "$PIP_CONFIG_FILE" "$home/.config/pip/pip.conf"
carry "$HOME/.m2/settings.xml" "$home/.m2/settings.xml"
: > "$root/root/environment"
for name in http_proxy https_proxy all_proxy no_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY MAVEN_OPTS MAVEN_ARGS \
  PIP_{INDEX_URL,EXTRA_INDEX_URL,NO_INDEX,FIND_LINKS,TRUSTED_HOST,PROXY,CERT,CLIENT_CERT,DEFAULT_TIMEOUT,RETRIES}; do
  [ -z "${!name:-}" ] || printf '%s=%s\n' "$name" "${!name}" >> "$root/root/environment"
done
: > "$root/root/directories"
for path in ${PIP_FIND_LINKS:-}; do
  [ ! -d "$path" ] || printf '%s\n' "$path" >> "$root/root/directories"
done
for file in "${PIP_CERT:-}" "${PIP_CLIENT_CERT:-}"; do
  [ -z "$file" ] || [ -e "$root$file" ] || carry "$file" "$file"
done
log=$made_for_this/update-ca-certificates.log
inside "$root" update-ca-certificates > "$log" 2>&1 \
  || refuse "the certificates could not be taken over:" "$(cat "$log")"

git clone --quiet --no-local . "$root/$CLONE"
say "made, with a clone of $(git -C "$root/$CLONE" rev-parse --short HEAD), in $((SECONDS - began)) s"

took=()
for step in $STEPS; do
  say "make $step"
  began=$SECONDS
  status=0
  inside "$root" make -C "/$CLONE" "$step" ${EVENTS:+EVENTS="$EVENTS"} || status=$?
  seconds=$((SECONDS - began))
  if [ "$status" != 0 ]; then
    say "make $step failed with status $status after $seconds s" >&2
    exit 1
  fi
  if [ "$step" = demo ] && [ ! -s "$root/$CLONE/.run/demo/report.json" ]; then
    say "make demo ended well, but there is no report" >&2
    exit 1
  fi
  took+=("make $step: $seconds s")
done
say "passed on a fresh Debian 12"
printf '  %s\n' "${took[@]}"
