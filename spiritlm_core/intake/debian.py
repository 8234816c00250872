"""Debian packages, unpacked into a folder of the cache: ``apt-get download`` and ``dpkg -x``; neither needs root.

Packages of telephone prompts are real speech without a download site. An item of them is named ``prompts://LANG/ID``,
so that every machine that works on it can fetch the package itself.
"""

import gzip
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from spiritlm_core.errors import SourceError
from spiritlm_core.files import cache_folder

_TIMEOUT = 300
_NO_APT = (
    "{who}: it comes from Debian packages, and {tool} is not on this machine: run on Debian or Ubuntu, or unpack "
    "{packages} below {target}"
)
_NO_MIRROR = (
    "{who}: apt-get could not download Debian packages: check that this machine reaches a Debian or Ubuntu mirror "
    "(`apt-get download {packages}`), or unpack them below {target}. It said: {said}"
)


def unpacked(packages: Sequence[str], target: Path, who: str) -> Path:
    """The folder `target` with the unpacked packages; downloads them once, safe against concurrent calls.

    Args:
        packages: their names.
        target: a folder for these packages alone; one that holds ``usr`` is taken as it is.
        who: what needs them, for messages.

    Raises:
        SourceError: apt-get or dpkg is missing, or no mirror can be reached; says what to do.
    """
    if (target / "usr").is_dir():
        return target
    about = {"who": who, "packages": " ".join(packages), "target": target}
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            raise SourceError(_NO_APT.format(**about, tool=tool))
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as temporary:
        work = Path(temporary)
        if (said := _download(packages, work)) is not None:
            raise SourceError(_NO_MIRROR.format(**about, said=said))
        for package in sorted(work.glob("*.deb")):
            _unpack(package, work / "tree")
        _publish(work / "tree", target)
    return target


def _unpack(package: Path, tree: Path) -> None:
    done = subprocess.run(["dpkg", "-x", package, tree], capture_output=True, text=True, timeout=_TIMEOUT, check=False)  # noqa: S603, S607
    if done.returncode:
        raise SourceError(f"{package.name} cannot be unpacked: {' '.join(done.stderr.split())}")


def _publish(tree: Path, target: Path) -> None:
    try:
        tree.replace(target)
    except OSError:  # another process was first
        if not (target / "usr").is_dir():
            raise


def _download(packages: Sequence[str], work: Path) -> str | None:
    """Download packages into `work`, with lists of our own when the system has none; what apt-get said if it failed."""
    private = _private_lists(work)
    attempts = ([["download", *packages]], [[*private, "update"], [*private, "download", *packages]])
    said = ""
    for commands in attempts:
        said = next((output for command in commands if (output := _apt(command, work))), "")
        if len(list(work.glob("*.deb"))) == len(packages):
            return None
    return " ".join(said.split())[-300:] or "nothing"


def _private_lists(work: Path) -> list[str]:
    """Options that let apt-get keep its lists and cache below `work`, where no root is needed."""
    for folder in ("lists/partial", "cache/archives/partial"):
        (work / "apt" / folder).mkdir(parents=True, exist_ok=True)
    options = {"Dir::State::Lists": "lists", "Dir::Cache": "cache"}
    return [f"-o{key}={work / 'apt' / value}" for key, value in options.items()]


def _apt(arguments: list[str], work: Path) -> str:
    """Run apt-get in `work`; what it said when it failed, else an empty text."""
    # the sandbox user _apt cannot write into our folder, and -q keeps progress bars out of the message
    command = ["apt-get", "-q", "-oAPT::Sandbox::User=root", "-oDebug::NoLocking=true", *arguments]
    try:
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=_TIMEOUT, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        return f"no answer within {_TIMEOUT} s"
    return (done.stderr or done.stdout or "failed") if done.returncode else ""


def prompt_path(uri: str) -> Path:
    """The local file of ``prompts://LANG/ID``, fetched when it is not there."""
    language, _, name = uri.removeprefix("prompts://").partition("/")
    return sounds_of(fetch(language)) / f"{name}.g722"


def fetch(language: str) -> Path:
    """The folder with the unpacked packages of a language. Raises SourceError if they cannot be had."""
    packages = (f"asterisk-core-sounds-{language}-g722", f"asterisk-core-sounds-{language}")
    return unpacked(packages, cache_folder() / "prompts" / language, f"source prompts:{language}")


def sounds_of(tree: Path) -> Path:
    """The folder of the one voice in a package."""
    folders = sorted(path for path in tree.glob("usr/share/asterisk/sounds/*_*") if next(path.rglob("*.g722"), None))
    if not folders:
        raise SourceError(f"{tree} holds no prompts: delete it, and it will be fetched again")
    return folders[0]


def transcripts_of(tree: Path, language: str) -> dict[str, str]:
    """Prompt ID to transcript; ``;`` starts a comment."""
    files = sorted(tree.glob(f"usr/share/doc/asterisk-core-sounds-{language}/core-sounds-*.txt*"))
    if not files:
        raise SourceError(f"{tree} holds no transcripts: delete it, and it will be fetched again")
    data = files[0].read_bytes()
    lines = (gzip.decompress(data) if files[0].suffix == ".gz" else data).decode("utf-8-sig").splitlines()
    pairs = (line.partition(":") for line in lines if ":" in line and not line.lstrip().startswith(";"))
    return {name.strip(): text.strip() for name, _, text in pairs}
