"""Sobol points with a random digital shift.

Direction numbers: Joe & Kuo 2008 (doi:10.1137/070709359), new-joe-kuo-6, the first 21 dimensions. The shift
(XOR of each coordinate's digits with random ones) keeps the net and makes every point uniform. Dimensions
beyond the 21st follow a rotated Kronecker sequence, frac(i sqrt(p) + shift) with the primes p: less even in
projections, but without a table of a thousand rows.
"""

import numpy as np

_BITS = 30
_POLYNOMIALS = (1, 3, 7, 11, 13, 19, 25, 37, 41, 47, 55, 59, 61, 67, 91, 97, 103, 109, 115, 131, 137)
_INITIAL = (
    (1,),
    (1,),
    (1, 3),
    (1, 3, 1),
    (1, 1, 1),
    (1, 1, 3, 3),
    (1, 3, 5, 13),
    (1, 1, 5, 5, 17),
    (1, 1, 5, 5, 5),
    (1, 1, 7, 11, 19),
    (1, 1, 5, 1, 1),
    (1, 1, 1, 3, 11),
    (1, 3, 5, 5, 31),
    (1, 3, 3, 9, 7, 49),
    (1, 1, 1, 15, 21, 21),
    (1, 3, 1, 13, 27, 49),
    (1, 1, 1, 15, 7, 5),
    (1, 3, 1, 15, 13, 25),
    (1, 1, 5, 5, 19, 61),
    (1, 3, 7, 11, 23, 15, 103),
    (1, 3, 7, 13, 13, 15, 69),
)
DIMENSIONS = len(_POLYNOMIALS)


def directions(dimension: int) -> np.ndarray:
    """The direction numbers (30,) of one dimension, as 30-bit integers; recurrence (2) of Joe & Kuo."""
    if dimension == 0:
        m = [1] * _BITS
    else:
        polynomial = _POLYNOMIALS[dimension]
        degree = polynomial.bit_length() - 1
        m = list(_INITIAL[dimension])
        for k in range(degree, _BITS):
            new = m[k - degree] ^ (m[k - degree] << degree)
            for i in range(1, degree):
                if polynomial >> (degree - i) & 1:
                    new ^= m[k - i] << i
            m.append(new)
    return np.array([m[k] << (_BITS - 1 - k) for k in range(_BITS)], dtype=np.int64)


class Sobol:
    """Points by index: `points(start, n)` -> (n, d) in the open unit cube."""

    def __init__(self, d: int, seed: int) -> None:
        rng = np.random.default_rng([seed, 0x50B01])
        self._table = np.array([directions(j) for j in range(min(d, DIMENSIONS))], dtype=np.int64).reshape(-1, _BITS)
        self._shift = rng.integers(0, 2**_BITS, size=len(self._table))
        primes = _primes(d - len(self._table))
        self._roots = np.sqrt(np.array(primes, dtype=float)) % 1.0
        self._offset = rng.random(len(primes))

    def points(self, start: int, n: int) -> np.ndarray:
        index = np.arange(start, start + n, dtype=np.int64) % 2**_BITS
        x = np.broadcast_to(self._shift, (n, len(self._shift))).copy()
        for k in range(int(start + n).bit_length()):
            x ^= ((index >> k) & 1)[:, None] * self._table[:, min(k, _BITS - 1)]
        rest = (index[:, None] * self._roots + self._offset) % 1.0
        return np.concatenate([(x + 0.5) / 2**_BITS, rest], axis=1)


def _primes(n: int) -> list[int]:
    found: list[int] = []
    candidate = 2
    while len(found) < n:
        if all(candidate % p for p in found):
            found.append(candidate)
        candidate += 1
    return found
