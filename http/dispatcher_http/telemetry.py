"""What the surface counts of itself. Labels are routes, methods and status codes: nothing of a request's content."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge


class Telemetry:
    """The surface's metrics, in the process's registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "dispatcher_http_requests", "Requests answered.", ["method", "route", "status"], registry=registry
        )
        self.listeners = Gauge("dispatcher_http_listeners", "Websockets that listen now.", registry=registry)
        self.listeners_cut = Counter(
            "dispatcher_http_listeners_cut", "Websockets closed because they did not keep up.", registry=registry
        )

    def counter(self, method: str, route: str) -> Callable[[int], None]:
        """Counts the answers of one route, given their status. Resolves each label once: the hot path counts too."""
        children: dict[int, Counter] = {}

        def count(status: int) -> None:
            child = children.get(status)
            if child is None:
                child = children[status] = self._requests.labels(method, route, str(status))
            child.inc()

        return count
