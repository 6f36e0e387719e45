"""`kill -9` while results are being saved: what was said to be stored is stored, and nothing is half there."""

import random
import subprocess
import time
from collections.abc import Callable
from typing import Any

from interbasis.service.store.store import Store

KILLS = 10


def test_killed_while_saving(place: Any, saver: Callable[..., subprocess.Popen[str]]) -> None:
    if place.kind == "postgresql":
        Store.upgrade(place.url)
    random_number = random.Random(0)
    reported: list[str] = []
    processes = [saver(place, 1000 * number, 1000) for number in range(2)]
    for number in range(KILLS):
        if number + 2 < KILLS:
            processes.append(saver(place, 1000 * (number + 2), 1000))  # imports while the other one works
        process = processes[number]
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("go\n")
        process.stdin.flush()
        if number % 2:  # the others are killed while they open the store, or a little later
            reported.append(process.stdout.readline().strip())
        time.sleep(random_number.uniform(0.0, 0.3))
        assert process.poll() is None
        process.kill()
        reported += [line.strip() for line in process.stdout.read().splitlines() if line.startswith("g-")]

    with place.open() as store:
        report = store.check()
        assert report.ok, report.problems
        stored, cursor = [], None
        while True:
            page = store.graphs(limit=1000, cursor=cursor)
            stored += [graph.id for graph in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert len(stored) >= KILLS // 2
        assert set(reported) <= set(stored)
        for graph in stored:
            assert len(store.graph_bytes(graph)) >= 1000
        for partition in store.partitions(limit=1000).items:
            assert len(store.nodes(partition.id)) == 9
            assert len(store.get_partition(partition.id).modules) == 2
            assert store.partition_bytes(partition.id)
        assert all("file" in line for line in report.uncollected)
