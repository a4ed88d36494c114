"""The state that the steps of a channel's loop share, with the settings that it uses at the moment."""

from dataclasses import dataclass
from threading import Condition, Event

from sqlalchemy import Engine
from structlog import get_logger

from tenten.consumers.channel.channel_view import ChannelView
from tenten.consumers.channel.filter import ChannelFilter
from tenten.consumers.channel.own_settings import OwnSettings
from tenten.kafka.schema_registry import writer_schemas
from tenten.runtime.retry import Retry
from tenten.runtime.settings import Settings

log = get_logger(__name__)

_WAIT_SECONDS = 1.0


@dataclass(slots=True, kw_only=True)
class Loop:
    """The state of the loop. Its own thread uses it."""

    channel_id: str
    settings: Settings
    """Those that are in use; replaced by `adopt_settings` only."""
    own: OwnSettings
    engine: Engine
    retry: Retry
    stop: Event
    arrived: Condition
    """Notified when a stream has something to write, when a resync has ended, and when the settings have changed."""
    missing_is_logged: bool = False
    waiting_is_logged: bool = False
    adopted: ChannelView | None = None

    @property
    def view(self) -> ChannelView:
        """The view by which rows are written, once settings are adopted."""
        assert self.adopted is not None
        return self.adopted

    def filter_has_changed(self) -> bool:
        """Whether rows are still written by another filter than that of the newest settings. Does not block."""
        newest = self.own.current
        if newest is self.settings or self.adopted is None:
            return False
        return ChannelFilter.of(newest, self.channel_id) != self.adopted.filter

    def adopt_settings(self) -> bool:
        """Use the newest settings; False after waiting a little for the first ones."""
        newest = self.own.current
        if newest.channel(self.channel_id).legal_entity:
            if self.adopted is None or ChannelFilter.of(newest, self.channel_id) != self.adopted.filter:
                self.adopted = ChannelView.of(newest, self.channel_id, writer_schemas(newest))
            self.settings = newest
            return True
        if not self.waiting_is_logged:
            self.waiting_is_logged = True
            log.warning("channel_settings_missing", channel=self.channel_id)
        with self.arrived:
            if self.own.current is newest and not self.stop.is_set():
                self.arrived.wait(_WAIT_SECONDS)
        return False
