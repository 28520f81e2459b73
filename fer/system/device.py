"""Which device a network runs on, and in which precision it trains there."""

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import nn

from fer.errors import InputError

Module = TypeVar("Module", bound=nn.Module)


def to_device(module: Module, device: str) -> tuple[Module, torch.device]:
    """Return a torch module on a device (auto, cpu, cuda, cuda:1, ...), channels last in memory, and the device.

    ``auto`` is a GPU where there is one.

    Raises:
        InputError: there is no such device.
    """
    try:
        chosen = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        # twice as fast on a CPU as with the channels first; torch's stubs lack this form
        return module.to(chosen, memory_format=torch.channels_last), chosen  # type: ignore[call-overload]
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device={device}: {str(error).splitlines()[0]}; device=cpu always works") from error


def with_precision(trainer: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Return a trainer's arguments with what ``precision="auto"`` stands for on this machine, and a line that says so.

    Without ``auto`` they are what was given, and there is no line.
    """
    if trainer.get("precision") != "auto":
        return trainer, None
    on_gpu = trainer.get("accelerator", "auto") in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    if on_gpu:
        device, fast = "GPU", torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        device, fast = "CPU", has_bfloat16(torch.cpu.get_capabilities())
    chosen = "bf16-mixed" if fast else "32-true"
    return trainer | {"precision": chosen}, (
        f"trainer.precision=auto: {chosen}, as this {device} has {'' if fast else 'no '}bfloat16 instructions"
    )


def has_bfloat16(capabilities: Mapping[str, Any]) -> bool:
    """Say whether a CPU multiplies in bfloat16; one that only emulates it takes several times as long as in float32.

    >>> has_bfloat16({"avx2": True, "avx512_f": True}), has_bfloat16({"avx512_bf16": True})
    (False, True)
    """
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
