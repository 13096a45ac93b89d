"""``python -m secagg.overhead.server_role serve``: what the server does with a measured round's updates.

By the same calls, in the same worker processes, from and to files. The service around them (gRPC, journal) is
not there.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from statistics import median
from time import perf_counter

from secagg.ckks.context import ring_of
from secagg.ckks.profiles import profile
from secagg.overhead.processes import family_peak_mib, own_peak_mib, play
from secagg.overhead.task import Task
from secagg.server import work
from secagg.server.spool import digest_of
from secagg.server.workers import Workers


def serve(text: str) -> dict[str, object]:
    """Check every client's payload, then sum them."""
    return asyncio.run(_serve(Task.from_json(text)))


async def _serve(task: Task) -> dict[str, object]:
    baseline, workers = own_peak_mib(), Workers(task.workers)
    try:
        await workers.warm_up()
        sums = _sum_job(task)
        digests = {path: digest_of(path) for path in set(sums.paths)}
        await asyncio.gather(*(workers.run(make_ready, sums.round) for _ in range(workers.count)))
        checks, additions = [], []
        for _ in range(task.repeat):
            started = perf_counter()
            await _check(workers, sums, digests)
            checks.append(perf_counter() - started)
            started = perf_counter()
            await _sum(workers, sums, task)
            additions.append(perf_counter() - started)
        return {
            "check_s": median(checks),
            "sum_s": median(additions),
            "peak_mib": family_peak_mib(),
            "baseline_mib": baseline,
        }
    finally:
        workers.close()


def _sum_job(task: Task) -> work.SumJob:
    updates = [task.update_of(client) for client in range(task.clients)]
    plan = task.plan(payload_bytes=task.payload_path(0).stat().st_size)
    scales = task.scales()
    return work.SumJob(
        round=work.RoundJob(plan=plan, federation_id=bytes(16), mask_path=task.mask_path),
        paths=tuple(task.payload_path(update) for update in updates),
        weights=tuple(task.sample_counts[update] for update in updates),
        scales=scales.to_bytes() if scales is not None else b"",
    )


async def _check(workers: Workers, sums: work.SumJob, digests: dict[Path, bytes]) -> None:
    await asyncio.gather(
        *(workers.run(work.check_update, sums.round, path, digests[path]) for path in sums.paths)
    )


async def _sum(workers: Workers, sums: work.SumJob, task: Task) -> None:
    out, parts = task.aggregate_path, workers.count
    await workers.run(work.begin_aggregate, sums, out)
    await asyncio.gather(*(workers.run(work.sum_part, sums, out, part, parts) for part in range(parts)))


def make_ready(job: work.RoundJob) -> None:
    """Has a worker process make layout and ring, which it keeps for the round."""
    work.payload_bytes(job)
    ring_of(profile(job.plan.profile))


if __name__ == "__main__":
    play({"serve": serve})
