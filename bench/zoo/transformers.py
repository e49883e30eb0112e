"""Transformers: encoders like BERT, ALBERT and ELECTRA, one decoder step of GPT with its cache, ViT, and MLP-Mixer."""

import math

from onnx import ModelProto

from zoo.graph import Graph
from zoo.layers import conv

_VOCABULARY = 8192


def heads(g: Graph, x: str, n: int) -> str:
    """(length, width) -> (heads, length, width / heads)."""
    length, width = g.shape[x]
    return g.transpose(g.reshape(x, length, n, width // n), 2, 1, 3)


def attend(g: Graph, q: str, k: str, v: str) -> str:
    """Scaled dot products, each (heads, length, width)."""
    n, rows, width = g.shape[q]
    columns = g.shape[k][1]
    scores = g.op("MatMul", q, g.transpose(k, 1, 3, 2), shape=(n, rows, columns))
    scores = g.op("Div", scores, g.constant(math.sqrt(width)), shape=g.shape[scores])
    weights = g.op("Softmax", scores, shape=g.shape[scores], axis=-1)
    y = g.transpose(g.op("MatMul", weights, v, shape=(n, rows, width)), 2, 1, 3)
    return g.reshape(y, rows, n * width)


def attention(g: Graph, x: str, n: int) -> str:
    width = g.shape[x][1]
    q, k, v = (heads(g, g.dense(x, width), n) for _ in range(3))
    return g.dense(attend(g, q, k, v), width)


def feed_forward(g: Graph, x: str, ratio: int = 4) -> str:
    width = g.shape[x][-1]
    return g.dense(g.dense(x, ratio * width, "gelu", gain=1.4), width)


def encoder(
    g: Graph,
    *,
    layers: int,
    width: int,
    n_heads: int,
    length: int,
    embedded: int | None = None,
    vocabulary: int = _VOCABULARY,
) -> ModelProto:
    """BERT (Devlin et al. 2019, arXiv:1810.04805). embedded: narrower embeddings as in ELECTRA and ALBERT, which
    also shares one layer's weights; sharing changes no operation, so that its layers are stored apart here."""
    ids = g.input("ids", (length,), "int64")
    x = g.embed(ids, vocabulary, embedded or width)
    x = g.layer_norm(g.op("Add", x, g.position(length, embedded or width), shape=g.shape[x]))
    if embedded:
        x = g.dense(x, width)
    for _ in range(layers):
        x = g.layer_norm(g.add(x, attention(g, x, n_heads)))
        x = g.layer_norm(g.add(x, feed_forward(g, x)))
    first = g.op("Gather", x, g.constant(0, "int64"), shape=(width,), axis=1)
    return g.finish(g.dense(g.dense(first, width, "tanh"), 2))


def gpt_step(
    g: Graph, *, layers: int, width: int, n_heads: int, past: int, vocabulary: int = _VOCABULARY
) -> ModelProto:
    """One token after `past` others (Radford et al. 2019), whose keys and values come in; the longer ones go out."""
    x = g.embed(g.input("ids", (1,), "int64"), vocabulary, width)
    caches = []
    for i in range(layers):
        y = g.layer_norm(x)
        q, k, v = (heads(g, g.dense(y, width), n_heads) for _ in range(3))
        k = g.concat([g.input(f"key_{i}", (n_heads, past, width // n_heads)), k], axis=2)
        v = g.concat([g.input(f"value_{i}", (n_heads, past, width // n_heads)), v], axis=2)
        caches += [k, v]
        x = g.add(x, g.dense(attend(g, q, k, v), width))
        x = g.add(x, feed_forward(g, g.layer_norm(x)))
    return g.finish(g.dense(g.layer_norm(x), vocabulary), *caches)


def _patches(g: Graph, size: int, patch: int, width: int) -> str:
    x = conv(g, g.input("image", (3, size, size)), width, patch, stride=patch, act=None)
    side = g.shape[x][1]
    return g.transpose(g.reshape(x, width, side * side), 2, 1)


def vit(g: Graph, *, layers: int, width: int, n_heads: int, size: int, patch: int = 16) -> ModelProto:
    """Dosovitskiy et al. 2021, arXiv:2010.11929; the mean of the tokens is classified."""
    x = _patches(g, size, patch, width)
    x = g.op("Add", x, g.position(*g.shape[x]), shape=g.shape[x])
    for _ in range(layers):
        x = g.add(x, attention(g, g.layer_norm(x), n_heads))
        x = g.add(x, feed_forward(g, g.layer_norm(x)))
    mean = g.op("ReduceMean", g.layer_norm(x), shape=(width,), axes=[1], keepdims=0)
    return g.finish(g.dense(mean, 1000))


def mixer(g: Graph, *, layers: int, width: int, size: int, patch: int = 16) -> ModelProto:
    """MLP-Mixer (Tolstikhin et al. 2021, arXiv:2105.01601)."""
    x = _patches(g, size, patch, width)
    for _ in range(layers):
        mixed = feed_forward(g, g.transpose(g.layer_norm(x), 2, 1), 2)
        x = g.add(x, g.transpose(mixed, 2, 1))
        x = g.add(x, feed_forward(g, g.layer_norm(x)))
    mean = g.op("ReduceMean", g.layer_norm(x), shape=(width,), axes=[1], keepdims=0)
    return g.finish(g.dense(mean, 1000))
