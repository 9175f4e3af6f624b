"""A real Redis and a real Postgres on loopback, with passwords, each with a folder of its own."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

PASSWORD = "s3cret-of-the-engines"
_START_SECONDS = 60


class EngineMissing(Exception):
    """A program is not installed; the message says how to get it."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def program(name: str, package: str) -> str:
    """The path of a program, also where Debian keeps Postgres's own."""
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = shutil.which(name) or (str(debian[-1]) if debian else None)
    if found is None:
        raise EngineMissing(
            f"these tests start a {package} of their own, and {name} is not installed: "
            f"apt-get install {package}, or leave them out with make test"
        )
    return found


class Engine:
    """A server process on a port of loopback that can be stopped and started again."""

    def __init__(self, package: str) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix=f"needledrop-{package}-"))
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log)
        deadline = time.monotonic() + _START_SECONDS
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.folder / "log").read_text()[-2000:])
            time.sleep(0.02)

    def answers(self) -> bool:
        raise NotImplementedError

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)  # Postgres: without waiting for its clients
            self.process.wait(timeout=30)
            self.process = None

    def kill(self) -> None:
        """End it as a lost machine ends: it says goodbye to nobody."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(timeout=30)
            self.process = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class Redis(Engine):
    """Without a disk, unless it ``keeps`` every write there, and has it again after a start."""

    def __init__(self, *, keeps: bool = False) -> None:
        self._program = program("redis-server", "redis-server")
        super().__init__("redis")
        self._disk = ("--appendonly", "yes", "--appendfsync", "always") if keeps else ()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port},password={PASSWORD}"

    def command(self) -> list[str]:
        return [
            *(self._program, "--port", str(self.port), "--bind", "127.0.0.1"),
            *("--requirepass", PASSWORD, "--save", "", "--dir", str(self.folder)),
            *self._disk,
        ]

    def answers(self) -> bool:
        import redis

        try:
            return bool(self.client().ping())
        except redis.exceptions.ConnectionError:
            return False

    def client(self):
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        return redis.Redis(port=self.port, password=PASSWORD, retry=Retry(NoBackoff(), 0))


class Postgres(Engine):
    """Postgres refuses to run as root, so root starts it as the user that Debian made for it."""

    def __init__(self) -> None:
        initdb = program("initdb", "postgresql")
        self._program = program("postgres", "postgresql")
        super().__init__("postgres")
        self._as_user: list[str] = []
        if os.getuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self._as_user = [
                *("setpriv", "--reuid", str(user.pw_uid), "--regid", str(user.pw_gid)),
                "--clear-groups",
            ]
        passwords = self.folder / "password"
        passwords.write_text(PASSWORD)
        passwords.chmod(0o644)
        subprocess.run(
            [
                *(*self._as_user, initdb, "-D", str(self.folder / "data"), "-U", "needledrop"),
                *("--auth=scram-sha-256", f"--pwfile={passwords}", "--no-sync", "-E", "UTF8"),
            ],
            check=True,
            capture_output=True,
            cwd="/",
        )

    @property
    def address(self) -> str:
        return self._address_of("postgres")

    def _address_of(self, database: str) -> str:
        return f"postgresql+psycopg://needledrop:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The address of an empty one: Feast reads all projects of a registry for each change."""
        import psycopg

        name = f"of_{uuid.uuid4().hex}"
        plain = self.address.replace("+psycopg", "")
        with psycopg.connect(plain, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} STRATEGY file_copy")
        return self._address_of(name)

    def command(self) -> list[str]:
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
        }
        return [
            *(*self._as_user, self._program, "-D", str(self.folder / "data")),
            *(part for name, value in settings.items() for part in ("-c", f"{name}={value}")),
        ]

    def answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.address.replace("+psycopg", ""), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True
