"""A real S3 API on loopback: moto's server in a thread, with faults that a test can switch on."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

SECRET = "a-very-secret-key"
SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"

Fault = Callable[[str, str, list[bytes]], tuple[str, list[bytes]] | None]
"""What becomes of (method, path, body of the answer): None leaves it, else a status and a body."""


class _Quiet(WSGIRequestHandler):
    def log_request(self, *_: object) -> None:
        pass


class ObjectStore:
    """The server. Moto looks at a condition and writes in two steps, which S3 does in one, so
    requests take turns here."""

    def __init__(self) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self._turn = threading.Lock()
        self._faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self._server = make_server(
            "127.0.0.1", 0, self._answer, threaded=True, request_handler=_Quiet
        )
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._n_buckets = 0
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "needledrop",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "3",
        }

    @property
    def client(self):
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="us-east-1",
        )

    def new_bucket(self) -> str:
        self._n_buckets += 1
        name = f"bucket-{self._n_buckets}"
        self.client.create_bucket(Bucket=name)
        return name

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [one["Key"] for page in pages for one in page.get("Contents", [])]

    @contextmanager
    def faulty(self, fault: Fault) -> Iterator[list[tuple[str, str]]]:
        """Inside, answers go through ``fault``; yields the requests that come meanwhile."""
        first = len(self.requests)
        self._faults.append(fault)
        seen: list[tuple[str, str]] = []
        try:
            yield seen
        finally:
            self._faults.remove(fault)
            seen.extend(self.requests[first:])

    def _answer(self, environ, start_response):
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        head = []

        def remember(status, headers, exc_info=None):
            head[:] = [status, headers]

        with self._turn:
            self.requests.append((method, path))
            body = list(self._app(environ, remember))
        for fault in self._faults:
            if (changed := fault(method, path, body)) is not None:
                status, body = changed
                if not status.startswith("2"):
                    head[:] = [status, [("Content-Type", "application/xml")]]
        start_response(*head)
        return body


def slow_down(method: str, path: str, body: list[bytes]) -> tuple[str, list[bytes]]:
    """Every request is done, and answered with 503: the worst that an overloaded store can do."""
    return "503 Slow Down", [SLOW_DOWN]
