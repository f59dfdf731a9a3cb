"""Write docs/techniques.md: every technique, as its own file describes it (``make docs``)."""

from __future__ import annotations

from pathlib import Path

import jinja2

from penjing.cli.techniques import allowed, describe
from penjing.core.registry import TECHNIQUES

PAGE = Path(__file__).with_name("techniques.md")
TEMPLATE = """\
# Techniques

Written by `make docs` from the techniques themselves; `penjing techniques NAME` shows the same.

| technique | what it does | needs data |
|---|---|---|
{% for each in techniques -%}
| [{{ each.name }}](#{{ each.name }}) | {{ each.summary }} | {{ "yes" if each.needs else "" }} |
{% endfor %}
{%- for each in techniques %}
## {{ each.name }}

{{ each.summary }}
{% if each.description %}
{{ each.description }}
{% endif %}
| setting | default | allowed | meaning |
|---|---|---|---|
{% for setting in each.settings -%}
| `{{ setting.name }}` | {{ setting.default }} | {{ allowed(setting) | replace("|", "\\\\|") }} | {{ setting.help }} |
{% endfor %}
Works on: {{ each.kinds | join(", ") }}.
{%- if each.needs %} Needs calibration data; labels are not needed.{% endif %}
{% if each.references %}
References: {{ each.references | replace("\\n", " ") }}
{% endif %}
{%- endfor %}"""  # noqa: E501  # a table is a line a row


def page() -> str:
    """Give the page as it should be."""
    environment = jinja2.Environment(autoescape=False, undefined=jinja2.StrictUndefined)  # noqa: S701  # Markdown
    techniques = [describe(name, TECHNIQUES.load(name)) for name in _own()]
    made = environment.from_string(TEMPLATE).render(techniques=techniques, allowed=allowed)
    return made.rstrip() + "\n"


def _own() -> list[str]:
    """Leave out what other installed packages add."""
    package = TECHNIQUES.package
    return [n for n in TECHNIQUES.names() if TECHNIQUES.load(n).__module__.startswith(package)]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
