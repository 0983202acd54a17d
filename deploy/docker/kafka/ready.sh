#!/usr/bin/env bash
# The health check of the broker, inside its container: ask for its metadata, as a client does, and see that it names a
# broker that is alive. An open port alone says less: after a kill it opens before the broker may register again.
# The broker's own tools would start a Java for each question.
set -euo pipefail

exec 3<> /dev/tcp/127.0.0.1/9092
# Length 19; metadata request (3), version 1, correlation 1, client "ready"; an array of no topics.
printf '\0\0\0\023\0\003\0\001\0\0\0\001\0\005ready\0\0\0\0' >&3
# Length, correlation, number of brokers: 4 bytes each, of which the last has to be above 0.
answer=$(timeout 3 head -c 12 <&3 | od -An -tu1)
[ -n "$answer" ] || { echo "no answer to a metadata request"; exit 1; }
[ "${answer##* }" -gt 0 ] || { echo "no broker is alive"; exit 1; }
