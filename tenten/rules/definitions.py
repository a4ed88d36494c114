"""The attributes and customer groups that a legal entity has defined, and the rules that follow from them.

Customers, orders or sales for which nothing is defined may have any attribute. Of a new customer, an order or a sale
everything is checked, of an edit only what it changes: a later definition must not make the other fields of existing
customers impossible to edit.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from tenten.schemas.messages import Attribute, AttributeDefinition, CustomerState, Reason, TransactionKind

_CUSTOMER: Final = "customer"
_ORDER: Final = "order"
_SALE: Final = "sale"
"""The entities of definitions."""

LOYALTY_CARD: Final = "loyalty_card"
"""The attribute in which a customer's loyalty card is stored: it needs no definition."""

_GROUP: Final = "customer_group"
_ATTRIBUTES: Final = "attributes/"

_YES_OR_NO: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerDefinitions:
    """What the customers of a legal entity may have."""

    attributes: Mapping[str, AttributeDefinition]
    """By name; empty: any attribute."""
    groups: frozenset[str]
    """Empty: any group."""

    @classmethod
    def of(cls, attributes: Iterable[AttributeDefinition], groups: Iterable[str]) -> "CustomerDefinitions":
        """The definitions, of the attributes those of customers."""
        return cls(attributes=_used_by(_CUSTOMER, attributes), groups=frozenset(groups))

    @property
    def none(self) -> bool:
        """Whether everything is allowed."""
        return not self.attributes and not self.groups


ANYTHING: Final = CustomerDefinitions(attributes={}, groups=frozenset())
"""Of a legal entity without definitions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionDefinitions:
    """What the orders and sales of a legal entity may have."""

    orders: Mapping[str, AttributeDefinition]
    """By name; empty: any attribute."""
    sales: Mapping[str, AttributeDefinition]
    """The same for cash-and-carry sales."""

    @classmethod
    def of(cls, attributes: Sequence[AttributeDefinition]) -> "TransactionDefinitions":
        """The definitions, of the attributes those of orders and sales."""
        return cls(orders=_used_by(_ORDER, attributes), sales=_used_by(_SALE, attributes))

    @property
    def none(self) -> bool:
        """Whether everything is allowed."""
        return not self.orders and not self.sales

    def of_kind(self, kind: TransactionKind) -> Mapping[str, AttributeDefinition]:
        """The definitions for a transaction of this kind; an end of day has none."""
        return {TransactionKind.ORDER: self.orders, TransactionKind.CASH_AND_CARRY: self.sales}.get(kind, {})


ANY_TRANSACTION: Final = TransactionDefinitions(orders={}, sales={})
"""Of a legal entity without definitions."""


def _used_by(entity: str, attributes: Iterable[AttributeDefinition]) -> dict[str, AttributeDefinition]:
    return {each.name: each for each in attributes if entity in each.entities}


def definition_violations(
    definitions: CustomerDefinitions, state: CustomerState, changed: Collection[str] | None
) -> tuple[Reason, ...]:
    """The definitions that a customer breaks in these paths; None: in any, as for a new customer."""
    if definitions.none:
        return ()
    return tuple(_violations(definitions, state.customer_group, state.attributes, changed))


def differing(before: CustomerState, after: CustomerState) -> set[str]:
    """The paths of the customer group and of attributes that differ between two states of a customer."""
    attributes = {*before.attributes} ^ {*after.attributes}
    paths = {_ATTRIBUTES + attribute.name for attribute in attributes}
    return paths if before.customer_group == after.customer_group else {*paths, _GROUP}


def is_as_defined(definitions: CustomerDefinitions, group: str, attributes: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a new customer, whose attributes are decoded records, breaks no definition."""
    values = [Attribute(**attribute) for attribute in attributes]
    return next(_violations(definitions, group, values, None), None) is None


def with_initial_values(definitions: CustomerDefinitions, state: CustomerState) -> CustomerState:
    """A new customer with the initial values of defined attributes that it does not have."""
    attributes = with_initial_attributes(definitions.attributes, state.attributes)
    return state if attributes is state.attributes else replace(state, attributes=attributes)


def with_initial_attributes(
    defined: Mapping[str, AttributeDefinition], attributes: tuple[Attribute, ...]
) -> tuple[Attribute, ...]:
    """The attributes of something new, with the initial values of those that it does not have, by name."""
    names = {attribute.name for attribute in attributes}
    added = [
        _attribute_of_text(definition, definition.initial)
        for name, definition in defined.items()
        if definition.initial is not None and name not in names
    ]
    return tuple(sorted((*attributes, *added), key=lambda attribute: attribute.name)) if added else attributes


def as_defined(definition: AttributeDefinition | None, attribute: Attribute) -> Attribute:
    """The attribute with its value in the kind that is defined, if its text or number is one; otherwise unchanged."""
    if definition is None or attribute.boolean is not None:
        return attribute
    if attribute.text is not None:
        return _attribute_of_text(definition, attribute.text)
    if attribute.integer is not None and definition.kind in ("decimal", "currency"):
        return Attribute(name=attribute.name, decimal=Decimal(attribute.integer))
    return attribute


def value_problem(definition: AttributeDefinition, text: str) -> str | None:
    """What is wrong with a value that is given as text, as a sentence; None for a value that fits the definition."""
    problem = next(_value_problems(definition, _attribute_of_text(definition, text), ""), None)
    return None if problem is None else problem.text


def _attribute_of_text(definition: AttributeDefinition, text: str) -> Attribute:
    name = definition.name
    number = _number(text) if definition.kind in ("integer", "decimal", "currency") else None
    if definition.kind == "integer" and number is not None and number == number.to_integral_value():
        return Attribute(name=name, integer=int(number))
    if definition.kind in ("decimal", "currency") and number is not None:
        return Attribute(name=name, decimal=number)
    if definition.kind == "boolean" and text.lower() in _YES_OR_NO:
        return Attribute(name=name, boolean=_YES_OR_NO[text.lower()])
    return Attribute(name=name, text=text)


def _number(text: str) -> Decimal | None:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _violations(
    definitions: CustomerDefinitions, group: str, attributes: Sequence[Attribute], changed: Collection[str] | None
) -> Iterator[Reason]:
    is_checked = changed is None or _GROUP in changed
    if is_checked and group and definitions.groups and group not in definitions.groups:
        text = f"Must be one of: {', '.join(sorted(definitions.groups)[:_NAMED_MAX])}."
        yield Reason(field=_GROUP, code="unknown_choice", text=text)
    yield from attribute_violations(definitions.attributes, attributes, "Customers", changed)


def attribute_violations(
    defined: Mapping[str, AttributeDefinition],
    attributes: Iterable[Attribute],
    whose: str,
    changed: Collection[str] | None = None,
) -> Iterator[Reason]:
    """The definitions that these attributes break, in these paths; None: in any. `whose`: begins a sentence."""
    if not defined:
        return
    by_name = {attribute.name: attribute for attribute in attributes}
    for name in sorted({*by_name, *defined}):
        if changed is not None and _ATTRIBUTES + name not in changed:
            continue
        path, definition, attribute = _ATTRIBUTES + name, defined.get(name), by_name.get(name)
        if definition is not None and attribute is not None:
            yield from _value_problems(definition, attribute, path)
        elif definition is not None and definition.mandatory:
            yield Reason(field=path, code="required", text=f"{definition.label or name} needs a value.")
        elif definition is None and name != LOYALTY_CARD:
            names = ", ".join([*defined][:_NAMED_MAX])
            yield Reason(field=path, code="unknown_attribute", text=f"{whose} have these attributes: {names}.")


_NAMED_MAX: Final = 20
"""The most names in a reason."""


def _value_problems(definition: AttributeDefinition, attribute: Attribute, path: str) -> Iterator[Reason]:
    match definition.kind:
        case "text":
            value: object = attribute.text
        case "integer":
            value = attribute.integer
        case "decimal" | "currency":
            value = attribute.decimal if attribute.integer is None else attribute.integer
        case "boolean":
            value = attribute.boolean
        case _:
            return
    if value is None:
        yield Reason(field=path, code="wrong_kind", text=_KINDS[definition.kind])
    elif isinstance(value, str) and definition.choices and value not in definition.choices:
        choices = ", ".join(definition.choices[:_NAMED_MAX])
        yield Reason(field=path, code="unknown_choice", text=f"Must be one of: {choices}.")
    elif isinstance(value, int | Decimal) and not isinstance(value, bool):
        minimum, maximum = _limit(definition.minimum), _limit(definition.maximum)
        if minimum is not None and value < minimum:
            yield Reason(field=path, code="out_of_range", text=f"Must not be less than {definition.minimum}.")
        if maximum is not None and value > maximum:
            yield Reason(field=path, code="out_of_range", text=f"Must not be more than {definition.maximum}.")


def _limit(text: str | None) -> Decimal | None:
    return None if text is None else _number(text)


_KINDS: Final = {
    "text": "Must be a text.",
    "integer": "Must be a whole number.",
    "decimal": "Must be a number.",
    "currency": "Must be an amount of money.",
    "boolean": "Must be yes or no.",
}
