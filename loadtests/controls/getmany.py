"""Control: aiokafka's `getmany` alone, reading all records of a topic and doing nothing with them.

`python -m loadtests.controls.getmany BOOTSTRAP TOPIC RECORDS BATCH` prints records, wall and CPU seconds as JSON.
"""

from __future__ import annotations

import json
import sys
import time

import uvloop

from headrace.platform import kafka
from headrace.platform.kafka import KafkaAdmin, TopicPartition


async def main(bootstrap: str, topic: str, records: int, batch: int) -> None:
    """Read and count."""
    async with KafkaAdmin(bootstrap) as admin:
        count = (await admin.partitions([topic]))[topic]
    partitions = [TopicPartition(topic, partition) for partition in range(count)]
    async with kafka.consumer(bootstrap, partitions=partitions) as consumer:
        await consumer.getone()  # connecting does not count
        wall, cpu, read = time.perf_counter(), time.process_time(), 0
        while read < records - 1:
            read += sum(map(len, (await consumer.getmany(timeout_ms=100, max_records=batch)).values()))
        spent = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    print(json.dumps({"records": read, **spent}))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
