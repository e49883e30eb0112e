import pytest
from hypothesis import given
from hypothesis import strategies as st

from fettle.core.errors import InvalidInput
from fettle.problems.serve.slo import PERCENTILES, SLO


@pytest.mark.parametrize(
    ("text", "limits", "errors"),
    [
        ("p99=50ms", {"p99": 0.05}, 0.01),
        ("p99<=50ms,errors=1%", {"p99": 0.05}, 0.01),
        (" p50 = 800us , P99.9 <= 1.5s, errors=0.002", {"p50": 8e-4, "p99.9": 1.5}, 0.002),
        ("p95=1e2ms,errors=0%", {"p95": 0.1}, 0.0),
    ],
)
def test_parse(text: str, limits: dict[str, float], errors: float) -> None:
    slo = SLO.parse(text)
    assert dict(slo.latency_s) == pytest.approx(limits)
    assert slo.error_ratio == pytest.approx(errors)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", "''"),
        ("p99", "'p99'"),
        ("p99=50", "unit"),
        ("p99=50m", "unit"),
        ("p99=50msec", "unit"),
        ("p98=50ms", "'p98'"),
        ("p99=-5ms", "-5"),
        ("p99=0ms", "positive"),
        ("p99=1.2.3ms", "1.2.3"),
        ("p99=50ms,p99=40ms", "twice"),
        ("p99=50ms,errors=1%,errors=2%", "twice"),
        ("p99=50ms,errors=100%", "errors"),
        ("p99=50ms,errors=1ms", "unit"),
        ("errors=1%", "latency"),
        ("p99=50ms,", "''"),
        ("p99>50ms", "p99>50ms"),
    ],
)
def test_a_typo_is_named_and_has_a_mend(text: str, names: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        SLO.parse(text)
    assert names in str(caught.value) and caught.value.hint


@given(st.text(max_size=30))
def test_any_text_is_an_slo_or_invalid_input(text: str) -> None:
    try:
        slo = SLO.parse(text)
    except InvalidInput:
        return
    assert slo.latency_s and SLO.parse(str(slo)) == slo


@given(
    st.dictionaries(st.sampled_from(sorted(PERCENTILES)), st.floats(1e-6, 1e3), min_size=1),
    st.floats(0, 0.99),
)
def test_what_is_printed_is_read_again(limits: dict[str, float], errors: float) -> None:
    slo = SLO(limits, errors)
    again = SLO.parse(str(slo))
    assert dict(again.latency_s) == pytest.approx(limits, rel=1e-9)
    assert again.error_ratio == pytest.approx(errors, rel=1e-9)


def test_constraints_have_metric_names() -> None:
    slo = SLO.parse("p50=5ms,p99.9=2s,errors=2%")
    assert slo.constraints() == {"latency_p50_s": 0.005, "latency_p99_9_s": 2.0, "error_ratio": 0.02}
    assert slo.limit_s == 2.0
