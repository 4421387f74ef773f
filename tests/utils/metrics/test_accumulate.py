import numpy as np
import pytest
import torch

from utils.metrics import ImageTable, RunningSum

KEYS = torch.tensor([5, 3, 9, 1, 7])
VALUES = torch.tensor([0.5, 0.3, 0.9, 0.1, 0.7], dtype=torch.float64)


def table_of(*batches):
    table = ImageTable(["ged16"])
    for batch in batches:
        table.update(KEYS[batch], {"ged16": VALUES[batch]})
    return table


@pytest.mark.parametrize("batches", [[[0, 1, 2, 3, 4]], [[4], [3, 2], [1, 0]], [[0, 1], [2, 3], [4, 0]]])
def test_table_ignores_batches_order_and_repeats(batches):
    columns = table_of(*batches).compute()
    assert columns["key"].tolist() == [1, 3, 5, 7, 9]
    assert columns["ged16"].tolist() == [0.1, 0.3, 0.5, 0.7, 0.9]


def test_table_of_one_image_and_of_none():
    assert table_of([0]).compute()["ged16"].shape == (1,)
    table = table_of([0, 1])
    table.reset()
    table.update(KEYS[:0], {"ged16": VALUES[:0]})
    assert table.compute()["key"].shape == (0,)


def test_table_can_grow_after_compute():
    table = table_of([0])
    table.compute()
    table.update(KEYS[1:2], {"ged16": VALUES[1:2]})
    assert table.compute()["key"].tolist() == [3, 5]


@pytest.mark.parametrize(
    ("keys", "values", "message"),
    [
        (KEYS, {"ged": VALUES}, r"values are named \['ged'\]: expected \['ged16'\]"),
        (KEYS.float(), {"ged16": VALUES}, "expected int64"),
        (KEYS, {"ged16": VALUES[:2]}, r"ged16 has shape \(2,\): expected \(5,\)"),
    ],
)
def test_table_refuses(keys, values, message):
    with pytest.raises(ValueError, match=message):
        ImageTable(["ged16"]).update(keys, values)


@pytest.mark.parametrize("names", [[], ["key"], ["a", "a"]])
def test_table_refuses_names(names):
    with pytest.raises(ValueError, match="expected different names"):
        ImageTable(names)


def test_sum_refuses_another_shape():
    with pytest.raises(ValueError, match=r"expected torch.int64 \(2, 2\)"):
        RunningSum((2, 2), torch.int64).update(torch.zeros(3, 3, dtype=torch.int64))


def gather(rank, folder, shares):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    table, total = table_of(*shares[rank]), RunningSum((2,), torch.int64)
    for batch in shares[rank]:
        total.update(torch.tensor([len(batch), 1]))
    np.savez(f"{folder}/{rank}.npz", total=total.compute().numpy(), **table.compute())
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("shares", [[[[0, 1], [2]], [[3], [4]]], [[[0, 1, 2, 3], [4]], []]], ids=["both", "one idle"])
def test_processes_gather_the_same_table(tmp_path, shares):
    torch.multiprocessing.spawn(gather, (tmp_path, shares), nprocs=2)
    expected = table_of([0, 1, 2, 3, 4]).compute()
    for rank in range(2):
        result = np.load(tmp_path / f"{rank}.npz")
        assert result["total"].tolist() == [5, sum(map(len, shares))]
        for name, column in expected.items():
            np.testing.assert_array_equal(result[name], column)
