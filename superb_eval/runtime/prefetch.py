"""Items computed ahead on threads, and handed over in their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetch(
    compute: Callable[[Item], Result], items: Iterable[Item], workers: int, threads_each: int = 1
) -> Generator[Result, None, None]:
    """Yield `compute(item)` for each item, in order, computed ahead by `workers` threads.

    At most `workers + 1` results wait to be drawn. Each worker's torch operations use `threads_each` threads. What
    `compute` raises is raised where its result is drawn. Close the generator to stop early.
    """
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads_each,))
    try:
        for item in items:
            waiting.append(pool.submit(compute, item))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
