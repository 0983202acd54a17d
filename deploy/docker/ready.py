"""The health check of a service in its container: `ready.py PORT` ends with 0 if /readyz is answered with 200.

On failure it prints what /readyz says, which `docker inspect` then shows. It runs every few seconds in each container,
so it takes the standard library alone.
"""

import http.client
import sys

PATIENCE_S = 4.0
LONGEST_ANSWER = 2_000


def main(port: int) -> int:
    """Ask the service on this port of the container whether it is ready, and return the exit status."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        text = answer.read(LONGEST_ANSWER).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        text, ready = f"no answer: {error}", False
    else:
        ready = answer.status == http.client.OK
    finally:
        connection.close()
    sys.stdout.write(f"{text.strip()}\n")
    return 0 if ready else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
