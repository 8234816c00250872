"""Putting a published folder, or an exported corpus, on a Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from spiritlm_core.errors import ModelReferenceError, SpiritLMError
from spiritlm_core.references.content import check_weights, file_names
from spiritlm_core.references.syntax import parse
from spiritlm_core.tokens.export import META_FILE


def publish(folder: Path, to: str, *, private: bool = False) -> str:
    """Make the repository `to` hold what `folder` holds, in one commit; returns the address of the commit.

    Hidden files stay here, and files of the repository that the folder lacks go. A folder with ``corpus.json`` becomes
    a dataset, any other a model; the account is that of ``HF_TOKEN`` or of ``hf auth login``, the hub ``HF_ENDPOINT``.

    Raises ModelReferenceError: `to` is not ``hf://ORG/NAME``, or a file is damaged; SpiritLMError: the folder has no
    card, the repository is public where `private` is asked for, or the hub refuses or cannot be reached.
    """
    if not to.startswith("hf://") or (place := parse(to)).version or place.sha256 or "/" not in place.name:
        raise ModelReferenceError(f"{to!r}: a folder is published to hf://ORG/NAME")
    if not (folder / "README.md").is_file():
        raise SpiritLMError(f"{folder} has no README.md: publish the folder `model` of a run, or that of an export")
    check_weights(folder)
    file_names(folder)  # links to folders would be followed unseen
    kind = "dataset" if (folder / META_FILE).is_file() else "model"
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    try:
        api.create_repo(place.name, repo_type=kind, private=private, exist_ok=True)
        if private and not api.repo_info(place.name, repo_type=kind).private:
            raise SpiritLMError(f"{to} is there and is public: nothing was sent; make it private first")
        done = api.upload_folder(
            repo_id=place.name,
            repo_type=kind,
            folder_path=folder,
            ignore_patterns=[".*", "**/.*"],
            delete_patterns="*",
            commit_message=f"Publish {folder.absolute().name}",
        )
    except HfHubHTTPError as error:
        code = getattr(error.response, "status_code", None)
        advice = "; HF_TOKEN wants a token that may write there" if code in (401, 403) else ""
        raise SpiritLMError(f"{to}: the hub refuses ({code}): {' '.join(str(error).split())[:300]}{advice}") from error
    except OSError as error:
        raise SpiritLMError(f"{to}: the hub cannot be reached: {error}") from error
    return str(done.commit_url)
