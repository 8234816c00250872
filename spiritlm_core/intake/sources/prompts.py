"""Telephone prompts from Debian's ``asterisk-core-sounds-LANG-g722``."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Field

from spiritlm_core.config import Optionally
from spiritlm_core.intake.debian import fetch, sounds_of, transcripts_of
from spiritlm_core.intake.draft import Draft, clean, missing
from spiritlm_core.intake.files import File
from spiritlm_core.intake.source import Source
from spiritlm_core.language import main_code

_Language = Literal["en", "es", "fr", "it", "ru"]
_CATEGORIES = {
    "days": r"digits/day-\d+",
    "months": r"digits/mon-\d+",
    "ordinals": r"digits/h-\w+",
    "digits": r"digits/(\d+\w?|hundred|thousand|million|billion)",
    "letters": r"letters/([a-z]|zed)",
    "symbols": r"letters/.+",
    "phonetic": r"phonetic/.+",
}
"""Category to the names of its prompts; what has none is a phrase."""
_NOT_SPEECH = re.compile(r"\[[^\]]*\]|\([^)]*\)|<[^>]*>")


def _spoken(name: object) -> object:
    """The language of a package. Raises ValueError if there are no prompts in it."""
    code = main_code(name, "") if isinstance(name, str) else name
    if code not in get_args(_Language):
        raise ValueError(f"there are prompts in {', '.join(get_args(_Language))}")
    return code


PromptLanguage = Annotated[_Language, BeforeValidator(_spoken)]


class PromptsSource(Source):
    """Telephone prompts read by one speaker, from the Debian package ``asterisk-core-sounds-LANG-g722``."""

    short: ClassVar[str] = "prompts"

    kind: Literal["prompts"] = "prompts"
    prompts: PromptLanguage = Field("en", description="Language whose package of prompts is fetched.")
    optional: Optionally = Field(
        False, description="true: where the packages cannot be had, the run goes on without; absent: it does anyhow."
    )

    @property
    def described(self) -> str:
        """What a model card says of it."""
        packages = f"Debian packages asterisk-core-sounds-{self.prompts} and -{self.prompts}-g722"
        return f"telephone prompts of the Asterisk project ({packages}), read by one voice, CC BY-SA 3.0"

    def check(self) -> None:
        """Fetch the packages. Raises SourceError."""
        fetch(self.prompts)

    def drafts(self) -> Iterator[Draft]:
        """One draft per prompt, and one per transcript without a prompt."""
        if self.optional == "absent":
            return
        language = self.prompts
        sounds, texts = sounds_of(fetch(language)), transcripts_of(fetch(language), language)
        speaker = sounds.name.rpartition("_")[2]
        for path in sorted(sounds.rglob("*.g722")):
            name = path.relative_to(sounds).with_suffix("").as_posix()
            yield _draft(name, path, texts.pop(name, None), speaker, language)
        for name, text in texts.items():
            yield missing(name, f"prompts://{language}/{name}", "recording not found; it has a transcript", text)


def _draft(name: str, path: Path, text: str | None, speaker: str, language: str) -> Draft:
    """A prompt; brackets hold what is heard but not said, and a prompt with nothing else is no speech."""
    spoken = clean(_NOT_SPEECH.sub(" ", text)) if text else None
    error = f"no speech, says its transcript: {text}" if text and not spoken else None
    status = path.stat()
    version = f"{status.st_mtime_ns}-{status.st_ino}"
    uri = f"prompts://{language}/{name}"
    file = File(name, uri, status.st_size, version, status.st_ctime)
    return Draft(name, uri, file, spoken, speaker, language, error=error, label=_category(name))


def _category(name: str) -> str:
    return next((category for category, names in _CATEGORIES.items() if re.fullmatch(names, name)), "phrases")
