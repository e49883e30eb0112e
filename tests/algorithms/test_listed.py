"""Listed params through the unit cube."""

import fettle
from fettle.algorithms.cube import Cube


def test_listed_params_come_back_as_they_are_listed() -> None:
    """Decoding what was encoded rounds: the result would not be among them."""
    listed = [{"x": 0.1 * i, "y": 0.3 * i + 0.001} for i in range(20)]
    cube = Cube(fettle.Space(x=fettle.Float(-6.2, 3.3), y=fettle.Float(1e-5, 8, log=True), only=listed))
    assert cube.grid is not None
    assert [cube.params(u) for u in cube.grid] == listed
