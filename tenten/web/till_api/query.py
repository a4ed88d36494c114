"""Query parameters that an operation does not have are refused: a list by a misspelt one would be of everything."""

from collections import Counter

from fastapi import Request
from fastapi.routing import APIRoute

from tenten.schemas.messages import Reason
from tenten.web.serving.problems import Problem


async def known_query(request: Request) -> None:
    """A dependency that refuses unknown query parameters, and those that are given twice. Raises: `Problem` 422."""
    route = request.scope["route"]
    assert isinstance(route, APIRoute)
    known = {parameter.alias for parameter in route.dependant.query_params}
    given = Counter(name for name, _ in request.query_params.multi_items())
    unknown = [
        Reason(field=name, code="unknown_field", text="There is no such query parameter.")
        for name in given
        if name not in known
    ]
    repeated = [
        Reason(field=name, code="duplicate", text="This query parameter is given more than once.")
        for name, count in given.items()
        if name in known and count > 1
    ]
    if unknown or repeated:
        raise Problem(422, "The request is not as the API describes it.", errors=[*unknown, *repeated])
