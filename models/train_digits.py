"""Train the demo model, `digits_resnet.onnx`, and write its calibration and held-out images.

Needs PyTorch, which neither the package nor its tests do:

    pip install torch==2.13.0 scikit-learn onnx onnxruntime
    python models/train_digits.py

It takes a few minutes on a laptop's CPU. Two thirds of the digits are trained on; the last third is read once, after
training, to measure the exported file in onnxruntime. The settings below were chosen on a quarter of the training part.

The model is trained to be prunable: a group lasso makes about half of its channels unnecessary, see `shrink`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional

FOLDER = Path(__file__).resolve().parent
MODEL = FOLDER / "digits_resnet.onnx"
CALIBRATION = FOLDER / "digits_calibration.npz"
HELDOUT = FOLDER / "digits_heldout.npz"

SEED = 0
THREADS = 2
SIZE = 32
GREY_LEVELS = 16
CALIBRATION_IMAGES = 256

EPOCHS = 20
BATCH = 32
LEARNING_RATE = 0.05
WEIGHT_DECAY = 1e-2  # so large that the filters of a channel whose scale reached zero fade too
GROUP_LASSO = 0.03  # on the scales and shifts of BatchNormalization
LARGEST_SHIFT = 2  # pixels, either way


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: the identity, or a strided 1x1 convolution where the shape changes."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            convolution = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)
            self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(channels_out))

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(shortcut(x) + branch(x))."""
        branch = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(branch)) + self.shortcut(x))


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate in (0, 1) computed from the means of all channels."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.excite = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return x times its gate."""
        means = functional.adaptive_avg_pool2d(x, 1)
        return x * torch.sigmoid(self.excite(functional.relu(self.squeeze(means))))


class InvertedResidual(nn.Module):
    """Expand by a 1x1 convolution, filter depthwise, gate, project back, and add the input."""

    def __init__(self, channels: int, expanded: int, squeezed: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(channels, expanded, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(expanded)
        self.depthwise = nn.Conv2d(expanded, expanded, 3, padding=1, groups=expanded, bias=False)
        self.norm2 = nn.BatchNorm2d(expanded)
        self.gate = SqueezeExcite(expanded, squeezed)
        self.project = nn.Conv2d(expanded, channels, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return x + branch(x)."""
        branch = functional.relu(self.norm1(self.expand(x)))
        branch = functional.relu(self.norm2(self.depthwise(branch)))
        return x + self.norm3(self.project(self.gate(branch)))


class DigitsResNet(nn.Module):
    """A stem, three stages of 32, 64 and 128 channels with two blocks each, and a linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.stage1 = nn.Sequential(BasicBlock(32, 32, 1), BasicBlock(32, 32, 1))
        self.stage2 = nn.Sequential(BasicBlock(32, 64, 2), BasicBlock(64, 64, 1))
        self.stage3 = nn.Sequential(BasicBlock(64, 128, 2), InvertedResidual(128, 256, 64))
        self.classifier = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images of shape N x 1 x 32 x 32."""
        features = self.stage3(self.stage2(self.stage1(self.stem(x))))
        return self.classifier(torch.flatten(functional.adaptive_avg_pool2d(features, 1), 1))


def load_split() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return training images, held-out images, training labels and held-out labels, each class split 2:1.

    The 8x8 digits become 32x32 by bilinear interpolation, rounded back to their grey levels so that they compress.
    """
    digits = load_digits()
    grey = torch.from_numpy(digits.images).float().unsqueeze(1)
    images = functional.interpolate(grey, size=(SIZE, SIZE), mode="bilinear", align_corners=False).round() / GREY_LEVELS
    labels = torch.from_numpy(digits.target).long()
    rows = np.arange(len(labels))
    train, heldout = train_test_split(rows, test_size=1 / 3, random_state=SEED, stratify=digits.target)
    return images[train], images[heldout], labels[train], labels[heldout]


def shifted(images: Tensor) -> Tensor:
    """Return the images, each moved by a random whole number of pixels, with black moving in."""
    padded = functional.pad(images, [LARGEST_SHIFT] * 4)
    offsets = torch.randint(0, 2 * LARGEST_SHIFT + 1, (len(images), 2)).tolist()
    return torch.stack([x[:, r : r + SIZE, c : c + SIZE] for x, (r, c) in zip(padded, offsets, strict=True)])


def channel_groups(model: DigitsResNet) -> list[list[nn.BatchNorm2d]]:
    """Return the BatchNormalizations whose channels can only be removed together, one list for each such set."""
    down2, down3, inverted = model.stage2[0], model.stage3[0], model.stage3[1]
    streams = [
        [model.stem[1], *(block.norm2 for block in model.stage1)],
        [down2.shortcut[1], *(block.norm2 for block in model.stage2)],
        [down3.shortcut[1], down3.norm2, inverted.norm3],
    ]
    inner = [[block.norm1] for block in (*model.stage1, *model.stage2, down3)]
    return [*streams, *inner, [inverted.norm1, inverted.norm2]]


@torch.no_grad()
def spread(groups: list[list[nn.BatchNorm2d]]) -> None:
    """Start the scales anywhere in (0, 1), the same throughout a group, so that a steady pull can tell them apart."""
    for group in groups:
        scales = torch.rand_like(group[0].weight)
        for norm in group:
            norm.weight.copy_(scales)


@torch.no_grad()
def shrink(groups: list[list[nn.BatchNorm2d]], amount: float) -> None:
    """Pull the scales and shifts of each group's channel towards zero by `amount`, as one vector: a group lasso's step.

    This is Network Slimming (Liu et al., 2017) for coupled channels: those that the task can spare reach zero.
    """
    for group in groups:
        vector = torch.stack([parameter for norm in group for parameter in (norm.weight, norm.bias)])
        length = vector.norm(dim=0).clamp_min(1e-12)
        factor = (1 - amount * len(group) ** 0.5 / length).clamp_min(0)
        for norm in group:
            norm.weight.mul_(factor)
            norm.bias.mul_(factor)


def train_epoch(
    model: DigitsResNet,
    images: Tensor,
    labels: Tensor,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> float:
    """Take one pass over the shuffled training images and return the mean cross-entropy."""
    model.train()
    groups, batches = channel_groups(model), torch.randperm(len(images)).split(BATCH)
    total = 0.0
    for rows in batches:
        loss = functional.cross_entropy(model(shifted(images[rows])), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        shrink(groups, GROUP_LASSO * schedule.get_last_lr()[0])
        schedule.step()
        total += float(loss.detach()) * len(rows)
    return total / len(images)


def train(images: Tensor, labels: Tensor) -> DigitsResNet:
    """Return a model trained on all the images given, in evaluation mode."""
    torch.manual_seed(SEED)
    model = DigitsResNet()
    spread(channel_groups(model))
    optimizer = torch.optim.SGD(
        model.parameters(), LEARNING_RATE, momentum=0.9, nesterov=True, weight_decay=WEIGHT_DECAY
    )
    steps = EPOCHS * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, cycle_momentum=False)
    for epoch in range(1, EPOCHS + 1):
        loss = train_epoch(model, images, labels, optimizer, schedule)
        print(f"epoch {epoch:2d} of {EPOCHS}: mean training loss {loss:.4f}", flush=True)
    return model.eval()


def export(model: nn.Module, example: Tensor, path: Path) -> None:
    """Write the model as ONNX with its BatchNormalization nodes kept."""
    torch.onnx.export(
        model,
        (example,),
        str(path),
        dynamo=False,
        opset_version=17,
        input_names=["input"],
        output_names=["logits"],
        dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}},
        training=torch.onnx.TrainingMode.PRESERVE,  # EVAL would fold each BatchNormalization into its convolution
        do_constant_folding=False,
    )


def tidy(path: Path) -> None:
    """Remove PyTorch's source locations from the written file and check it."""
    exported = onnx.load(path)
    for node in exported.graph.node:
        node.ClearField("doc_string")
    onnx.checker.check_model(exported, full_check=True)
    onnx.save(exported, path)


def save_data(train_images: Tensor, heldout_images: Tensor, heldout_labels: Tensor) -> None:
    """Write unlabelled training images for calibration and the labelled held-out images, named as the graph's input."""
    generator = torch.Generator().manual_seed(SEED)
    rows = torch.randperm(len(train_images), generator=generator)[:CALIBRATION_IMAGES]
    np.savez_compressed(CALIBRATION, input=train_images[rows].numpy())
    np.savez_compressed(HELDOUT, input=heldout_images.numpy(), labels=heldout_labels.numpy())


def measure(model: nn.Module) -> float:
    """Return the written model's accuracy on the written held-out images, after comparing it with PyTorch's."""
    with np.load(HELDOUT) as data:
        images, labels = data["input"], data["labels"]
    session = ort.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"input": images})
    with torch.no_grad():
        expected = model(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)
    assert (logits.argmax(1) == expected.argmax(1)).all(), "onnxruntime and PyTorch disagree on a digit"
    return float((logits.argmax(1) == labels).mean())


def main() -> None:
    """Train, export, write the data and print the held-out accuracy of what was written."""
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    train_images, heldout_images, train_labels, heldout_labels = load_split()
    model = train(train_images, train_labels)
    export(model, train_images[:1], MODEL)
    tidy(MODEL)
    save_data(train_images, heldout_images, heldout_labels)
    accuracy = measure(model)
    print(f"held-out accuracy in onnxruntime: {accuracy:.2%} of {len(heldout_labels)} images")
    assert accuracy > 0.98, "the demo model must pass 98%"


if __name__ == "__main__":
    main()
