import torch

from rfla.ops.device import to_device


def test_numbers_arrive():
    assert to_device([1, 2], torch.device("cpu")).tolist() == [1, 2]
    assert to_device(3.0, torch.device("cpu")).dtype == torch.float32
    assert to_device([(4, 5)], torch.device("cpu")).dtype == torch.int64
