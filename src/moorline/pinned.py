"""What a bundle pins beside the content of a build: its settings and the agent.

Both are known before the content is, and a store keeps them for its targets under their digests.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass

from moorline import agent_file
from moorline.build import BuildId
from moorline.bundle import Bundle
from moorline.bundling import bundle_files, zip_bytes
from moorline.config import Config
from moorline.settings import Settings, settings_of
from moorline.store import Store

NO_DIGEST = hashlib.sha256().hexdigest()
"""As long as any, while the right one is not known."""


@dataclass(frozen=True)
class Pinned:
    """The settings, and where the bundle will say that the store is."""

    settings: Settings
    store: str

    @classmethod
    def of(cls, config: Config, store: Store, replaced: Sequence[str]) -> Pinned:
        """For this store, with the kind of each linked path known: `Source.replaced`."""
        tables = dict(config.settings.tables)
        if replaced:
            tables["target"] = {**tables.get("target", {}), "linked": list(replaced)}
        settings = settings_of(tables, app=store.app, store_id=store.id)
        return cls(settings, settings.store or os.path.abspath(store.path))

    def bundle_files(
        self, id: BuildId, digest: str, manifest_bytes: int, out: str | None
    ) -> dict[str, bytes]:
        """The bundle in memory, if one goes to `out`. Raises ConfigError when it is too large."""
        if not out:
            return {}
        bundle = Bundle(
            id=id, digest=digest, manifest_bytes=manifest_bytes, settings=self.settings.digest,
            agent=agent_file.agent_digest(),
        )  # fmt: skip
        files = bundle_files(bundle, store=self.store, root=self.settings.root)
        if out.endswith(".zip"):
            zip_bytes(files)
        return files

    def complete(self, store: Store) -> None:
        """Put both into the store, as far as it lacks them; durable when this returns."""
        for (folder, name), data in self._kept().items():
            if not store.has(folder, name, len(data)):
                store.put(folder, name, data)

    def mend(self, store: Store) -> None:
        """The same, and what is there is read: a damaged one is replaced."""
        for (folder, name), data in self._kept().items():
            store.put(folder, name, data)

    def _kept(self) -> dict[tuple[bytes, str], bytes]:
        return {
            (b"agent", f"{agent_file.agent_digest()}.pyz"): agent_file.agent_bytes(),
            (b"settings", f"{self.settings.digest}.json"): self.settings.text,
        }
