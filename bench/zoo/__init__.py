"""A zoo of real architectures with random weights, built as ONNX graphs in code: `python -m zoo FOLDER` from bench/."""
