"""`make packaging`: the size of an installation, and whether every platform has a wheel of each dependency.

Sizes are those of site-packages after `uv pip install` of the wheel, without pip. Wheels are resolved for platforms and
Python versions, not installed or run there. The exit code is 1 if a size exceeds its limit or a wheel is missing.
"""

import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]

SIZES_MAX_MB: Final = {"": 140, "columns": 330, "postgresql": 155, "headquarters": 350}
"""By extra; without an extra: a till or a small store."""

PLATFORMS: Final = {
    "x86_64-unknown-linux-gnu": ("", "headquarters", "fast-copy", "local"),
    "aarch64-unknown-linux-gnu": ("", "headquarters", "local"),
    "x86_64-apple-darwin": ("", "headquarters"),
    "aarch64-apple-darwin": ("", "headquarters", "local"),
    "x86_64-pc-windows-msvc": ("", "columns", "postgresql"),
}
"""The extras that must be installable on each platform. Local servers run on Linux and macOS only."""

PYTHONS: Final = ("3.11", "3.12", "3.13", "3.14")


def main() -> int:
    """Print sizes and platforms; returns the exit code."""
    with tempfile.TemporaryDirectory() as directory:
        wheel = build_wheel(Path(directory))
        too_large = [extra for extra, most in SIZES_MAX_MB.items() if _size(wheel, extra, Path(directory)) > most]
    missing = [
        (platform, python, extra)
        for platform, python in product(PLATFORMS, PYTHONS)
        for extra in PLATFORMS[platform]
        if not _resolves(platform, python, extra)
    ]
    for extra in too_large:
        print(f"too large: {_name(extra)}, at most {SIZES_MAX_MB[extra]} MB")
    for platform, python, extra in missing:
        print(f"no wheels: {_name(extra)} on {platform} with Python {python}")
    return 1 if too_large or missing else 0


def build_wheel(directory: Path) -> Path:
    """Build this checkout's wheel into a directory."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(directory), str(ROOT)]
    subprocess.run(command, check=True)
    (wheel,) = directory.glob("tenten_commerce-*.whl")
    return wheel


def _size(wheel: Path, extra: str, directory: Path) -> int:
    """Install the wheel with an extra; the size of site-packages in megabytes."""
    environment = directory / f"venv-{extra}"
    _uv("venv", "--quiet", str(environment))
    _uv("pip", "install", "--quiet", "--python", str(environment), f"{wheel}[{extra}]" if extra else str(wheel))
    files = [path for path in environment.rglob("site-packages/**/*") if path.is_file()]
    megabytes = round(sum(path.stat().st_size for path in files) / 1_000_000)
    print(f"{_name(extra):32} {megabytes:4} MB, {len(files):6} files", flush=True)
    return megabytes


def _resolves(platform: str, python: str, extra: str) -> bool:
    """Whether each dependency has a wheel for this platform and Python version."""
    words = ["pip", "compile", "--quiet", "--only-binary", ":all:", "--python-platform", platform]
    words += ["--python-version", python, *(["--extra", extra] if extra else []), str(ROOT / "pyproject.toml")]
    resolved = _uv(*words, check=False)
    print(f"{_name(extra):32} {platform:28} {python}  {'ok' if resolved.returncode == 0 else 'FAIL'}", flush=True)
    if resolved.returncode != 0:
        print(resolved.stderr)
    return resolved.returncode == 0


def _name(extra: str) -> str:
    return f"tenten-commerce[{extra}]" if extra else "tenten-commerce"


def _uv(*words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "uv", *words], capture_output=True, text=True, check=check)


if __name__ == "__main__":
    sys.exit(main())
