"""Two clients, of whom one floods the service: the other hardly notices."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tests.load.client import LoadClient, Reply
from tests.load.service import MODEL, Service, wait_for
from tests.load.test_load import some_text

FLOOD, GOOD = "flood-key-0123456789", "good-key-0123456789"
#: Requests of the flooding client at a time, each for so many prompts and so many answers to each.
FLOODS, PROMPTS, ANSWERS = 4, 16, 8
#: Requests of the other, one after the other, and of 100 how many count.
ASKED, PERCENT = 100, 95
#: How much longer its first token may take than without the flood.
LONGER = 3


def first_tokens(client: LoadClient) -> float:
    """Seconds to the first token that so many percent of the requests do not exceed."""
    took: list[float] = []
    for number in range(ASKED):
        reply, began = Reply(), time.monotonic()
        with closing(client.stream(reply, some_text(random.Random(number)), 16, ignore_eos=True)) as stream:  # noqa: S311
            next(stream)
            took.append(time.monotonic() - began)
            for _ in stream:
                pass
        assert reply.complete(16)
    return sorted(took)[ASKED * PERCENT // 100 - 1]


@pytest.mark.parametrize("engine", ["openvino", "bigdl"])
def test_a_flood_is_its_own_client_s_alone(tmp_path: Path, engine: str) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"flood {FLOOD}\ngood {GOOD}\n")
    keys.chmod(0o600)
    service = Service(tmp_path, engine, batch_requests=8, queue_requests=256, api_keys_file=str(keys))
    over = threading.Event()
    with ThreadPoolExecutor(FLOODS) as pool, service.running() as client:
        client.key = GOOD
        flooding = LoadClient(client.port, MODEL)
        flooding.key = FLOOD

        def flood(number: int) -> None:
            chance = random.Random(number)  # noqa: S311
            while not over.is_set():
                flooding.ask([some_text(chance) for _ in range(PROMPTS)], 64, n=ANSWERS)  # or is refused
                over.wait(0.05)

        first_tokens(client)
        alone = first_tokens(client)
        floods = [pool.submit(flood, number) for number in range(FLOODS)]
        try:
            wait_for(lambda: client.metrics()["vllm:num_requests_waiting"] > PROMPTS * ANSWERS / 2)
            beside = first_tokens(client)
            assert client.metrics()["vllm:num_requests_waiting"]  # it was flooded to the end
        finally:
            over.set()
            service.stop()
        print(f"first token, p{PERCENT}: alone {alone:.3f} s, beside a flood {beside:.3f} s")
        for each in floods:
            each.result()
        assert beside <= LONGER * alone
