"""The requests that the services get, and the answers that they give."""

import json
from typing import NamedTuple
from urllib.parse import parse_qsl


class Request(NamedTuple):
    """An HTTP request to one of the services."""

    method: str
    host: str
    path: str
    query: dict
    headers: dict  # An email.message.Message, so names aren't case-sensitive.
    body: bytes

    @property
    def form(self):
        """The fields of an HTML form in the body, as a dict. If the body isn't a form: {}."""
        if self.headers.get_content_type() != "application/x-www-form-urlencoded":
            return {}
        return dict(parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True))


class Answer(NamedTuple):
    """An HTTP answer. "fault" says how the server breaks it."""

    status: int = 200
    body: bytes = b""
    headers: dict = {}
    fault: str = ""  # "silence", "hang up", "cut off", or nothing


SILENCE = Answer(fault="silence")  # No answer at all. The connection stays open.
HANG_UP = Answer(fault="hang up")  # The connection is closed without an answer.


def cut_off(answer):
    """Return the same answer with a connection that breaks in the middle of the body."""
    return answer._replace(fault="cut off")


def json_answer(body, status=200, **headers):
    """Return the body as an Answer in JSON.

    In the names of header arguments, write "_" for "-": Retry_After for Retry-After.
    """
    all_headers = {"Content-Type": "application/json; charset=utf-8"}
    for name, value in headers.items():
        all_headers[name.replace("_", "-")] = value
    return Answer(status, json.dumps(body, ensure_ascii=False).encode(), all_headers)
