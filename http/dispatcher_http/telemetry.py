"""What the surface counts of itself. Labels are routes, methods and status codes: nothing of a request's content."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class Telemetry:
    """The surface's metrics, in the process's registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "dispatcher_http_requests", "Requests answered.", ["method", "route", "status"], registry=registry
        )
        # As many as there are routes, times the statuses they have.
        self._children: dict[tuple[str, str, int], Counter] = {}
        self.listeners = Gauge("dispatcher_http_listeners", "Websockets that listen now.", registry=registry)
        self.listeners_cut = Counter(
            "dispatcher_http_listeners_cut", "Websockets closed because they did not keep up.", registry=registry
        )

    def count(self, method: str, route: str, status: int) -> None:
        """Count one answer. Labels are resolved once: the hot path counts too."""
        key = (method, route, status)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self._requests.labels(method, route, str(status))
        child.inc()
