"""Sobol points by index, digitally shifted by a seed.

Direction numbers of Joe and Kuo (2008, doi:10.1137/070709359) for the first 21 dimensions; further ones are
padded with pseudo-random numbers, which keeps the first dimensions' uniformity (Owen 1998).
"""

import numpy as np

_BITS = 32
# (degree s, coefficients a, initial numbers m) of dimensions 2, 3, ...
_POLYNOMIALS = (
    (1, 0, (1,)),
    (2, 1, (1, 3)),
    (3, 1, (1, 3, 1)),
    (3, 2, (1, 1, 1)),
    (4, 1, (1, 1, 3, 3)),
    (4, 4, (1, 3, 5, 13)),
    (5, 2, (1, 1, 5, 5, 17)),
    (5, 4, (1, 1, 5, 5, 5)),
    (5, 7, (1, 1, 7, 11, 19)),
    (5, 11, (1, 1, 5, 1, 1)),
    (5, 13, (1, 1, 1, 3, 11)),
    (5, 14, (1, 3, 5, 5, 31)),
    (6, 1, (1, 3, 3, 9, 7, 49)),
    (6, 13, (1, 1, 1, 15, 21, 21)),
    (6, 16, (1, 3, 1, 13, 27, 49)),
    (6, 19, (1, 1, 1, 15, 7, 5)),
    (6, 22, (1, 3, 1, 15, 13, 25)),
    (6, 25, (1, 1, 5, 5, 19, 61)),
    (7, 1, (1, 3, 7, 11, 23, 15, 103)),
    (7, 4, (1, 3, 7, 13, 13, 15, 69)),
)
TABULATED = len(_POLYNOMIALS) + 1


class Sobol:
    """`point(index)` -> (d,) in (0, 1); the same for the same d, seed and index, in any order of calls."""

    def __init__(self, d: int, seed: int) -> None:
        self._d, self._seed = d, seed
        self._directions = np.array([_directions(j) for j in range(min(d, TABULATED))], dtype=np.uint64).reshape(
            -1, _BITS
        )
        self._shift = np.random.default_rng([seed, 0x50B01]).integers(
            0, 1 << _BITS, len(self._directions), dtype=np.uint64
        )

    def point(self, index: int) -> np.ndarray:
        bits = [b for b in range(_BITS) if index >> b & 1]
        x = np.bitwise_xor.reduce(self._directions[:, bits], axis=1) if bits else np.zeros_like(self._shift)
        u = ((x ^ self._shift).astype(float) + 0.5) / (1 << _BITS)
        if self._d > TABULATED:
            rest = np.random.default_rng([self._seed, 0x9AD, index]).random(self._d - TABULATED)
            u = np.concatenate([u, rest])
        return u


def _directions(j: int) -> list[int]:
    """Direction numbers v_1 .. v_32 of dimension j, scaled to 32 bits (eqs. 2 and 3 of the paper)."""
    if j == 0:
        return [1 << (_BITS - 1 - i) for i in range(_BITS)]
    s, a, m = _POLYNOMIALS[j - 1]
    v = [m[i] << (_BITS - 1 - i) for i in range(s)]
    for i in range(s, _BITS):
        new = v[i - s] ^ (v[i - s] >> s)
        for k in range(1, s):
            if a >> (s - 1 - k) & 1:
                new ^= v[i - k]
        v.append(new)
    return v
