"""The int8 version of a model: static, QDQ, per channel, calibrated on random inputs."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from zoo.graph import make_items

_CALIBRATION = 4  # batches of one item


class _Random(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, model: onnx.ModelProto) -> None:
        self._items: Iterator[dict[str, np.ndarray]] = iter(
            [make_items(model, 1, seed) for seed in range(_CALIBRATION)]
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._items, None)


def quantise(source: Path, target: Path) -> None:
    """Raises whatever the quantiser raises."""
    model = onnx.load(str(source))
    with tempfile.TemporaryDirectory(prefix="zoo") as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(target),
            _Random(model),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
