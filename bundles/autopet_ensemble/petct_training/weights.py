"""Weights from a file into a network: every tensor must be there, and no other."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch

from petct_training.errors import InputError
from petct_training.merging import names_of_octants

# NumPy's numbers, such as a score beside the weights, hold no code. The module of their constructor has changed its name.
_scalar = np.float64(0).__reduce__()[0]


PLAIN_TYPES: list[Any] = [
    *((_scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *(np.dtype, type(np.dtype(np.float32)), type(np.dtype(np.float64))),
]


def load_weights(network: torch.nn.Module, file: str | os.PathLike, remedy: str) -> None:
    """Load a network's weights from a file, whose code, if it holds any, is never run.

    Args:
        network: takes the weights.
        file: a state dict, or a dictionary that holds one as "state_dict", as the authors' published checkpoints do.
        remedy: what to do when the file does not fit, the end of a sentence.

    Raises:
        InputError: when the file is unreadable, or its tensors are not those of the network or hold what is no number; the sentence
            names them.
    """
    put_weights(network, read_state_dict(file, remedy), file, remedy)


def read_state_dict(file: str | os.PathLike, remedy: str) -> dict[str, Any]:
    """Read a state dict from a file, or from the dictionary in it that holds one as "state_dict"; arguments as `load_weights`.

    Raises:
        InputError: when the file is unreadable, or holds none.
    """
    content = read_weights(file, remedy)
    state = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(state, Mapping):
        raise InputError(f"{file} holds a {type(state).__name__}, not a state dict: {remedy}")
    return dict(state)


def put_weights(network: torch.nn.Module, state: Mapping[str, Any], file: str | os.PathLike, remedy: str) -> None:
    """Put a state dict into a network, if it is that of the network; arguments and errors as those of `check_state`."""
    check_state(network, state, file, remedy)
    network.load_state_dict(state)


def check_state(network: torch.nn.Module, state: object, file: str | os.PathLike, remedy: str) -> None:
    """Refuse what was read from a file if it is not the state dict of a network.

    Args:
        network: whose tensors it must have.
        state: what was read.
        file: from which it was read.
        remedy: what to do, the end of a sentence.

    Raises:
        InputError: when the tensors are not those of the network, or hold what is no number; the sentence names the file and them.
    """
    fault = misfit(network, state)
    if fault:
        raise InputError(f"{file} does not fit {type(network).__name__}: {fault}; {remedy}")
    check_numbers(network, cast("Mapping[str, torch.Tensor]", state), file)


def read_weights(file: str | os.PathLike, remedy: str, device: torch.device | str = "cpu") -> Any:
    """Read what PyTorch has written to a file, whose code, if it holds any, is never run.

    Args:
        file: tensors, numbers and containers of these.
        remedy: what to do when it cannot be read, the end of a sentence.
        device: where the tensors go.

    Raises:
        InputError: when the file is damaged, or holds something else.
    """
    try:
        with torch.serialization.safe_globals(PLAIN_TYPES):
            return torch.load(file, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise InputError(f"{file} cannot be read as weights of PyTorch: {remedy}") from error


def misfit(network: torch.nn.Module, state: object) -> str:
    """Say in what a state dict differs from that of a network; nothing where it fits.

    The octants of `OctantPatchMerging` may be absent, which has a meaning of its own.

    Returns:
        The names of missing, additional, differently shaped and complex tensors, one of each and how many more, after "it".
    """
    if not isinstance(state, Mapping):
        return f"it is a {type(state).__name__}, not a state dict"
    expected = network.state_dict()
    faults = {
        "lacks": sorted(expected.keys() - state.keys() - set(names_of_octants(network))),
        "holds besides": sorted(map(str, state.keys() - expected.keys())),
        "has in another shape": sorted(
            f"{name} {_shape(state[name])} instead of {_shape(tensor)}"
            for name, tensor in expected.items()
            if name in state and _shape(state[name]) != _shape(tensor)
        ),
        "has complex numbers in": sorted(
            name for name in expected.keys() & state.keys() if isinstance(state[name], torch.Tensor) and state[name].is_complex()
        ),
    }
    said = ", ".join(f"{what} {_shorten(names)}" for what, names in faults.items() if names)
    return f"it {said}" if said else ""


def check_numbers(network: torch.nn.Module, state: Mapping[str, torch.Tensor], file: str | os.PathLike) -> None:
    """Refuse weights with NaN or infinity: the network would find no lesion in any study.

    Args:
        network: which the state fits, see `misfit`; in its precision values may be infinite that are not so in the file.
        state: its state dict, as it was read.
        file: from which it was read.

    Raises:
        InputError: with the tensors that hold them.
    """
    precision = {name: tensor.dtype for name, tensor in network.state_dict().items()}
    names = not_finite({name: tensor.to(precision[name]) for name, tensor in state.items()})
    if names:
        raise InputError(
            f"{file} has values that are no numbers in {_shorten(names)}: a training failed, or the file is damaged; "
            "train again, or name other weights"
        )


def not_finite(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Return the names of the tensors that hold NaN or infinity, sorted.

    Example:
        >>> not_finite({"weight": torch.tensor([1, torch.nan]), "bias": torch.zeros(2), "steps": torch.tensor(3)})
        ['weight']
    """
    return sorted(name for name, tensor in tensors.items() if tensor.numel() and not _is_finite(tensor))


def _is_finite(tensor: torch.Tensor) -> bool:
    # NaN is passed on, and infinity is an extreme: one reading of the tensor, and no copy.
    return bool(torch.isfinite(torch.stack(torch.aminmax(tensor))).all())


def _shape(value: object) -> tuple[int, ...] | str:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__


def _shorten(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")
