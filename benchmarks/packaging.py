"""`make packaging`: the size of an installation, whether every platform has a wheel of each dependency, and the bill of
materials of the image (`build/sbom.json`, CycloneDX): the locked packages, with their hashes checked.

Sizes are those of site-packages after `uv pip install` of the wheel, without pip. Wheels are resolved for platforms and
Python versions, not installed or run there. The exit code is 1 if a size exceeds its limit or a wheel is missing.
"""

import json
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

REQUIREMENTS: Final = ROOT / "deploy" / "requirements"
SBOM: Final = ROOT / "build" / "sbom.json"
_SBOM_TOOL: Final = "cyclonedx-bom>=7.5,<8"

PYTHONS: Final = ("3.11", "3.12", "3.13", "3.14")


def main() -> int:
    """Print sizes and platforms; returns the exit code."""
    with tempfile.TemporaryDirectory() as directory:
        wheel = build_wheel(Path(directory))
        too_large = [extra for extra, most in SIZES_MAX_MB.items() if _size(wheel, extra, Path(directory)) > most]
        write_bill_of_materials(wheel, Path(directory))
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


def write_bill_of_materials(wheel: Path, directory: Path) -> None:
    """Install what the image contains, as deploy/Dockerfile does, and write its bill of materials."""
    environment = directory / "venv-image"
    _uv("venv", "--quiet", str(environment))
    install = ("pip", "install", "--quiet", "--python", str(environment))
    locked = (*install, "--require-hashes", "--only-binary", ":all:", "--requirement")
    _uv(*locked, str(REQUIREMENTS / "headquarters.txt"))
    _uv(*locked, str(REQUIREMENTS / "fast-copy.txt"), "--no-deps")
    _uv(*install, "--no-deps", str(wheel))
    SBOM.parent.mkdir(exist_ok=True)
    tool = ("tool", "run", "--quiet", "--from", _SBOM_TOOL, "cyclonedx-py", "environment", str(environment))
    written = ("--mc-type", "application", "--output-reproducible", "--output-format", "JSON", "-o", str(SBOM))
    _uv(*tool, "--pyproject", str(ROOT / "pyproject.toml"), *written)
    components = json.loads(SBOM.read_text(encoding="utf-8"))["components"]
    print(f"{SBOM.relative_to(ROOT)}: {len(components)} packages", flush=True)


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
