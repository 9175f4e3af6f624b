"""Stand in for the GPU libraries that torch links to and a CPU never calls.

PyPI's torch for Linux is the CUDA build: it can't be imported without cuBLAS, cuDNN and ten more
libraries, 2.7 GB in all, of which a machine without a GPU runs nothing. This puts small libraries
with the same names, symbols and symbol versions in their place (as NVIDIA's own ``stubs`` do for
linking); a call of one of their functions ends the process. torch itself, and so the front end and
the network, stays the very binary that training used: docs/adr/0010-images.md.

    python3 stub_libraries.py SITE_PACKAGES/torch/lib

needs readelf and gcc, where the image is built and not in the image.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

_GPU_LIBRARY = re.compile(
    r"lib(cublas|cublasLt|cudnn|cufft|cufile|cupti|curand|cusolver|cusparse|cusparseLt|nccl"
    r"|nvJitLink|nvrtc|nvshmem_host)\.so"
)
# Libraries without symbol versions: a prefix tells whose a symbol is.
_PREFIXES = {"cuFile": "libcufile", "cusparseLt": "libcusparseLt", "nccl": "libnccl"}

Symbols = dict[str, set[str]]
"""Names by symbol version; the version is empty where a library has none."""


def missing_libraries(folder: Path) -> dict[str, Symbols]:
    """Return what the libraries in a folder want from GPU libraries, by library."""
    missing: dict[str, Symbols] = {}
    for library in sorted(folder.glob("*.so*")):
        wanted = re.findall(r"NEEDED.*\[(.*)\]", _readelf("-d", library))
        for name in filter(_GPU_LIBRARY.match, wanted):
            missing.setdefault(name, {})
        library_of = _libraries_by_version(library)
        for symbol, version in _undefined_symbols(library):
            name = library_of.get(version, "")
            if not version:
                prefix = next((one for one in _PREFIXES if symbol.startswith(one)), None)
                stem = f"{_PREFIXES[prefix]}.so" if prefix else "-"
                name = next((one for one in wanted if one.startswith(stem)), "")
            if _GPU_LIBRARY.match(name):
                missing.setdefault(name, {}).setdefault(version, set()).add(symbol)
    return missing


def write_stub(library: Path, symbols: Symbols) -> None:
    """Compile a library that defines the symbols; calling one ends the process."""
    names = sorted(set().union(*symbols.values()))
    source = "".join(f"void {name}(void) {{ __builtin_trap(); }}\n" for name in names)
    versions = "".join(
        f"{version} {{ global: {' '.join(f'{name};' for name in sorted(of_version))} }};\n"
        for version, of_version in sorted(symbols.items())
        if version
    )
    with tempfile.TemporaryDirectory() as temporary:
        code, script = Path(temporary) / "stub.c", Path(temporary) / "stub.map"
        code.write_text(source)
        script.write_text(versions)
        command = ["gcc", "-shared", "-fPIC", "-w", f"-Wl,-soname,{library.name}"]
        if versions:
            command.append(f"-Wl,--version-script={script}")
        subprocess.run([*command, "-o", str(library), str(code)], check=True)


def _libraries_by_version(library: Path) -> dict[str, str]:
    """Return which library each symbol version is expected from."""
    libraries, current = {}, ""
    for line in _readelf("-V", library).splitlines():
        if match := re.search(r"Version: \d+  File: (\S+)", line):
            current = match[1]
        elif current and (match := re.search(r"Name: (\S+)  Flags: .*Version: \d+", line)):
            libraries[match[1]] = current
    return libraries


def _undefined_symbols(library: Path) -> Iterator[tuple[str, str]]:
    for line in _readelf("--dyn-syms", library).splitlines():
        fields = line.split()
        if len(fields) >= 8 and fields[6] == "UND":
            symbol, _, version = fields[7].partition("@")
            yield symbol, version


def _readelf(option: str, library: Path) -> str:
    return subprocess.run(
        ["readelf", "-W", option, str(library)], capture_output=True, text=True, check=True
    ).stdout


def main() -> None:
    """Write the stubs beside torch's own libraries, where they are looked for."""
    folder = Path(sys.argv[1])
    missing = missing_libraries(folder)
    if not missing:
        raise SystemExit(f"expected torch's libraries in {folder}, found none that want a GPU's")
    for name, symbols in sorted(missing.items()):
        write_stub(folder / name, symbols)
        print(f"{name}: {sum(map(len, symbols.values()))} symbols")


if __name__ == "__main__":
    main()
