"""The page that describes the service: plain HTML of the OpenAPI description, nothing from a network."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, StrictUndefined, Template

from ambiseg.atomic_write import readable
from ambiseg.serving.settings import ServeSettings

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>ambiseg: {{ facts.method }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem; color: #111827 }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { border: 1px solid #9ca3af; padding: .25rem .6rem; text-align: left; vertical-align: top }
pre { background: #f3f4f6; padding: .8rem; overflow-x: auto }
</style>
</head>
<body>
<h1>Plausible masks of an image</h1>
<p>This service runs ambiseg {{ facts.version }}. Its machine-readable description is
<a href="openapi.json">openapi.json</a>; its state is in <a href="health">health</a> and
<a href="metrics">metrics</a>.</p>
<table>
{% for name in ("run", "method", "preset", "data", "channels", "device") %}
<tr><th scope="row">{{ name }}</th><td>{{ facts[name] if facts[name] is not sequence or facts[name] is string
 else facts[name] | join(", ") }}</td></tr>
{% endfor %}
<tr><th scope="row">classes</th><td>{{ facts.classes | join(", ") }}</td></tr>
</table>
<h2>Ask for a prediction</h2>
<pre>curl --data-binary @image.png http://ADDRESS/predict
curl --data-binary @image.npy 'http://ADDRESS/predict?format=zip&amp;top=4' --output masks.zip
curl --form image=@image.tif http://ADDRESS/predict</pre>
<p>A body has {{ body }} at most, an image {{ limits.pixels }} pixels. An answer takes {{ limits.timeout }} seconds at
most.</p>
{% for path, method, route in routes %}
<h2>{{ method | upper }} {{ path }}</h2>
<p>{{ route.description }}</p>
{% if route.parameters %}
<table>
<tr><th scope="col">parameter</th><th scope="col">meaning</th></tr>
{% for parameter in route.parameters %}
<tr><td><code>{{ parameter.name }}</code></td><td>{{ parameter.description }}</td></tr>
{% endfor %}
</table>
{% endif %}
<table>
<tr><th scope="col">status</th><th scope="col">meaning</th></tr>
{% for status, answer in route.responses.items() %}
<tr><td>{{ status }}</td><td>{{ answer.description }}</td></tr>
{% endfor %}
</table>
{% endfor %}
<h2>Fields of an answer</h2>
{% for name in ("Prediction", "Mask", "Problem") %}
<h3>{{ name }}</h3>
<p>{{ schemas[name].description }}</p>
<table>
<tr><th scope="col">field</th><th scope="col">meaning</th></tr>
{% for field, what in schemas[name].properties.items() %}
<tr><td><code>{{ field }}</code></td><td>{{ what.description | default("") }}</td></tr>
{% endfor %}
</table>
{% endfor %}
</body>
</html>
"""


def page(facts: Mapping[str, Any], openapi: Mapping[str, Any], limits: ServeSettings) -> str:
    """The page, every text in it escaped.

    Args:
        facts: of the run, as in ``/health``.
        openapi: the description of the routes.
        limits: of requests.
    """
    routes = [
        (path, method, {"parameters": [], "description": "", **route})
        for path, methods in openapi["paths"].items()
        for method, route in methods.items()
    ]
    schemas = openapi["components"]["schemas"]
    body = readable(limits.body_bytes)
    return _template().render(facts=facts, routes=routes, schemas=schemas, limits=limits, body=body)


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_PAGE)
