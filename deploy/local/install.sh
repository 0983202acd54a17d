#!/bin/sh
# Install what the stack without Docker needs of Debian's packages: nothing where all of it is there already.
# Usage: deploy/local/install.sh      PYTHON names another python3, JAVA_HOME another Java.
set -eu

cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
# The environment, once it is made, says for good which Python the stack runs on.
[ -x .venv/bin/python ] && python=.venv/bin/python

missing=
need() { missing="$missing${missing:+ }$1"; }

if version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null); then
    "$python" -c 'import ensurepip, venv' 2>/dev/null || [ -x .venv/bin/pip ] || need python3-venv
    # Triton's Python backend loads it, whichever way this Python itself was built.
    found=no
    for directory in /usr/lib/*-linux-gnu /usr/lib /usr/lib64 /usr/local/lib /lib/*-linux-gnu; do
        [ -e "$directory/libpython$version.so.1.0" ] && found=yes
    done
    [ $found = yes ] || need "libpython$version"
else
    version=3.11
    need python3
    need python3-venv
    need libpython3.11
fi

java=java
[ -n "${JAVA_HOME:-}" ] && java=$JAVA_HOME/bin/java
# `openjdk version "17.0.15"`: the broker wants 17 or later.
java_version=$("$java" -version 2>&1 | sed -n '1s/.*version "\([0-9]*\).*/\1/p') || java_version=
[ "${java_version:-0}" -ge 17 ] || need openjdk-17-jre-headless
command -v mvn >/dev/null 2>&1 || need maven
command -v redis-server >/dev/null 2>&1 || need redis-server

if [ -z "$missing" ]; then
    echo "installed already: Python $version with venv and libpython, Java $java_version, Maven, redis-server"
    exit 0
fi

echo "The stack without Docker needs these packages, which are not installed: $missing"
line="apt-get update && apt-get install --yes --no-install-recommends $missing"
if ! command -v apt-get >/dev/null 2>&1; then
    echo "There is no apt-get here: install them the way this system does, then run this again." >&2
    exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "Only root may install them. Run this line, then the same command again:" >&2
    echo "    sudo sh -c '$line'" >&2
    exit 1
fi

echo "Installing them: $line"
export DEBIAN_FRONTEND=noninteractive
# The stack starts its own Redis; the package's service must not be started beside it. A policy that is already
# there is left alone.
policy=/usr/sbin/policy-rc.d
log=.cache/install.log
mkdir -p .cache
rm -f "$log.failed"
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
# Java's packages put links into a directory that minimal systems leave out.
mkdir -p /usr/share/man/man1

install() {
    # shellcheck disable=SC2086 # a list of packages
    apt-get update && apt-get install --yes --no-install-recommends -o APT::Status-Fd=3 $missing
}

# What apt says goes to the log; of its progress (`dlstatus:1:20.5:…`, `pmstatus:name:20.5:…`), a line every 25 %.
{ install || touch "$log.failed"; } 3>&1 >"$log" 2>&1 | {
    shown=
    while IFS=: read -r kind _ percent _; do
        case $kind in
            dlstatus) doing=fetched ;;
            pmstatus) doing=installed ;;
            *) continue ;;
        esac
        now="  $doing $((${percent%%.*} / 25 * 25)) %"
        [ "$now" = "$shown" ] || [ "${percent%%.*}" -lt 25 ] || echo "$now"
        shown=$now
    done
}
if [ -e "$log.failed" ]; then
    rm -f "$log.failed"
    echo "apt-get failed; $log ends with:" >&2
    tail -n 15 "$log" >&2
    exit 1
fi
echo "installed: $missing"
