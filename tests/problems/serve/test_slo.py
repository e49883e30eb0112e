import pytest
from hypothesis import given
from hypothesis import strategies as st

from fettle.core.errors import InvalidInput
from fettle.problems.serve.slo import PERCENTILES, SLO


def test_parse():
    assert SLO.parse("p99=50ms,errors=1%") == SLO({"p99": 0.05}, 0.01)
    slo = SLO.parse(" p99<=50ms , p50 = 800us,errors=0.5%")
    assert dict(slo.latency_s) == pytest.approx({"p99": 0.05, "p50": 0.0008})
    assert slo.error_ratio == pytest.approx(0.005)
    assert SLO.parse("p99.9=1.5s").constraints() == {"latency_p99_9_s": 1.5, "error_ratio": 0.01}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "name=limit"),
        ("p99", "name=limit"),
        ("p99=50", "unit of time"),
        ("p99=50min", "unit of time"),
        ("p98=50ms", "p98"),
        ("latency=50ms", "latency"),
        ("p99=0ms", "positive"),
        ("p99=1.2.3ms", "not a number"),
        ("p99=50ms,p99=60ms", "twice"),
        ("errors=1%", "at least one latency"),
        ("p99=50ms,errors=5ms", "per cent"),
        ("p99=50ms,errors=100%", "errors"),
        ("p99=50ms;errors=1%", "name=limit"),
    ],
)
def test_typos_are_explained(text, says):
    with pytest.raises(InvalidInput, match=says) as caught:
        SLO.parse(text)
    assert "p99=50ms" in caught.value.hint


@given(
    st.dictionaries(st.sampled_from(list(PERCENTILES)), st.floats(1e-5, 1e3), min_size=1),
    st.floats(0.0, 0.99),
)
def test_text_round_trip(limits, errors):
    slo = SLO(limits, errors)
    again = SLO.parse(str(slo))
    assert again.latency_s == pytest.approx(slo.latency_s, rel=1e-9)
    assert again.error_ratio == pytest.approx(slo.error_ratio, rel=1e-9, abs=1e-13)


@given(st.text(max_size=30))
def test_no_text_breaks_it(text):
    try:
        slo = SLO.parse(text)
    except InvalidInput:
        return
    assert slo.latency_s
