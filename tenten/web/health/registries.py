"""The metrics of each kind of process."""

from prometheus_client import CollectorRegistry
from sqlalchemy import Engine

from tenten.runtime.metrics import ProcessKind
from tenten.runtime.settings import Settings
from tenten.web.health.collector import CachedRead, registry_of
from tenten.web.health.reads import HeartbeatReads, channel_database, channel_lag, headquarters_database, worker_lag
from tenten.workers import HEADQUARTERS, Worker


def headquarters_registry(settings: Settings, worker: Worker, engine: Engine) -> CollectorRegistry:
    """The metrics of a worker of headquarters."""
    is_customers = worker is HEADQUARTERS
    kind: ProcessKind = "headquarters" if is_customers else "transactions"
    reads = [
        CachedRead("database", headquarters_database(engine, settings, worker)),
        CachedRead("broker", worker_lag(settings, worker)),
    ]
    if is_customers:
        reads.append(CachedRead("heartbeats", HeartbeatReads(settings, engine).read))
    return registry_of(kind, worker.name, reads)


def channel_registry(settings: Settings, channel: str, engine: Engine) -> CollectorRegistry:
    """The metrics of a process of a channel."""
    reads = [
        CachedRead("database", channel_database(engine, settings, channel)),
        CachedRead("broker", channel_lag(engine, settings, channel)),
    ]
    return registry_of("channel", channel, reads)


def dashboard_registry() -> CollectorRegistry:
    """The metrics of the dashboard: of the process and its requests. What it shows are metrics of the workers."""
    return registry_of("dashboard", "dashboard", [])
