"""Checks a schedule's cron expression before a cluster sees it.

Kubeflow takes six fields, seconds first, as github.com/robfig/cron reads them: numbers, ``*``,
lists, ranges, steps, names of months and days, ``?`` as another ``*`` for days. People write five.
"""

import re

from needledrop.errors import ConfigRejected

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]

# Name, least, most, names of values from the least on.
_FIELDS: list[tuple[str, int, int, list[str]]] = [
    ("second", 0, 59, []),
    ("minute", 0, 59, []),
    ("hour", 0, 23, []),
    ("day of the month", 1, 31, []),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 6, _DAYS),
]
_EVERY = {
    "@hourly": "0 0 * * * *",
    "@daily": "0 0 0 * * *",
    "@weekly": "0 0 0 * * 0",
    "@monthly": "0 0 0 1 * *",
    "@yearly": "0 0 0 1 1 *",
}
_PART = re.compile(r"(?P<first>\*|\?|\w+)(-(?P<last>\w+))?(/(?P<step>\w+))?", re.ASCII)


def six_fields(expression: str) -> str:
    """Return the expression as Kubeflow takes it; a fifth-field one gets second 0.

    Raises:
        ConfigRejected: naming the field, what was expected and what came.
    """
    fields = _EVERY.get(expression.strip().lower(), expression).split()
    if len(fields) == 5:
        fields = ["0", *fields]
    if len(fields) != 6:
        raise ConfigRejected(
            f"--cron {expression!r}: expected five fields (minute, hour, day, month, day of the "
            f"week), or six with seconds first, got {len(fields)}; such as '0 3 * * 1', Mondays "
            "at three"
        )
    for text, (name, least, most, names) in zip(fields, _FIELDS, strict=True):
        for part in text.split(","):
            _check(part, text, name, least, most, names)
    return " ".join(fields)


def _check(part: str, text: str, name: str, least: int, most: int, names: list[str]) -> None:
    def refused(why: str) -> ConfigRejected:
        return ConfigRejected(f"--cron: {name}: expected {why}, got {text!r}")

    def number(value: str) -> int:
        if value.lower() in names:
            return names.index(value.lower()) + least
        named = f", or {names[0]} to {names[-1]}" if names else ""
        if not value.isdigit() or not least <= int(value) <= most:
            sunday = " (0 is Sunday)" if name == "day of the week" else ""
            raise refused(f"{least} to {most}{sunday}{named}")
        return int(value)

    found = _PART.fullmatch(part)
    if found is None:
        raise refused("a number, *, a list, a range or a step")
    first, last, step = found["first"], found["last"], found["step"]
    if first == "?" and not name.startswith("day"):
        raise refused("? for days only")
    if first in ("*", "?"):
        if last is not None:
            raise refused("a range of two numbers")
    elif number(first) > (number(last) if last is not None else most):
        raise refused("a range that grows")
    if step is not None and (not step.isdigit() or int(step) < 1):
        raise refused("a step of 1 or more")
