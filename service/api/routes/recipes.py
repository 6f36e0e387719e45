"""Route for the choices that each task has, from which forms are made."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from ...web.recipes import TaskForm, task_forms
from ..responses import as_list
from ..schemas import Listing

__all__ = ["routes"]

routes = APIRouter()


@routes.get("/recipes", response_model=Listing[TaskForm], tags=["jobs"])
def recipes(request: Request) -> Response:
    """List all tasks, each with its choices as a JSON schema: their types, defaults, and what they do."""
    return as_list(request, task_forms())
