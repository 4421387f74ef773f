"""YAML files and values as plain data, of which no more is built than was written."""

import re
from pathlib import Path
from typing import Any

import yaml

from utils.config import abbreviate
from utils.errors import UserError
from utils.plain import MAX_DEPTH, MAX_ENTRIES, check_plain

MAX_BYTES = 50_000
MAX_SCALAR = 1000
"""The longest value that is not text: a number of more digits takes long to convert."""

_EXPONENT_WITHOUT_POINT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises UserError for a file that is missing, unreadable, too large, not YAML, or not
    a mapping of plain data."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        text = content.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # a character that no path can have
        raise UserError(f"{path} cannot be read: {error}") from error
    if len(content) > MAX_BYTES:
        raise UserError(f"{path} has more than {MAX_BYTES:,} bytes, the limit of settings files")
    settings = parse_yaml(text, str(path))
    if not isinstance(settings, dict):
        raise UserError(f"{path} must hold settings as `key: value` lines; it holds {abbreviate(settings)}")
    return settings


def parse_yaml(text: str, source: str) -> Any:
    """The plain data in YAML text; `source` says in messages where it is. Raises UserError for what is not YAML, not
    plain, or much larger than the text, since aliases and merged mappings can repeat a part exponentially often."""
    try:
        data = _BoundedLoader(text).get_single_data()
    except (yaml.YAMLError, RecursionError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise UserError(f"{source} is not valid YAML: {' '.join(str(error).split())}") from error
    check_plain(data, source)
    return _numbers(data)


class _BoundedLoader(yaml.SafeLoader):
    """Counts levels, and the nodes below each node, repeated ones each time."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._sizes: dict[int, int] = {}

    def fetch_flow_collection_start(self, kind: Any) -> None:
        if self.flow_level == MAX_DEPTH:  # for which the scanner takes quadratic time
            raise yaml.MarkedYAMLError(problem="too many levels", problem_mark=self.get_mark())
        super().fetch_flow_collection_start(kind)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        node: yaml.Node | None = super().compose_node(parent, index)
        if node is not None and id(node) not in self._sizes:
            parts = [part for item in node.value for part in (item if isinstance(item, tuple) else (item,))]
            is_scalar = isinstance(node, yaml.ScalarNode)
            size = 1 if is_scalar else 1 + sum(self._sizes.get(id(part), 1) for part in parts)
            if size > MAX_ENTRIES:
                raise yaml.MarkedYAMLError(problem="too many repetitions", problem_mark=node.start_mark)
            if is_scalar and not node.tag.endswith(":str") and len(node.value) > MAX_SCALAR:
                raise yaml.MarkedYAMLError(problem="a number that is too long", problem_mark=node.start_mark)
            self._sizes[id(node)] = size
        return node


def _numbers(value: Any) -> Any:
    """YAML 1.1 reads 1e-4 as text; everybody who writes it means the number."""
    if isinstance(value, dict):
        return {str(key): _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    if isinstance(value, str) and _EXPONENT_WITHOUT_POINT.fullmatch(value):
        return float(value)
    return value
