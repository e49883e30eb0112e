"""Makes the demonstration model: a small convolutional network on scikit-learn's digits, fp32 and static int8.

    pip install torch scikit-learn onnx onnxruntime
    python examples/make_digits_model.py OUTPUT_FOLDER [--seed 0] [--epochs 8]

The 8x8 digits are enlarged to 72x72 and the network works at that size, with few parameters and many
multiplications: a request has to cost milliseconds, or a tuner would measure HTTP and not the model.
Writes digits-fp32.onnx, digits-int8.onnx, digits-samples.npz and digits.json (accuracy figures).
Everything follows from the seed; the last bits of the weights depend on the CPU and the torch version.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

SIDE = 72  # pixels after enlarging
WIDTH = 48  # channels
POOLED = 6  # the classifier sees means over a grid of so many cells a side
CALIBRATION_IMAGES = 200
SAMPLE_IMAGES = 64
OPSET = 17


def enlarge(images: np.ndarray) -> np.ndarray:
    """(n, 8, 8) in [0, 16] -> (n, 1, SIDE, SIDE) float32 in [0, 1], bilinear, in steps of 1/255."""
    at = np.clip((np.arange(SIDE) + 0.5) * 8 / SIDE - 0.5, 0, 7)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, 7)
    weight = at - low
    mix = np.zeros((SIDE, 8))
    mix[np.arange(SIDE), low] += 1 - weight
    mix[np.arange(SIDE), high] += weight
    large = mix @ (images / 16.0) @ mix.T
    return (np.round(large * 255) / 255).astype(np.float32)[:, None]


def split(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images and labels, test images and labels; every fifth image, shuffled, is for the test."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.target))
    images, labels = enlarge(digits.images[order]), digits.target[order].astype(np.int64)
    cut = len(labels) // 5
    return images[cut:], labels[cut:], images[:cut], labels[:cut]


def network() -> Any:
    """About 100,000 parameters and 430 million multiplications per image."""
    from torch import nn

    def block(wide_in: int, dilation: int) -> list[Any]:
        conv = nn.Conv2d(wide_in, WIDTH, 3, padding=dilation, dilation=dilation, bias=False)
        return [conv, nn.BatchNorm2d(WIDTH), nn.ReLU()]

    blocks = [*block(1, 1), *block(WIDTH, 1), *block(WIDTH, 2), *block(WIDTH, 2), *block(WIDTH, 4)]
    return nn.Sequential(*blocks, nn.AvgPool2d(SIDE // POOLED), nn.Flatten(), nn.Linear(WIDTH * POOLED**2, 10))


def train(images: np.ndarray, labels: np.ndarray, *, epochs: int, seed: int) -> Any:
    """Adam with a one-cycle learning rate; each image is shifted by a few pixels in each epoch."""
    import torch

    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    rng = np.random.default_rng(seed)
    model, batch = network(), 32
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    steps = epochs * (len(labels) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=steps)
    loss_of = torch.nn.CrossEntropyLoss(label_smoothing=0.05)
    for epoch in range(epochs):
        order, total = rng.permutation(len(labels)), 0.0
        for start in range(0, len(labels) - batch + 1, batch):
            chosen = order[start : start + batch]
            shifted = np.roll(images[chosen], tuple(rng.integers(-6, 7, size=2)), axis=(2, 3))
            loss = loss_of(model(torch.from_numpy(shifted)), torch.from_numpy(labels[chosen]))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += float(loss.detach())
        print(f"epoch {epoch + 1}/{epochs}: loss {total / (len(labels) // batch):.4f}", file=sys.stderr, flush=True)
    return model.eval()


def export_fp32(model: Any, path: Path) -> None:
    """One file, batch first and dynamic; batch normalisation is folded into the convolutions."""
    import torch

    torch.onnx.export(
        model,
        (torch.zeros(1, 1, SIDE, SIDE),),
        str(path),
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        opset_version=OPSET,
        dynamo=False,  # the other exporter writes newer opsets and external data
    )


def export_int8(source: Path, path: Path, images: np.ndarray) -> None:
    """Static quantisation, per channel; weights keep 7 bits, so that CPUs without VNNI do not saturate."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.items: Iterator[np.ndarray] = iter(images[:CALIBRATION_IMAGES])

        def get_next(self) -> dict[str, np.ndarray] | None:
            item = next(self.items, None)
            return None if item is None else {"image": item[None]}

    prepared = path.with_suffix(".prepared.onnx")
    quant_pre_process(str(source), str(prepared))
    quantize_static(
        str(prepared),
        str(path),
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    prepared.unlink()


def logits(path: Path, images: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"image": image[None]})[0] for image in images])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1, help="threads of the training; the result depends on it")
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)

    import torch

    torch.set_num_threads(chosen.threads)
    images, labels, test_images, test_labels = split(chosen.seed)
    fp32, int8 = chosen.folder / "digits-fp32.onnx", chosen.folder / "digits-int8.onnx"
    export_fp32(train(images, labels, epochs=chosen.epochs, seed=chosen.seed), fp32)
    export_int8(fp32, int8, images)
    classes = {path.stem.split("-")[1]: logits(path, test_images).argmax(axis=1) for path in (fp32, int8)}
    figures = {
        "seed": chosen.seed,
        "epochs": chosen.epochs,
        "test_images": len(test_labels),
        "accuracy": {name: round(float((found == test_labels).mean()), 4) for name, found in classes.items()},
        "top1_agreement": round(float((classes["fp32"] == classes["int8"]).mean()), 4),
    }
    np.savez_compressed(
        chosen.folder / "digits-samples.npz",
        image=test_images[:SAMPLE_IMAGES],
        label=test_labels[:SAMPLE_IMAGES],
    )
    (chosen.folder / "digits.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
