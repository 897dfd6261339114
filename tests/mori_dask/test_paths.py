"""What travels on each path of Dask: a reference where the receiver opens it in this domain, else bytes.

The table below has every path; what is sent meanwhile is counted in all processes.
"""

import contextlib
import time
import uuid

import dask
import distributed.protocol
import numpy as np
import pandas as pd
import pytest
from dask.sizeof import sizeof
from dask.tokenize import tokenize
from distributed import Client, Queue, Variable, get_client, wait

import mori
import mori_dask
from mori.memory import mapping as mappings

_FEW = 60_000  # bytes of everything that is sent meanwhile, where references are
_ELEMENTS = 200_000


def look(x):
    """Return what a task sees: whether it is shared, under which name, and its sum."""
    values = x.to_numpy() if isinstance(x, pd.DataFrame) else np.asarray(x)
    mapping = mappings.held_by(values)
    return (
        mori.is_shared(x) or (mapping is not None and mapping.shared),
        mori.shared_name(x),
        float(values.sum()),
    )


@pytest.fixture
def array():
    return mori.share(np.arange(float(_ELEMENTS)))


@pytest.fixture
def frame():
    return mori.share(pd.DataFrame({"a": np.arange(50_000.0), "b": 1.0, "c": np.arange(50_000)}))


def count_what_is_sent() -> None:
    """Count in this process the bytes of the messages that it makes, from now on."""
    plain = distributed.protocol.dumps

    def counted(*args, **kwargs):
        frames = plain(*args, **kwargs)
        distributed.protocol.mori_sent += sum(memoryview(frame).nbytes for frame in frames)
        return frames

    counted._mori = True
    distributed.protocol.mori_sent = 0
    distributed.protocol.dumps = counted


def sent() -> int:
    return distributed.protocol.mori_sent


@pytest.fixture(scope="module")
def counted(client: Client):
    """Return a function that says how many bytes were sent so far, by all processes."""
    plain = distributed.protocol.dumps
    count_what_is_sent()
    client.run(count_what_is_sent)
    yield lambda: sent() + sum(client.run(sent).values())
    distributed.protocol.dumps = plain


def addresses(client: Client) -> list[str]:
    return sorted(client.nthreads())


def _made_there(client: Client, x, worker: int = 0):
    """Return a future of a worker's own object, with the values of `x`."""
    address = addresses(client)[worker]
    made = client.submit(lambda n: mori.share(np.arange(n)), x.size, workers=[address], pure=False)
    wait(made)
    return made


def submit(client, x):
    return client.submit(look, x, pure=False).result()


def map_(client, x):
    return client.gather(client.map(lambda x, i: look(x), [x] * 6, range(6), pure=False))[-1]


def map_with_a_keyword(client, x):
    return client.gather(client.map(lambda i, x: look(x), range(3), x=x, pure=False))[-1]


def delayed(client, x):
    return dask.delayed(look)(x).compute()


def persist(client, x):
    (kept,) = dask.persist(dask.delayed(x))
    return dask.delayed(look)(kept).compute()


def nested(client, x):
    return client.submit(lambda y: look(y["list"][0][1]), {"list": [(1, x)], "n": 1}, pure=False).result()


def captured_by_a_lambda(client, x):
    return client.submit(lambda: look(x), pure=False).result()


class Holder:
    def __init__(self, x):
        self.x = x

    def look(self):
        return look(self.x)

    def look_at(self, x):
        return look(x)

    def give(self):
        return self.x


def in_an_object(client, x):
    return client.submit(lambda holder: holder.look(), Holder(x), pure=False).result()


def scatter_directly(client, x):
    return client.submit(look, client.scatter(x, direct=True), pure=False).result()


def scatter_through_the_scheduler(client, x):
    return client.submit(look, client.scatter(x, direct=False, hash=False), pure=False).result()


def broadcast(client, x):
    return client.submit(look, client.scatter(x, broadcast=True, hash=False), pure=False).result()


def scatter_of_mori(client, x):
    return client.submit(look, mori_dask.scatter(client, x), pure=False).result()


def scatter_of_mori_through_the_scheduler(client, x):
    return client.submit(look, mori_dask.scatter(client, x, direct=False, hash=False), pure=False).result()


def scatter_in_a_task(client, x):
    def task():
        inner = get_client()
        return inner.submit(look, inner.scatter(mori.share(np.arange(float(_ELEMENTS)))), pure=False).result()

    return client.submit(task, pure=False).result()


def result_through_the_scheduler(client, x):
    return look(_made_there(client, x).result())


def result_gathered_directly(client, x):
    return look(client.gather(_made_there(client, x), direct=True))


def result_gathered_by_mori(client, x):
    return look(mori_dask.gather(client, _made_there(client, x)))


def result_in_an_object(client, x):
    made = client.submit(lambda n: Holder(mori.share(np.arange(n))), x.size, pure=False)
    return made.result().look()


def from_worker_to_worker(client, x):
    made = _made_there(client, x)
    return client.submit(look, made, workers=[addresses(client)[1]], pure=False).result()


def actors_constructor(client, x):
    return client.submit(Holder, x, actor=True, pure=False).result().look().result()


def actors_argument(client, x):
    return client.submit(Holder, 1, actor=True, pure=False).result().look_at(x).result()


def actors_result(client, x):
    return look(client.submit(Holder, x, actor=True, pure=False).result().give().result())


def argument_of_run(client, x):
    return next(iter(client.run(look, x).values()))


def result_of_run(client, x):
    made = _made_there(client, x)
    results = client.run(lambda dask_worker: dask_worker.data.get(made.key))
    return look(next(x for x in results.values() if x is not None))


def queue(client, x):
    queue = Queue(uuid.uuid4().hex, client=client)
    queue.put(x)
    return look(queue.get(timeout=10))


def variable(client, x):
    variable = Variable(uuid.uuid4().hex, client=client)
    variable.set(x)
    seen = look(variable.get(timeout=10))
    variable.delete()
    return seen


def published_dataset(client, x):
    client.publish_dataset(x, name="shared")
    seen = look(client.get_dataset("shared"))
    client.unpublish_dataset("shared")
    return seen


def published_future(client, x):
    client.publish_dataset(_made_there(client, x), name="future")
    seen = look(client.get_dataset("future").result())
    client.unpublish_dataset("future")
    return seen


def replicate(client, x):
    made = _made_there(client, x)
    client.replicate([made])
    return client.submit(look, made, workers=[addresses(client)[2]], pure=False).result()


def rebalance(client, x):
    made = _made_there(client, x)
    client.rebalance([made])
    return client.submit(look, made, pure=False).result()


def plain_view(client, x):
    return client.submit(look, np.asarray(x)[0:], pure=False).result()


def plain_view_scattered(client, x):
    return client.submit(look, client.scatter(np.asarray(x), direct=True, hash=False), pure=False).result()


def plain_frame(client, x):
    plain = pd.DataFrame(np.asarray(x).reshape(-1, 4), copy=False)
    return client.submit(look, plain, pure=False).result()


def frame_slice(client, x):
    rows = mori.share(pd.DataFrame({"a": np.asarray(x), "b": 0.0})).iloc[: len(x)]
    return client.submit(look, rows, pure=False).result()


def exception(client, x):
    def fail(x):
        raise ValueError(x)

    future = client.submit(fail, x, pure=False)
    wait(future)
    return look(future.exception().args[0])


def exception_of_a_dependency(client, x):
    def fail(x):
        raise ValueError(Holder(x))

    last = client.submit(len, client.submit(fail, x, pure=False), pure=False)
    with pytest.raises(ValueError, match="Holder") as caught:
        last.result()
    return caught.value.args[0].look()


def exception_of_run(client, x):
    def fail(x):
        raise ValueError(x)

    with pytest.raises(ValueError, match="\\[") as caught:
        client.run(fail, x)
    return look(caught.value.args[0])


def exception_of_an_actor(client, x):
    class Fails:
        def fail(self, x):
            raise ValueError(x)

    actor = client.submit(Fails, actor=True, pure=False).result()
    with pytest.raises(ValueError, match="\\[") as caught:
        actor.fail(x).result()
    return look(caught.value.args[0])


REFERENCE = [
    *(submit, map_, map_with_a_keyword, delayed, persist, nested, captured_by_a_lambda, in_an_object),
    *(scatter_directly, scatter_through_the_scheduler, broadcast, scatter_of_mori),
    *(scatter_of_mori_through_the_scheduler, scatter_in_a_task),
    *(result_through_the_scheduler, result_gathered_directly, result_gathered_by_mori, result_in_an_object),
    *(from_worker_to_worker, actors_constructor, actors_argument, actors_result),
    *(argument_of_run, result_of_run, queue, variable, published_dataset, published_future),
    *(replicate, rebalance, plain_view, plain_view_scattered, plain_frame, frame_slice),
    *(exception, exception_of_a_dependency, exception_of_run, exception_of_an_actor),
]


@pytest.mark.parametrize("path", REFERENCE, ids=lambda path: path.__name__.strip("_"))
def test_a_reference_travels(client: Client, counted, array, path):
    before = counted()
    shared, _, total = path(client, array)
    assert total == array.sum()
    assert shared
    assert counted() - before < _FEW


def test_the_bytes_of_what_is_not_shared_are_counted(client: Client, counted, array):
    before = counted()
    assert submit(client, np.array(array)) == (False, None, array.sum())
    assert counted() - before > array.nbytes


def test_the_region_keeps_its_name(client: Client, array, frame):
    assert client.submit(look, array).result()[1] == mori.shared_name(array)
    assert client.submit(look, frame).result()[:2] == (True, mori.shared_name(frame))
    assert client.submit(look, frame["c"]).result()[:2] == (True, mori.shared_name(frame["c"]))
    assert client.submit(look, array[10:20]).result() == (True, None, array[10:20].sum())
    assert client.submit(mori.is_shared, frame.iloc[10:20]["a"]).result()


def test_a_shared_container_is_neither_walked_nor_read(client: Client):
    shared = mori.share({i: [i, {"b": np.arange(3)}] for i in range(1000)})

    def see(x):
        return type(x).__name__, x[2][1]["b"].tolist(), mori.shared_name(x)

    assert client.submit(see, shared).result() == ("SharedDict", [0, 1, 2], mori.shared_name(shared))


_SMALL = {
    "SmallList": [np.arange(10_000.0), "text", 1],
    "SmallDict": {"a": np.arange(10_000.0), "b": "text"},
    "SmallTuple": (np.arange(10_000.0), "text", 1),
    "SmallSet": {f"text {i} " + "x" * 500 for i in range(60)},
    "SmallFrozenSet": frozenset(f"text {i} " + "x" * 500 for i in range(60)),
}


@pytest.mark.parametrize("name", _SMALL)
def test_a_small_container_is_one_shared_object_on_every_way(client: Client, counted, name):
    shared = mori.share(_SMALL[name])

    def see(x):
        return type(x).__name__, len(x), mori.shared_name(x)

    seen = name, len(shared), mori.shared_name(shared)
    before = counted()
    assert client.submit(see, shared, pure=False).result() == seen
    assert client.submit(see, x=shared, pure=False).result() == seen
    assert client.map(see, [shared], pure=False)[0].result() == seen
    assert client.submit(lambda x: see(x["in"]), {"in": shared}, pure=False).result() == seen
    assert dask.delayed(see)(shared).compute() == seen
    future = client.scatter(shared)
    assert client.submit(see, future, pure=False).result() == seen
    assert client.submit(see, mori_dask.scatter(client, shared), pure=False).result() == seen
    back = client.submit(lambda x: x, shared, pure=False).result()
    assert (type(back).__name__, len(back), mori.shared_name(back)) == seen
    assert counted() - before < 2 * _FEW
    assert sizeof(shared) < 1000


def test_a_small_container_that_was_written_to_arrives_as_it_is_now(client: Client):
    for obj, write in (([1, 2], lambda x: x.append(3)), ({"a": 1}, lambda x: x.update(b=2))):
        shared = mori.share(obj)
        before = tokenize(shared)
        write(shared)
        write(obj)
        assert tokenize(shared) == tokenize(obj) != before
        assert client.submit(lambda x: (type(x), x), shared).result() == (type(obj), obj)


def test_a_shared_result_that_the_scheduler_passes_on_comes_whole(client: Client):
    for count, kind in ((1, dict), (1000, mori.SharedDict)):
        made = client.submit(
            lambda count: mori.share({i: (np.arange(1000), [1, "two"]) for i in range(count)}),
            count,
            pure=False,
        )
        result = made.result()
        assert isinstance(result, kind)
        assert mori.is_shared(result)
        np.testing.assert_array_equal(result[0][0], np.arange(1000))
        assert result[0][1] == [1, "two"]


def test_a_dataset_outlives_who_published_it(client: Client):
    with Client(client.scheduler.address, set_as_default=False) as other:
        array = mori.share(np.arange(1000.0))
        other.publish_dataset(array, name="left")
        name = mori.shared_name(array)
        del array
    time.sleep(0.5)  # longer than the grace
    with contextlib.ExitStack() as stack:
        stack.callback(client.unpublish_dataset, "left")
        assert look(client.get_dataset("left")) == (True, name, 499500)


def test_a_view_of_a_region_is_read_only_where_it_arrives(client: Client, array):
    def write(x):
        x[0] = 1

    with pytest.raises(ValueError, match="read-only"):
        client.submit(write, np.asarray(array)[5:], pure=False).result()


def test_an_array_that_was_written_to_travels_with_its_new_values(client: Client, array):
    array[0] = -1
    assert client.submit(lambda x: (mori.is_shared(x), x[0], x[1]), array).result() == (False, -1, 1)


def test_the_graph_of_a_shared_object_is_small(client: Client, array):
    from dask._expr import HLGExpr
    from dask._task_spec import Task
    from dask.highlevelgraph import HighLevelGraph
    from distributed.protocol.serialize import serialize, to_serialize

    graph = HLGExpr(HighLevelGraph.from_collections("x", {"x": Task("x", look, array)}))
    _, frames = serialize(to_serialize(graph), on_error="raise")
    assert sum(len(frame) for frame in frames) < 3000 < array.nbytes


def test_inside_by_value_a_graph_carries_bytes(client: Client, array, counted):
    before = counted()
    with mori.by_value():
        future = client.submit(look, array, pure=False)
    assert future.result()[-1] == np.arange(_ELEMENTS).sum()
    assert counted() - before > array.nbytes
