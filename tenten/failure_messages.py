"""Failures in one sentence for the person at the terminal, without personal data."""


def explain(error: Exception) -> str | None:
    """The sentence; None for an unexpected error, which is a bug."""
    from confluent_kafka import KafkaException
    from sqlalchemy.exc import DBAPIError

    from tenten.runtime.errors import TentenError

    match error:
        case TentenError():
            return str(error)
        case KafkaException():
            return _of_kafka(error)
        case DBAPIError():
            return _of_database(error)
        case OSError() if error.filename is not None:
            return f"{error.filename}: {error.strerror}"
        case _:
            return None


def _of_kafka(error: Exception) -> str:
    from confluent_kafka import KafkaError, KafkaException

    from tenten.kafka.client_errors import refusal_of

    refusal = refusal_of(error) if isinstance(error, KafkaException) else None
    if refusal is not None:
        return str(refusal)
    cause = error.args[0] if error.args else "no reason given"
    return f"Kafka does not answer: {cause.str() if isinstance(cause, KafkaError) else cause}; see `tenten doctor`"


def _of_database(error: Exception) -> str:
    """The sentence without statement and server details, which may contain personal data."""
    from tenten.runtime.database_refusal import remedy_of
    from tenten.runtime.error_codes import error_code, is_full

    if is_full(error):
        return "no space is left on the disk of the database: nothing was written; make room, then repeat the command"
    cause = getattr(error, "orig", None)
    code = error_code(error)
    if code is None:
        first_line = str(cause).partition("\n")[0]
        return f"the database does not answer: {first_line}; see `tenten doctor`"
    return (
        f"the database reported an error ({type(cause).__name__}, {code}); {remedy_of(error) or 'see `tenten doctor`'}"
    )
