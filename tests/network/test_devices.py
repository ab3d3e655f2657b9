"""On what a network computes: a GPU that is there, if PyTorch is built for it."""

import pytest
import torch

from crnn.network.devices import best_device, is_here, lacks_memory

BUILT = ["sm_75", "sm_80", "sm_90a", "sm_120", "compute_120"]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A machine with one GPU of a certain compute capability."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: request.param)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: BUILT)


@pytest.mark.parametrize("gpu", [(7, 5), (8, 0), (8, 9), (9, 0), (12, 1), (13, 0)], indirect=True)
def test_a_gpu_that_this_build_knows_is_taken(gpu: None) -> None:
    assert best_device() == "cuda"
    assert not is_here("cuda:1")


@pytest.mark.parametrize("gpu", [(6, 0), (7, 0), (10, 0)], indirect=True)
def test_a_gpu_that_this_build_does_not_know_is_not_there(gpu: None) -> None:
    """CUDA says that it is available, and every computation fails."""
    assert best_device() == "cpu"
    assert not is_here("cuda")


@pytest.mark.parametrize("gpu", [(9, 4)], indirect=True)
@pytest.mark.parametrize("names", [["gfx942"], []])
def test_names_of_others_say_nothing(gpu: None, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: names)
    assert best_device() == "cuda"


def test_without_a_gpu_the_cpu_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert best_device() == "cpu"
    assert is_here("cpu")
    assert not is_here("nonsense")


def test_what_onednn_does_not_do_is_no_lack_of_memory() -> None:
    assert lacks_memory(RuntimeError("could not create a primitive"))
    text = "could not create a primitive descriptor for the matmul primitive. Run workload with environment variable"
    assert not lacks_memory(RuntimeError(text))
