"""The errors with which headquarters' workers refuse to continue when something has changed underneath them.

Each says what happened, what it means, and the command that leads out.
"""

from tenten.runtime.errors import DatabaseOlderThanStream, TopicChanged


def database_older(evidence: str) -> DatabaseOlderThanStream:
    """The error of a database that lacks what headquarters has already told its channels."""
    return DatabaseOlderThanStream(
        f"headquarters' database is older than the stream: {evidence}. It was restored from a backup, or replaced by "
        "an older copy, and would assign account numbers twice. Nothing was written. Stop the workers of headquarters "
        "and run `tenten headquarters recover`, which takes back from the topics what the database lacks"
    )


def input_repartitioned(topic: str, before: int, now: int) -> TopicChanged:
    """The error of a topic that headquarters reads and whose number of partitions was changed."""
    return TopicChanged(
        f"topic {topic} has {now} partitions instead of {before}: the same key now goes to another partition, so two "
        f"workers could own one customer. Delete the topic and run `tenten topics apply` with `partitions = {before}` "
        "in tenten.toml; nothing is lost, since stores send again whatever has no answer"
    )


def output_repartitioned(topic: str, before: int, now: int) -> TopicChanged:
    """The error of a topic of replies whose number of partitions was changed."""
    return TopicChanged(
        f"topic {topic} has {now} partitions instead of {before}: a channel reads one of them, and its replies now go "
        f"to another one. Delete the topic and run `tenten topics apply` with `partitions = {before}` in tenten.toml; "
        "nothing is lost, since stores send again whatever has no answer"
    )


def customers_repartitioned(topic: str, before: int, now: int) -> TopicChanged:
    """The error of a topic of customers whose number of partitions was changed."""
    return TopicChanged(
        f"topic {topic} has {now} partitions instead of {before}: versions of a customer are in two partitions, and "
        "channels stop. Nothing is lost: stop all workers, delete the topic, run `tenten topics apply` with "
        f"`partitions = {before}` in tenten.toml, then `tenten headquarters republish`"
    )


def customers_recreated(topic: str) -> TopicChanged:
    """The error of a topic of customers that was deleted and created again: it no longer has every customer."""
    return TopicChanged(
        f"topic {topic} was deleted and created again, so it no longer has every customer. Nothing is lost: stop the "
        "workers of headquarters and run `tenten headquarters republish`, which sends every customer again"
    )
