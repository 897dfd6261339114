"""The benchmark runs at a tiny size: some kinds of objects, each job and each way; no figure is asserted."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from benchmarks import in_ray, ray_jobs

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_node")]

ROWS = 2000


@pytest.mark.parametrize("kind", in_ray.KINDS[3:5], ids=lambda kind: kind.name)
def test_a_kind_of_object_is_a_line_of_the_table(kind: Any) -> None:
    line = in_ray.row(kind, ROWS, tasks=1, rounds=1)
    three = r"-?[\d.]+ / -?[\d.]+ / -?[\d.]+"
    ratio = r"[\d.]+ \([\d.]+-[\d.]+\)"
    assert re.fullmatch(rf"\| {kind.name} \| {three} \| {three} \| {three} \| {three} \| {ratio} \|", line)


@pytest.mark.parametrize("job", ray_jobs._JOBS, ids=lambda job: job.name)
def test_a_job_has_the_same_results_each_way(job: Any) -> None:
    obj, workers = job.make(ROWS), job.start()
    results = [job.run(publish(obj), ROWS, workers) for publish in ray_jobs.WAYS.values()]
    assert np.asarray(results[0]).any()
    for result in results:
        np.testing.assert_allclose(result, results[0])
