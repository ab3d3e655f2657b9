"""On what a network computes, and in which numbers."""

import re

import torch

from crnn.network.fronts import front_of


def best_device() -> str:
    """A GPU where there is one that computes."""
    return "cuda" if is_here("cuda") else "cpu"


def best_precision(front: str, device: str | torch.device) -> str:
    """The faster one: bfloat16 where the device computes in it, on a CPU only if the front gains by it."""
    kind = torch.device(device).type
    if kind == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(False) else "float32"
    is_faster = front_of(front).fast_in_bfloat16_on_cpu and torch.cpu._is_avx512_bf16_supported()
    return "bfloat16" if kind == "cpu" and is_faster else "float32"


def is_here(device: str | torch.device) -> bool:
    """Whether this machine has a device, such as "cuda:1", on which PyTorch computes as it is built."""
    try:
        named = torch.device(device)
        is_there = (named.index or 0) < torch.get_device_module(named).device_count()
        return is_there and (named.type != "cuda" or _is_built_for(named))
    except (RuntimeError, TypeError, torch.cuda.DeferredCudaCallError):
        return False


def checked(device: str | torch.device) -> torch.device:
    """The device of a name. Raises ValueError with a sentence if it is not here."""
    if not is_here(device):
        raise ValueError(f"There is no device {device} here on which PyTorch computes: try cpu.")
    return torch.device(device)


def _is_built_for(gpu: torch.device) -> bool:
    """Older GPUs are there, and nothing computes on them: "no kernel image is available"."""
    has, names = torch.cuda.get_device_capability(gpu), torch.cuda.get_arch_list()
    known = re.findall(r"\b(sm|compute)_(\d+)(\d)(a?)", " ".join(names))
    for kind, major, minor, alone in known:
        built = int(major), int(minor)
        if built <= has and (built[0] == has[0] or (kind == "compute" and not alone)):
            return True
    return not known  # AMD's have other names, and some builds none


def lacks_memory(error: Exception) -> bool:
    """Whether an error says that a device, or the machine, has no room for what was to be computed."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    words = "can't allocate memory|Cannot allocate memory"  # on Linux, of a file, too
    words += "|not enough memory|out of memory"  # on Windows, on a Mac's GPU
    words += "|could not create a primitive(?! descriptor)"  # oneDNN's, which says the other of what it cannot do
    words += "|std::bad_alloc"  # of C++
    return isinstance(error, RuntimeError) and re.search(words, str(error)) is not None
