"""Recurrent networks, recommenders and networks for tables."""

from collections.abc import Sequence

from onnx import ModelProto

from zoo.graph import Graph


def recurrent(g: Graph, *, cell: str, length: int, width: int, layers: int, both_ways: bool = False) -> ModelProto:
    """LSTM (Hochreiter & Schmidhuber 1997) or GRU (Cho et al. 2014, arXiv:1406.1078) over a series of 64 features."""
    x = g.input("series", (length, 64))
    gates, ways = {"LSTM": 4, "GRU": 3}[cell], 2 if both_ways else 1
    # time comes first for ONNX's recurrent operators, so the batch is the second axis here
    x = g.op("Transpose", x, shape=(length, 64), perm=[1, 0, 2])
    for _ in range(layers):
        channels = g.shape[x][-1]
        given = g.weight(ways, gates * width, channels, fan_in=channels)
        kept = g.weight(ways, gates * width, width, fan_in=width)
        direction = "bidirectional" if both_ways else "forward"
        y = g.op(cell, x, given, kept, shape=(ways, length, width), hidden_size=width, direction=direction)
        y = g.op("Transpose", y, shape=(length, ways, width), perm=[0, 2, 1, 3])
        x = g.op("Reshape", y, g.constant([0, 0, ways * width], "int64"), shape=(length, ways * width))
    last = g.op("Gather", x, g.constant(length - 1, "int64"), shape=(ways * width,), axis=0)
    return g.finish(g.dense(last, 100))


def mlp(g: Graph, *, features: int, width: int, depth: int, act: str = "relu") -> ModelProto:
    x = g.input("row", (features,))
    for _ in range(depth):
        x = g.dense(x, width, act, gain=1.4)
    return g.finish(g.dense(x, 10))


def autoencoder(g: Graph, *, features: int, widths: Sequence[int]) -> ModelProto:
    x = g.input("row", (features,))
    for width in (*widths, *reversed(widths[:-1])):
        x = g.dense(x, width, "relu", gain=1.4)
    return g.finish(g.dense(x, features))


def resnet_table(g: Graph, *, features: int, width: int, depth: int) -> ModelProto:
    """A residual network for tables (Gorishniy et al. 2021, arXiv:2106.11959)."""
    x = g.dense(g.input("row", (features,)), width)
    for _ in range(depth):
        x = g.add(x, g.dense(g.dense(g.layer_norm(x), 2 * width, "relu", gain=1.4), width))
    return g.finish(g.dense(g.layer_norm(x), 10))


def _tables(g: Graph, n: int, rows: int, width: int) -> list[str]:
    ids = g.input("ids", (n,), "int64")
    column = [g.op("Gather", ids, g.constant(i, "int64"), shape=(), axis=1) for i in range(n)]
    return [g.embed(one, rows, width) for one in column]


def dlrm(g: Graph, *, tables: int, rows: int, width: int, bottom: Sequence[int], top: Sequence[int]) -> ModelProto:
    """Naumov et al. 2019, arXiv:1906.00091: all pairs of embeddings meet by their dot products."""
    dense = g.input("numbers", (13,))
    for size in (*bottom, width):
        dense = g.dense(dense, size, "relu", gain=1.4)
    vectors = [dense, *_tables(g, tables, rows, width)]
    n = len(vectors)
    stacked = g.concat([g.reshape(v, 1, width) for v in vectors])
    products = g.op("MatMul", stacked, g.transpose(stacked, 2, 1), shape=(n, n))
    x = g.concat([dense, g.reshape(products, n * n)])
    for size in top:
        x = g.dense(x, size, "relu", gain=0.5)
    return g.finish(g.dense(x, 1, "sigmoid"))


def wide_deep(g: Graph, *, tables: int, rows: int, width: int, deep: Sequence[int]) -> ModelProto:
    """Cheng et al. 2016, arXiv:1606.07792."""
    numbers = g.input("numbers", (13,))
    x = g.concat([numbers, *_tables(g, tables, rows, width)])
    for size in deep:
        x = g.dense(x, size, "relu", gain=1.4)
    return g.finish(g.act(g.add(g.dense(x, 1), g.dense(numbers, 1)), "sigmoid"))
