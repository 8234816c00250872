"""Loading the models that listen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from spiritlm_core.errors import ModelReferenceError
from spiritlm_core.evaluate.resynthesis.config import ResynthesisConfig
from spiritlm_core.evaluate.resynthesis.run import Judges


def load_judges(models: Mapping[str, Path]) -> Judges:
    """Load the roles ``recogniser`` and ``speaker_encoder``; a role that is not there is missing in the report.

    Raises:
        ModelReferenceError: A model is damaged.
    """
    from spiritlm_core.evaluate.recogniser import Recogniser
    from spiritlm_core.evaluate.resynthesis.dvector import SpeakerEncoder

    recogniser, speakers = models.get("recogniser"), models.get("speaker_encoder")
    return Judges(
        None if recogniser is None else Recogniser(recogniser),
        None if speakers is None else SpeakerEncoder.load(speakers),
        {name: "no model given" for name, path in (("recogniser", recogniser), ("speakers", speakers)) if path is None},
    )


def fetch_judges(config: ResynthesisConfig) -> Judges:
    """The judges that `config` names, fetched if they are not here; one that cannot be had is missing in the report.

    Raises:
        ModelReferenceError: A model is here but damaged.
    """
    from spiritlm_core.references.reference import resolve

    models, missing = {}, {}
    wanted = {"recogniser": config.recogniser, "speaker_encoder": config.speaker_encoder}
    for role, reference in wanted.items():
        try:
            models[role] = resolve(reference).path
        except ModelReferenceError as error:
            missing["speakers" if role == "speaker_encoder" else role] = str(error)
    found = load_judges(models)
    return Judges(found.recogniser, found.speakers, missing)
