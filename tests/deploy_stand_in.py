"""What `petct_cascade.deploy`, `petct_cascade.deploy_dicom` and the example's application use of monai-deploy-app-sdk 4.0.0, and
what that does to a bundle, without its runtime.

The package brings a gigabyte of libraries of CUDA's. Tests run the real one where it is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

import monai
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.utils import convert_to_dst_type


class Image:
    """An array with metadata."""

    def __init__(self, data: np.ndarray, metadata: dict | None = None) -> None:
        self.data, self.meta = data, metadata or {}

    def asnumpy(self) -> np.ndarray:
        return self.data

    def metadata(self) -> dict:
        return self.meta


class IOType(Enum):
    """Where inputs and outputs lie."""

    IN_MEMORY = 2


@dataclass
class IOMapping:
    """A port."""

    label: str
    data_type: type
    storage_type: IOType


@dataclass
class BundleConfigNames:
    """Names of a bundle's config files."""

    config_names: list[str]


class MonaiBundleInferenceOperator:
    """What the operator does with a folder's bundle: its loader and writer go, and every tensor is handed to the network."""

    def __init__(self, fragment, *, app_context, input_mapping, output_mapping, bundle_path, bundle_config_names) -> None:
        self.app_context, self.bundle_path, self._bundle_config_names = app_context, bundle_path, bundle_config_names
        self._parser: Any = None

    def _init_config(self, config_names: list[str]) -> None:
        if str(self.bundle_path) not in sys.path:
            sys.path.insert(0, str(self.bundle_path))
        configs = Path(self.bundle_path) / "configs"
        self._parser = ConfigParser()
        self._parser.read_meta(f=json.loads((configs / "metadata.json").read_text()))
        self._parser.read_config([configs / f"{name}.json" for name in config_names])
        self._parser.parse()
        self._device = self._parser.get_parsed_content("device")
        self._inferer = self._parser.get_parsed_content("inferer")
        form = self._parser["_meta_"]["network_data_format"]
        self._inputs, self._outputs = form["inputs"], form["outputs"]
        self._preproc = self._get_compose("preprocessing", ["LoadImage", "SaveImage"])
        self._postproc = self._get_compose("postprocessing", ["LoadImage", "SaveImage"])

    def _get_compose(self, obj_name: str, disallowed_prefixes: list[str]) -> Any:
        compose = self._parser.get_parsed_content(obj_name)
        compose.transforms = tuple(
            transform
            for transform in compose.transforms
            if not any(name in type(transform).__name__ for name in disallowed_prefixes)
        )
        return compose

    @torch.no_grad()
    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        self._init_config(self._bundle_config_names.config_names)
        assert not self.app_context.models, "a model of the context takes the bundle's place"
        network = self._parser.get_parsed_content("network")
        network.load_state_dict(torch.load(Path(self.bundle_path) / "models/model.pt", map_location=self._device))
        self._model_network = network.eval()
        (name,) = self._inputs
        value, meta = self._receive_input(name, op_input, context)
        value = convert_to_dst_type(value, dst=value)[0]
        inputs = dict(self._preproc({name: MetaTensor.ensure_torch_and_prune_meta(value, meta)}))
        image = inputs.pop(name)
        others = {key: tensor[None].to(self._device) for key, tensor in inputs.items() if isinstance(tensor, torch.Tensor)}
        (output,) = self._outputs
        prediction = self.predict(data=image[None].to(self._device), **others)[0]
        results = self._postproc({output: prediction, **inputs, name: image})
        self._send_output(results[output], output, image.meta, op_output, context)

    def predict(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        return self._inferer(data, self._model_network, *args, **kwargs)

    def _send_output(self, value: Any, name: str, metadata: dict, op_output: Any, context: Any) -> None:
        op_output.emit(Image(np.swapaxes(np.squeeze(value.cpu().numpy(), 0), 0, 2).astype(np.uint8), metadata), name)

    def _convert_from_image(self, image: Image) -> tuple[np.ndarray, dict]:
        if "row_pixel_spacing" in image.metadata():
            return np.swapaxes(image.asnumpy(), 0, 2), image.metadata()
        return image.asnumpy(), image.metadata()


class OperatorSpec:
    """The names of an operator's ports."""

    def __init__(self) -> None:
        self.inputs: list[str] = []
        self.outputs: list[str] = []

    def input(self, name: str) -> None:
        self.inputs.append(name)

    def output(self, name: str) -> None:
        self.outputs.append(name)


class Operator:
    """A step of an application; as in Holoscan, its ports are named while it is made."""

    def __init__(self, fragment: Any, *args: Any, name: str) -> None:
        self.name, self.spec = name, OperatorSpec()
        self.setup(self.spec)


class CountCondition:
    """How often an operator runs."""

    def __init__(self, fragment: Any, count: int) -> None:
        assert count == 1, "the stand-in runs each operator once"


class Application:
    """Operators that run one after another, in the order of their flows."""

    def __init__(self, argv: list[str] | None = None) -> None:
        self.argv = argv or [sys.executable, *sys.argv]
        self.flows: list[tuple[Any, Any, set[tuple[str, str]]]] = []

    @staticmethod
    def init_app_context(argv: list[str]) -> argparse.Namespace:
        parser = argparse.ArgumentParser()
        for letter, role in (("-i", "input"), ("-o", "output"), ("-m", "model")):
            parser.add_argument(letter, f"--{role}", dest=f"{role}_path")
        return parser.parse_args(argv[2:])

    def add_flow(self, upstream: Operator, downstream: Operator, ports: set[tuple[str, str]]) -> None:
        assert {first for first, _ in ports} <= set(upstream.spec.outputs)
        assert {second for _, second in ports} <= set(downstream.spec.inputs)
        self.flows.append((upstream, downstream, ports))

    def run(self) -> None:
        self.compose()
        for upstream, downstream, ports in self.flows:
            sent, received = Ports(), Ports()
            upstream.compute(Ports(), sent, None)
            received.given = {second: sent.sent[first] for first, second in ports}
            downstream.compute(received, Ports(), None)


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Let the modules that need the SDK import what is here, and forget them afterwards."""
    conditions = ModuleType("monai.deploy.conditions")
    conditions.CountCondition = CountCondition
    core, operators = ModuleType("monai.deploy.core"), ModuleType("monai.deploy.operators.monai_bundle_inference_operator")
    core.Image, core.IOType, core.Fragment = Image, IOType, object
    core.Application, core.Operator, core.OperatorSpec = Application, Operator, OperatorSpec
    operators.MonaiBundleInferenceOperator = MonaiBundleInferenceOperator
    operators.IOMapping, operators.BundleConfigNames = IOMapping, BundleConfigNames
    packages = {name: ModuleType(name) for name in ("monai.deploy", "monai.deploy.operators")}
    with pytest.MonkeyPatch.context() as patch:
        for name, module in {**packages, **{module.__name__: module for module in (conditions, core, operators)}}.items():
            patch.setitem(sys.modules, name, module)
        patch.setattr(monai, "deploy", packages["monai.deploy"], raising=False)
        with forgotten():
            yield


@contextlib.contextmanager
def forgotten() -> Iterator[None]:
    """Let the modules that need the SDK be imported anew, and forget them afterwards."""
    names = ("petct_cascade.deploy", "petct_cascade.deploy_dicom")
    for name in names:
        sys.modules.pop(name, None)
    try:
        yield
    finally:
        for name in names:
            sys.modules.pop(name, None)


class Ports:
    """The input and output ports of an operator that runs alone."""

    def __init__(self, **given: Any) -> None:
        self.given, self.sent = given, dict[str, Any]()

    def receive(self, name: str) -> Any:
        return self.given[name]

    def emit(self, value: Any, name: str) -> None:
        self.sent[name] = value

    def get(self, name: str) -> None:
        return None


def operator_of(deploy: ModuleType, bundle: Path) -> Any:
    """The operator of a bundle, alone."""
    return deploy.PETCTBundleInferenceOperator(deploy.Fragment(), bundle_path=bundle)


def mask_of_operator(
    deploy: ModuleType, bundle: Path, ct: Any, ct_affine: Any, pet: Any, pet_affine: Any
) -> tuple[np.ndarray, np.ndarray]:
    """The mask (X, Y, Z) and its affine that the operator emits for arrays (X, Y, Z)."""
    ports = Ports(ct=deploy.Image(ct, {"affine": ct_affine}), pet=deploy.Image(pet, {"affine": pet_affine}))
    operator_of(deploy, bundle).compute(ports, ports, None)
    pred = ports.sent["pred"]
    return np.swapaxes(pred.asnumpy(), 0, 2), pred.metadata()["affine"]
