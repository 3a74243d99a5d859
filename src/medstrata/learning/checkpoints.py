"""Checkpoints: tensors and JSON in one safetensors file, written atomically. Reading one never executes code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from medstrata.errors import RunFolderError
from medstrata.run import atomic

Tensors = dict[str, torch.Tensor]


def save_state(path: Path, tensors: Tensors, values: dict[str, Any]) -> None:
    """Write tensors and JSON values into one safetensors file, atomically."""
    # The bytes are written by us, not by safetensors, so that a full disk is an OSError as everywhere.
    with atomic(path) as part:
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        part.write_bytes(save(contiguous, metadata={"json": json.dumps(values)}))


def load_state(path: Path) -> tuple[Tensors, dict[str, Any]]:
    """Read what ``save_state`` wrote.

    Raises
    ------
    RunFolderError : the file is damaged or is something else
    """
    try:
        with safe_open(path, framework="pt") as file:
            values = json.loads((file.metadata() or {})["json"])
            return {name: file.get_tensor(name) for name in file.keys()}, values  # noqa: SIM118 - no mapping
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise RunFolderError(
            f"{path.name} is damaged or not ours. Delete it and run the same command again."
        ) from error


def module_tensors(prefix: str, module: nn.Module) -> Tensors:
    """Return the parameters and buffers of ``module`` under ``prefix``."""
    return {f"{prefix}.{name}": value.detach().cpu().contiguous() for name, value in module.state_dict().items()}


def restore_module(prefix: str, module: nn.Module, tensors: Tensors) -> None:
    """Put the tensors of ``module_tensors`` back. Their sizes win: the number of clusters may be found by a fit.

    Raises
    ------
    KeyError : a tensor is missing
    """
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        tensor = tensors[f"{prefix}.{name}"]
        if value.shape == tensor.shape:
            value.data.copy_(tensor)  # keeps the memory format, and with it the last bit of every result
        else:
            value.data = tensor.to(value.device)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> Tensors:
    """Flatten an optimizer's state to named tensors."""
    state = optimizer.state_dict()["state"]
    return {f"optimizer.{index}.{key}": value for index, entry in state.items() for key, value in entry.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
    """Put the tensors of ``optimizer_tensors`` back, each in its parameter's memory format, as fused kernels want."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, Tensors] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            like = parameters[int(index)]
            kept = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
            state.setdefault(int(index), {})[key] = kept.detach()
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
