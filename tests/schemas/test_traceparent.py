"""``traceparent``: read as the reference implementation reads it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from schemas.traceparent import TraceParent, parse_traceparent, trace_id_of

HEX = "0123456789abcdef"
PARTS = st.tuples(
    st.sampled_from(["00", "01", "cc", "ff", "0", "0A"]),
    st.one_of(st.text(HEX, min_size=32, max_size=32), st.just("0" * 32), st.text(HEX + "A-", max_size=34)),
    st.one_of(st.text(HEX, min_size=16, max_size=16), st.just("0" * 16), st.text(HEX + "F", max_size=18)),
    st.one_of(st.text(HEX, min_size=2, max_size=2), st.text(max_size=3)),
)


@given(st.one_of(PARTS.map("-".join), st.tuples(PARTS.map("-".join), st.text(max_size=5)).map("".join), st.text()))
def test_it_is_read_as_opentelemetry_reads_it(text: str) -> None:
    context = TraceContextTextMapPropagator().extract({"traceparent": text})
    theirs = get_current_span(context).get_span_context()
    ours = parse_traceparent(text)
    if ours is None:
        assert not theirs.is_valid or text != text.strip()  # they read past blanks around it
    else:
        assert (ours.trace_id, ours.span_id) == (theirs.trace_id, theirs.span_id)
        assert ours.flags == theirs.trace_flags


@given(st.integers(1, (1 << 128) - 1), st.integers(1, (1 << 64) - 1), st.integers(0, 255))
def test_what_is_written_is_read_again(trace: int, span: int, flags: int) -> None:
    written = str(TraceParent(trace, span, flags))
    assert parse_traceparent(written) == TraceParent(trace, span, flags)
    assert trace_id_of(written) == written[3:35]


def test_nothing_is_no_trace() -> None:
    assert trace_id_of(None) is None
    assert trace_id_of("00-0-0-00") is None
