"""What several test modules share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.hub_stub import TOKEN, HubStub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubStub]:
    """A hub, and the library's settings pointed at it; it has read the environment when it was imported."""
    with HubStub() as stub:
        monkeypatch.setattr(constants, "ENDPOINT", stub.url)
        template = f"{stub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        for name in ("HF_HUB_CACHE", "HF_ASSETS_CACHE"):
            monkeypatch.setattr(constants, name, str(tmp_path / "cache" / name))
        monkeypatch.setattr(
            "huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE", constants.HF_ASSETS_CACHE, raising=False
        )
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield stub
