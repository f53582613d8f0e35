"""What ends some day, as metrics: credentials, and the versions of vendors' APIs. Asked on every scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ops.watch import metrics
from ops.watch.metrics import Metric as Row


class Expiries(Collector):
    """``credentials`` and ``apis`` answer when what is called so ends, in seconds since the epoch; both are called in
    the scraping thread. What says nothing of its end has no series."""

    def __init__(
        self, credentials: Callable[[], Mapping[str, float]], apis: Callable[[], Mapping[str, float]] = dict
    ) -> None:
        self._of = ((metrics.CREDENTIAL_EXPIRY, credentials), (metrics.API_SUNSET, apis))

    def describe(self) -> Iterable[Metric]:
        return [_family(row) for row, _ in self._of]

    def collect(self) -> Iterable[Metric]:
        for row, ends in self._of:
            family = _family(row)
            for name, at in sorted(ends().items()):
                family.add_metric([name], at)
            yield family


def _family(row: Row) -> GaugeMetricFamily:
    return GaugeMetricFamily(row.name, row.meaning, labels=row.labels)
