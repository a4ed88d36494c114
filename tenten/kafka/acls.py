"""Access control lists: those that the catalogue implies for an installation, and those that the brokers have."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclBindingFilter, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType

from tenten.kafka.client_config import REQUEST_SECONDS
from tenten.kafka.client_errors import call_kafka
from tenten.kafka.topics_admin import ask
from tenten.runtime.errors import SettingsError, TentenError
from tenten.runtime.settings import Settings
from tenten.schemas.messages import HEADQUARTERS
from tenten.schemas.privileges import Resource, privileges
from tenten.schemas.topics import HEADQUARTERS_ROLES, Role

OPERATOR: Final = "operator"
PRINCIPAL: Final = "User:{name}"
"""The principal of a name, by default; a client certificate may give it another form."""

_ROLES_BY_NAME: Final = {
    HEADQUARTERS: (Role.CUSTOMERS_WORKER, Role.TRANSACTIONS_WORKER),
    OPERATOR: (Role.OPERATOR,),
}
"""The users of headquarters: its workers share one, because they share a database."""

_TYPES: Final = {
    Resource.TOPIC: ResourceType.TOPIC,
    Resource.GROUP: ResourceType.GROUP,
    Resource.TRANSACTIONAL_ID: ResourceType.TRANSACTIONAL_ID,
}
_NAMES_OF_TYPES: Final = {kind: name.value for name, kind in _TYPES.items()}
_EVERY: Final = "*"
"""Kafka's name for every host, and for every resource of a kind."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Acl:
    """One operation that a principal may do with a resource; the words are Kafka's, in lower case."""

    principal: str
    resource: str
    name: str
    """With the prefix of the settings."""
    pattern: str
    """literal or prefixed."""
    operation: str
    permission: str = "allow"
    host: str = _EVERY


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A user of Kafka: a name of ours, and the principal that the brokers know it by."""

    name: str
    principal: str
    is_channel: bool
    acls: tuple[Acl, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AclChanges:
    """The result of `apply_acls`."""

    added: list[Acl]
    kept: list[Acl]
    """Those that the brokers had."""
    surplus: list[Acl]
    """Others of our users, or for our topics, groups and transactional ids. They stay."""


def users(settings: Settings, channels: Iterable[str], template: str = PRINCIPAL, *, only_channels: bool) -> list[User]:
    """The users of these channels, and unless `only_channels` those of headquarters, each with its privileges.

    `{name}` in the template is replaced by the name of the channel, `headquarters` or `operator`.
    Raises: `SettingsError` when two users have the same principal.
    """
    found = [] if only_channels else [_user(settings, name, roles, template) for name, roles in _ROLES_BY_NAME.items()]
    found += [_user(settings, name, (Role.CHANNEL,), template) for name in channels]
    others = {template.replace("{name}", name) for name in _ROLES_BY_NAME} if only_channels else set[str]()
    for user in found:
        if user.principal in others:
            raise SettingsError(
                f"{user.name} would have the principal {user.principal} of another user, and its privileges with it: "
                "give each its own name, and a --principal that contains {name}"
            )
        others.add(user.principal)
    return found


def apply_acls(settings: Settings, wanted: Sequence[User]) -> AclChanges:
    """Create those of the users' access control lists that the brokers lack. Deletes none. Idempotent.

    Needs ALTER and DESCRIBE on the cluster. Raises: `TentenError` where the brokers check no privileges;
    `KafkaRefused`; `KafkaException`.
    """
    ours = sorted({acl for user in wanted for acl in user.acls})
    existing = set(_existing(settings))
    missing = {_binding(acl): acl for acl in ours if acl not in existing}
    if missing:
        answers = ask(settings, lambda admin: admin.create_acls([*missing], request_timeout=REQUEST_SECONDS))
        for future in answers.values():
            _checked(future.result)
    return AclChanges(
        added=[*missing.values()],
        kept=[acl for acl in ours if acl in existing],
        surplus=sorted(acl for acl in existing.difference(ours) if _concerns(acl, wanted)),
    )


def _user(settings: Settings, name: str, roles: Sequence[Role], template: str) -> User:
    principal = template.replace("{name}", name)
    acls = {acl for role in roles for acl in _acls(settings, role, name, principal)}
    # What one role may describe, another may read or write.
    usable = {(acl.resource, acl.name, acl.pattern) for acl in acls if acl.operation in ("read", "write")}
    acls = {acl for acl in acls if acl.operation != "describe" or (acl.resource, acl.name, acl.pattern) not in usable}
    return User(
        name=name,
        principal=principal,
        is_channel=not HEADQUARTERS_ROLES.intersection(roles),
        acls=tuple(sorted(acls)),
    )


def _acls(settings: Settings, role: Role, channel: str, principal: str) -> Iterator[Acl]:
    for privilege in privileges(role, channel):
        for operation in privilege.operations:
            yield Acl(
                principal=principal,
                resource=privilege.resource.value,
                name=settings.prefix + privilege.name,
                pattern="prefixed" if privilege.is_prefix else "literal",
                operation=operation.value.lower(),
            )


def _existing(settings: Settings) -> Iterator[Acl]:
    """The access control lists of topics, groups and transactional ids. Raises: as `apply_acls`."""
    # The stubs of the client do not have the None that stands for any.
    any_text: Any = None
    every = AclBindingFilter(
        ResourceType.ANY,
        any_text,
        ResourcePatternType.ANY,
        any_text,
        any_text,
        AclOperation.ANY,
        AclPermissionType.ANY,
    )

    def question(admin: AdminClient) -> "dict[str, Future[list[AclBinding]]]":
        return {"all": admin.describe_acls(every, request_timeout=REQUEST_SECONDS)}

    for binding in _checked(ask(settings, question)["all"].result):
        if binding.restype in _NAMES_OF_TYPES:
            yield Acl(
                principal=binding.principal,
                resource=_NAMES_OF_TYPES[binding.restype],
                name=binding.name,
                pattern=binding.resource_pattern_type.name.lower(),
                operation=binding.operation.name.lower(),
                permission=binding.permission_type.name.lower(),
                host=binding.host,
            )


def _binding(acl: Acl) -> AclBinding:
    return AclBinding(
        _TYPES[Resource(acl.resource)],
        acl.name,
        ResourcePatternType[acl.pattern.upper()],
        acl.principal,
        acl.host,
        AclOperation[acl.operation.upper()],
        AclPermissionType[acl.permission.upper()],
    )


def _checked(call: Callable[[], Any]) -> Any:
    """The answer. Raises: as `apply_acls`."""
    try:
        return call_kafka(call, "access control lists")
    except KafkaException as error:
        if error.args[0].code() == KafkaError.SECURITY_DISABLED:
            raise TentenError(
                "the brokers check no privileges: set authorizer.class.name, and a user for each listener, first"
            ) from error
        raise


def _concerns(acl: Acl, wanted: Sequence[User]) -> bool:
    """Whether the entry is for one of these users, or for a resource of theirs."""
    if acl.principal in {user.principal for user in wanted}:
        return True
    return any(_overlap(acl, ours) for user in wanted for ours in user.acls)


def _overlap(acl: Acl, ours: Acl) -> bool:
    """Whether both are about a resource of the same name."""
    if acl.resource != ours.resource:
        return False
    if acl.pattern == "prefixed":
        return ours.name.startswith(acl.name)
    return acl.name in (ours.name, _EVERY)
