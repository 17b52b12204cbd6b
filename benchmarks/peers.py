"""What Torch-Pruning makes of the architectures of latency.py, as .onnx files to time beside ours.

Needs an environment of its own, beside the project's:

    python3.11 -m venv VENV
    VENV/bin/pip install torch==2.14.1 torchvision==0.29.1
    VENV/bin/pip install --no-deps torch-pruning==1.6.1
    VENV/bin/pip install onnx==1.23.2 onnxscript==0.7.2
    VENV/bin/python benchmarks/peers.py --out DIR [--models NAME ...] [--shared FOLDER]

Each model is written to DIR/NAME/dense.onnx: torchvision's architecture with its own initialisation, seeded, and
BatchNormalization of distinct gains, shifts, means and variances, so that filters differ; ResNet-56 has the trained
weights of the folder of real models, and YOLOX-nano is copied from there. Torch-Pruning then removes filters by their
L1 norm (MagnitudePruner, GroupMagnitudeImportance(p=1), every group by the same ratio, the classifier left alone):
DIR/NAME/tp_rRATIO_VARIANT.onnx, with VARIANT `as_is`, `round8` or `round16` (its `round_to`). All files leave the
TorchScript exporter alike: opset 17, eval mode, constants folded, batch free.

Measured, in the .json beside each file:

- `layers`, `inputs`: the filters and the input channels that stay, of the original's, by module. They are read from
  the groups that Torch-Pruning cuts, and the pruned weights must be exactly the original's at these places;
- `kept_geometric_mean`, `kept_mean`: over all convolutions and linear layers but the classifier, the share of the L1
  norm of the layer's original filters that belongs to filters that stay, in PyTorch, where Torch-Pruning chose;
- `file_kept_geometric_mean`, `file_kept_mean`: the same of the weights in dense.onnx (`weights` names them), into
  which the exporter has folded BatchNormalization. This is what a tool that reads the file sees;
- `macs`, `params`: multiply-accumulates of convolutions and linear layers for one sample, and parameters.

What Torch-Pruning could not prune is in DIR/NAME/failures.json, with its error. There is no PyTorch source of
YOLOX-nano to prune, only the dense file.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as functional
import torch_pruning
import torchvision
from onnx import numpy_helper
from torch import Tensor, nn

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"
TORCHVISION = {
    "ResNet-50": "resnet50",
    "MobileNetV2": "mobilenet_v2",
    "EfficientNet-B0": "efficientnet_b0",
    "MnasNet-1.0": "mnasnet1_0",
    "DenseNet-121": "densenet121",
    "GoogLeNet": "googlenet",
    "RegNet-Y-400MF": "regnet_y_400mf",
    "ShuffleNetV2": "shufflenet_v2_x1_0",
}
TRAINED = {"ResNet-56": "cifar10/resnet56_legacy_bn.onnx"}
COPIED = {"YOLOX-nano": "wild/object__yolox_nano.onnx"}
NAMES = (*TORCHVISION, *TRAINED, *COPIED)
RATIOS = (0.3, 0.5)
VARIANTS: dict[str, int | None] = {"as_is": None, "round8": 8, "round16": 16}
SEED = 0
OPSET = 17

Layer = nn.Conv2d | nn.Linear


# --- models ----------------------------------------------------------------------------------------------------------


class Shortcut(nn.Module):
    """Every second row and column, and zeros for the new channels (option A of He et al., 2016)."""

    def __init__(self, planes: int) -> None:
        super().__init__()
        self.padding = planes // 4

    def forward(self, x: Tensor) -> Tensor:
        """(n, planes / 2, h, w) to (n, planes, h / 2, w / 2)."""
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.padding, self.padding))


class Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, channels: int, planes: int) -> None:
        super().__init__()
        stride = 1 if channels == planes else 2
        self.conv1 = nn.Conv2d(channels, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = nn.Identity() if channels == planes else Shortcut(planes)

    def forward(self, x: Tensor) -> Tensor:
        """Images to images."""
        inner = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(inner + self.shortcut(x))


class ResNet56(nn.Module):
    """The CIFAR ResNet of 9 blocks a stage; its modules are named as in the trained file."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1, self.layer2, self.layer3 = (stage(*widths) for widths in ((16, 16), (16, 32), (32, 64)))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, 32, 32) to logits (n, 10)."""
        x = self.layer3(self.layer2(self.layer1(functional.relu(self.bn1(self.conv1(x))))))
        return self.linear(x.mean(dim=(2, 3)))


def stage(channels: int, planes: int) -> nn.Sequential:
    """9 blocks, the first of which changes the width."""
    return nn.Sequential(*(Block(channels if i == 0 else planes, planes) for i in range(9)))


@dataclass(frozen=True)
class Subject:
    """A model to prune: the module in eval mode, one input, and the classifier that stays whole."""

    model: nn.Module
    example: Tensor
    classifier: nn.Linear


def subject_of(name: str, shared: Path) -> Subject:
    """The dense model of this name, the same at every call."""
    torch.manual_seed(SEED)
    model = trained(shared / TRAINED[name]) if name in TRAINED else untrained(TORCHVISION[name])
    classifier = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    side = 32 if name in TRAINED else 224
    return Subject(model.eval(), torch.randn(1, 3, side, side), classifier)


def untrained(architecture: str) -> nn.Module:
    """torchvision's initialisation, and BatchNormalization that tells channels apart."""
    options = {"aux_logits": False, "init_weights": True} if architecture == "googlenet" else {}
    model = torchvision.models.get_model(architecture, weights=None, **options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for positive in (module.weight.data, module.running_var):
                positive.uniform_(0.5, 1.5)
            for signed in (module.bias.data, module.running_mean):
                signed.normal_(0.0, 0.1)
    return model


def trained(path: Path) -> nn.Module:
    """ResNet-56 with the weights of the file, which bear the names of its modules."""
    model = ResNet56()
    weights = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in onnx.load(path).graph.initializer}
    wanted = {k for k in model.state_dict() if not k.endswith("num_batches_tracked")}
    model.load_state_dict({k: weights[k] for k in wanted}, strict=False)
    return model


# --- pruning ---------------------------------------------------------------------------------------------------------


def layers_of(model: nn.Module) -> dict[str, Layer]:
    """Convolutions and linear layers by module name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, Layer)}


@dataclass(frozen=True)
class Kept:
    """For each layer, the original's filters and input channels that stay, in order."""

    filters: dict[str, np.ndarray]
    inputs: dict[str, np.ndarray]


def prune(subject: Subject, ratio: float, round_to: int | None) -> Kept:
    """Prune the subject's model in place, and tell what stayed."""
    layers = layers_of(subject.model)
    kept = Kept(
        {name: np.arange(m.weight.shape[0]) for name, m in layers.items()},
        {name: np.arange(m.weight.shape[1] * getattr(m, "groups", 1)) for name, m in layers.items()},
    )
    names = {m: name for name, m in layers.items()}
    pruner = torch_pruning.pruner.MagnitudePruner(
        subject.model,
        subject.example,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=1),
        global_pruning=False,
        pruning_ratio=ratio,
        ignored_layers=[subject.classifier],
        round_to=round_to,
    )
    for group in pruner.step(interactive=True):
        for cut, indices in group:
            if cut.target.module in names:
                outward = pruner.DG.is_out_channel_pruning_fn(cut.handler)
                withdraw(kept, names[cut.target.module], indices, outward, depthwise(cut.target.module))
        group.prune()
    return kept


def depthwise(layer: Layer) -> bool:
    """Whether each filter reads a channel of its own: Torch-Pruning then cuts both as one."""
    return isinstance(layer, nn.Conv2d) and layer.groups == layer.out_channels > 1


def withdraw(kept: Kept, name: str, indices: list[int], outward: bool, both: bool) -> None:
    """Take away what one cut removes; its indices count what is left by then."""
    for side in (kept.filters, kept.inputs) if both else (kept.filters if outward else kept.inputs,):
        side[name] = np.delete(side[name], indices)


def check(dense: nn.Module, pruned: nn.Module, kept: Kept) -> None:
    """Every pruned weight must be the original's at the kept places."""
    originals = layers_of(dense)
    for name, layer in layers_of(pruned).items():
        original = originals[name]
        found = layer.weight.detach().numpy()
        groups = getattr(original, "groups", 1)
        expected = sliced(original.weight.detach().numpy(), kept.filters[name], kept.inputs[name], groups)
        if not np.array_equal(found, expected):
            raise ValueError(f"{name}: the pruned weights are not the original's at the kept indices")


def sliced(weight: np.ndarray, filters: np.ndarray, inputs: np.ndarray, groups: int) -> np.ndarray:
    """The weight at these filters and input channels, of which each of the original's groups reads a part."""
    if groups == len(weight) > 1:
        return weight[filters]
    width = weight.shape[1]
    rows = []
    for block, chosen in enumerate(np.split(filters, groups)):
        local = inputs[inputs // width == block] - block * width
        rows.append(weight[chosen][:, local])
    return np.concatenate(rows)


# --- measures --------------------------------------------------------------------------------------------------------


def shares(weights: Mapping[str, np.ndarray], kept: Kept, classifier: str) -> list[float]:
    """Of each layer but the classifier, the share of the L1 norm of its filters that stays."""
    found = []
    for name, weight in weights.items():
        if name != classifier:
            norms = np.abs(weight.astype(np.float64)).reshape(len(weight), -1).sum(axis=1)
            found.append(float(norms[kept.filters[name]].sum() / norms.sum()))
    return found


def means(found: list[float], prefix: str) -> dict[str, float]:
    """Geometric and arithmetic mean over layers."""
    geometric = math.exp(sum(map(math.log, found)) / len(found))
    return {f"{prefix}kept_geometric_mean": geometric, f"{prefix}kept_mean": sum(found) / len(found)}


def called(subject: Subject) -> list[tuple[str, int]]:
    """Layers in the order in which they run, with the multiply-accumulates of each for one sample."""
    found: list[tuple[str, int]] = []

    def note(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(layer: nn.Module, _: Any, output: Tensor) -> None:
            weight = layer.weight
            found.append((name, output[0].numel() * weight[0].numel()))

        return hook

    handles = [layer.register_forward_hook(note(name)) for name, layer in layers_of(subject.model).items()]
    with torch.no_grad():
        subject.model(subject.example)
    for handle in handles:
        handle.remove()
    return found


def size(subject: Subject) -> dict[str, int]:
    """Work and parameters of a module."""
    params = sum(p.numel() for p in subject.model.parameters())
    return {"macs": sum(macs for _, macs in called(subject)), "params": params}


# --- files -----------------------------------------------------------------------------------------------------------


def export(subject: Subject, path: Path) -> None:
    """Write the model as a file, by way of a name that no reader looks for."""
    partial = path.with_name(path.name + ".tmp")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on every export: that this exporter is the old one
        torch.onnx.export(
            subject.model,
            (subject.example,),
            partial,
            input_names=["input"],
            output_names=["logits"],
            opset_version=OPSET,
            dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}},
            dynamo=False,
            training=torch.onnx.TrainingMode.EVAL,
            do_constant_folding=True,
        )
    partial.replace(path)


def weights_in(path: Path, order: list[str]) -> dict[str, tuple[str, np.ndarray]]:
    """The weight of each layer in a file, as (initializer, values): nodes stand in the order in which layers run."""
    graph = onnx.load(path).graph
    held = {t.name: t for t in graph.initializer}
    names = [node.input[1] for node in graph.node if node.op_type in ("Conv", "Gemm")]
    return {layer: (name, numpy_helper.to_array(held[name])) for layer, name in zip(order, names, strict=True)}


def write(path: Path, facts: Mapping[str, Any]) -> None:
    """Write facts as JSON."""
    path.write_text(json.dumps(facts) + "\n", encoding="utf-8")


# --- one model -------------------------------------------------------------------------------------------------------


class PeerError(Exception):
    """Torch-Pruning could not prune a model, or left one that does not run."""


def pruned(dense: Subject, ratio: float, round_to: int | None) -> tuple[Subject, Kept]:
    """A pruned copy of the dense model that runs, and what stayed."""
    subject = copy.deepcopy(dense)
    try:
        kept = prune(subject, ratio, round_to)
        called(subject)
    except Exception as error:  # whatever goes wrong in there is the peer's, and a finding
        raise PeerError(f"{type(error).__name__}: {error}") from error
    return subject, kept


def one(dense: Subject, folder: Path, ratio: float, variant: str) -> dict[str, Any]:
    """Prune a copy of the dense model and write what became of it; facts without the lists of indices."""
    subject, kept = pruned(dense, ratio, VARIANTS[variant])
    check(dense.model, subject.model, kept)
    path = folder / f"tp_r{ratio}_{variant}.onnx"
    layers = layers_of(dense.model)
    classifier = next(name for name, layer in layers.items() if layer is dense.classifier)
    original = {name: layer.weight.detach().numpy() for name, layer in layers.items()}
    inside = weights_in(folder / "dense.onnx", [name for name, _ in called(dense)])
    facts: dict[str, Any] = {"model": folder.name, "variant": variant, "ratio": ratio, "round_to": VARIANTS[variant]}
    facts |= size(subject) | means(shares(original, kept, classifier), "")
    facts |= means(shares({n: w for n, (_, w) in inside.items()}, kept, classifier), "file_")
    lists = {"layers": kept.filters, "inputs": kept.inputs}
    export(subject, path)
    extra = {key: {n: v.tolist() for n, v in found.items()} for key, found in lists.items()}
    write(path.with_suffix(".json"), facts | extra | {"weights": {n: name for n, (name, _) in inside.items()}})
    return facts


def outputs(name: str, folder: Path, shared: Path) -> Iterator[str]:
    """Write all files of one model, saying a line for each."""
    folder.mkdir(parents=True, exist_ok=True)
    if name in COPIED:
        shutil.copyfile(shared / COPIED[name], folder / "dense.onnx")
        yield "dense only: there is no PyTorch source"
        return
    dense, failures = subject_of(name, shared), {}
    export(dense, folder / "dense.onnx")
    write(folder / "dense.json", {"model": name, **size(dense)})
    for ratio in RATIOS:
        for variant in VARIANTS:
            try:
                facts = one(dense, folder, ratio, variant)
            except PeerError as error:
                failures[f"tp_r{ratio}_{variant}"] = str(error)
                yield f"{ratio} {variant}: {error}"
                continue
            kept, file = facts["kept_geometric_mean"], facts["file_kept_geometric_mean"]
            yield f"{ratio} {variant}: {facts['macs'] / 1e6:.1f} M MACs, kept {kept:.3f} ({file:.3f} in the file)"
    write(folder / "failures.json", failures)


def main() -> None:
    """Write the files of all models, or of those named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--models", nargs="+", choices=NAMES, default=NAMES, metavar="NAME")
    parser.add_argument("--shared", type=Path, default=SHARED)
    given = parser.parse_args()
    for name in given.models:
        for line in outputs(name, given.out / name, given.shared):
            print(f"{name}: {line}", flush=True)


if __name__ == "__main__":
    main()
