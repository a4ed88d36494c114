"""Pages from templates: escaped by default, with the static files beside them."""

from gettext import NullTranslations
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

_HERE: Final = Path(__file__).parent


def template_environment(*directories: Path, translations: NullTranslations | None = None) -> Environment:
    """Templates of these directories, then the shared ones; their texts in English, or as these translations have
    them.
    """
    environment = Environment(
        loader=FileSystemLoader([*directories, _HERE / "templates"]),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    install: Any = getattr(environment, "install_gettext_translations")  # noqa: B009 - the extension adds it
    install(translations or NullTranslations(), newstyle=True)
    return environment


def page(environment: Environment, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """The rendered page. It is never stored by the browser: it shows personal data."""
    text = environment.get_template(template).render(**values)
    return HTMLResponse(text, status, headers={"Cache-Control": "no-store"})


def static_files() -> StaticFiles:
    """The stylesheet and the script, which browsers keep and ask whether they have changed."""
    return _KeptFiles(directory=_HERE / "static")


class _KeptFiles(StaticFiles):
    def file_response(self, *arguments: Any, **parameters: Any) -> Response:
        """The file, or that it is unchanged."""
        response = super().file_response(*arguments, **parameters)
        response.headers["Cache-Control"] = "no-cache"
        return response
