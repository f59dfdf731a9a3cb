"""Where training happens: devices, processes and precision; and settings that are put back."""

from __future__ import annotations

import atexit
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import distributed

from penjing.core.errors import ConfigError
from penjing.core.processes import processes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from accelerate import Accelerator

MIXED = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}
"""What Accelerate calls each precision."""


@contextmanager
def accelerated(precision: str) -> Iterator[Accelerator]:
    """Set Accelerate up: the device and the processes that it was started on.

    Accelerate knows one precision for a whole program; what it knew before is put back, as is
    the number of threads.  A process group that was made here is left when the program ends.

    Raises:
        ConfigError: this device cannot compute in the precision.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    if precision == "float16" and not torch.cuda.is_available():
        raise ConfigError("training.precision", "float16 needs a GPU", "use bfloat16 here")
    known, threads = dict(AcceleratorState._shared_state), torch.get_num_threads()  # noqa: SLF001
    grouped = distributed.is_available() and distributed.is_initialized()
    AcceleratorState._reset_state()  # noqa: SLF001  # there is no public way
    try:
        with warnings.catch_warnings():
            # Of the number of threads, which Accelerate then chooses well.
            warnings.filterwarnings("ignore", "OMP_NUM_THREADS")
            made = Accelerator(cpu=_share_cpus(), mixed_precision=MIXED[precision])
        if not grouped and distributed.is_available() and distributed.is_initialized():
            atexit.register(_leave)
        yield made
    finally:
        AcceleratorState._shared_state.clear()  # noqa: SLF001
        AcceleratorState._shared_state.update(known)  # noqa: SLF001
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


def fast_in_bfloat16() -> bool:
    """Tell whether the device multiplies bfloat16 faster than float32."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if torch.backends.mps.is_available() or torch.xpu.is_available():
        return False
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(known.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _share_cpus() -> bool:
    """Tell whether several processes are to train without GPUs: Accelerate must be told."""
    return processes() > 1 and not (torch.cuda.is_available() or torch.xpu.is_available())


def _leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


@contextmanager
def reproducible() -> Iterator[None]:
    """Ask PyTorch for results that do not change from run to run, and put back what was.

    Inside, random numbers can be seeded without anyone outside noticing, numbers are float32
    unless told otherwise, and gradients are on.
    """
    before = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    dtype = torch.get_default_dtype()
    devices = range(torch.cuda.device_count())
    with torch.random.fork_rng(devices), torch.inference_mode(mode=False), torch.enable_grad():
        torch.use_deterministic_algorithms(mode=True, warn_only=True)
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
            torch.use_deterministic_algorithms(mode=before, warn_only=warns)


def all_alike(accelerator: Accelerator, number: int) -> bool:
    """Tell whether all processes have the same number."""
    if accelerator.num_processes == 1:
        return True
    told = accelerator.gather(torch.tensor([number], device=accelerator.device))
    return bool((told == number).all())
