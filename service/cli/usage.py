"""The words of a command that cannot be read: what is wrong, in one sentence of ours."""

from __future__ import annotations

import re
from typing import Any

import typer

from ..api.complaints import complaint

__all__ = ["is_usage_error", "plain_help", "usage_error", "version_option"]


def is_usage_error(error: Exception) -> bool:
    """Return whether an error is about the words of a command; the class of Typer's errors differs between versions."""
    return callable(getattr(error, "format_message", None)) and hasattr(error, "exit_code")


def usage_error(error: Any) -> str | None:
    """Say what is wrong with the words of a command; return None where its help was printed instead."""
    kind = type(error).__name__
    if kind == "NoArgsIsHelpError":
        return None
    context = getattr(error, "ctx", None)
    advice = "" if context is None else f"; see `{context.command_path} --help`"
    if kind == "NoSuchOption":
        near = " or ".join(sorted(error.possibilities or ())[:3])
        return f"there is no option {error.option_name}" + (f": did you mean {near}?" if near else advice)
    if kind == "BadOptionUsage":
        return f"{error.option_name} needs a value"
    if command := re.match("No such command '(.*?)'", error.message or ""):
        near = " or ".join(re.findall("'(.*?)'", error.message)[1:])
        return f"there is no command {command.group(1)!r}" + (f": did you mean {near}?" if near else advice)
    parameter = getattr(error, "param", None)
    if parameter is not None:
        name = max(parameter.opts, key=len) if parameter.param_type_name == "option" else _argument(parameter)
        return f"{name} is missing{advice}" if kind == "MissingParameter" else _refused(name, error)
    return " ".join(f"{error.format_message().rstrip('.')}{advice}".split())


def _argument(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _refused(name: str, error: Any) -> str:
    """Say which value was seen, and what was expected."""
    cause = error.__cause__
    errors = getattr(cause, "errors", None)
    if errors is None:
        return f"{name}: {error.message}"
    found = {**errors()[0], "loc": ("", name)}
    choices = getattr(getattr(error.param, "type_descriptor", None), "choices", None)
    if choices:
        known = ", ".join(str(getattr(choice, "value", choice)) for choice in choices)
        return f"{name} is {found['input']!r}, expected one of {known}"
    return complaint(found)


def plain_help(command: Any) -> None:
    """Make the help of a command and of all below it plain: no type for flags, and defaults in words as they are."""
    for parameter in command.params:
        if getattr(parameter, "is_flag", False):
            parameter.display_type_rich = lambda ctx: None
        if isinstance(getattr(parameter, "show_default", None), str):
            parameter._get_default_string = lambda said=parameter.show_default, **_: said
    own = command.get_help_option

    def help_option(context: Any) -> Any:
        found = own(context)
        if found is not None:
            found.display_type_rich = lambda ctx: None
        return found

    command.get_help_option = help_option
    for inner in getattr(command, "commands", {}).values():
        plain_help(inner)


def version_option(given: bool) -> None:
    """Print the version and end the program."""
    if given:
        from importlib.metadata import version

        typer.echo(f"interbasis {version('interbasis')}")
        raise typer.Exit
