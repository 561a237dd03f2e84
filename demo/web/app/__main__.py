"""Serve on 127.0.0.1, on the port that PORT names."""

import os
import platform

import uvicorn
from jinja2 import Template
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Route

from app.greeting import GREETING

PAGE = Template(
    "<!doctype html><title>{{ greeting }}</title><h1>{{ greeting }}</h1><p>Python {{ python }}, uid {{ uid }}"
)


async def page(_request: Request) -> HTMLResponse:
    """The page for people."""
    return HTMLResponse(PAGE.render(greeting=GREETING, python=platform.python_version(), uid=os.getuid()))


async def health(_request: Request) -> JSONResponse:
    """The answer for machines."""
    return JSONResponse({"ok": True})


app = Starlette(routes=[Route("/", page), Route("/health", health)])

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning")
