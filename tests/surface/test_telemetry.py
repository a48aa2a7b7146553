"""What the surface counts of itself."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from dispatcher_http.telemetry import Telemetry


def test_answers_are_counted_by_method_route_and_status() -> None:
    registry = CollectorRegistry()
    telemetry = Telemetry(registry)
    for method, status in (("GET", 200), ("GET", 200), ("GET", 404), ("PUT", 200)):
        telemetry.count(method, "/a/<id>", status)

    def value(method: str, status: str) -> float | None:
        labels = {"method": method, "route": "/a/<id>", "status": status}
        return registry.get_sample_value("dispatcher_http_requests_total", labels)

    assert (value("GET", "200"), value("GET", "404"), value("PUT", "200"), value("PUT", "404")) == (2, 1, 1, None)
