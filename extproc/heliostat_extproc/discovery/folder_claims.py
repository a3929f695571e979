"""Who has which name in a folder: what a pool serves it keeps, whatever a later file claims."""

from dataclasses import dataclass

from heliostat_crds.claims import Meaning, claimant_of, meanings_of
from heliostat_crds.inference_pool import InferencePool


class ClaimError(ValueError):
    """A pool's key, or what it means by a name, clashes with another pool's."""


@dataclass(frozen=True, slots=True)
class _Holder:
    file: str
    pool: str
    meaning: Meaning

    def clashes_with(self, other: "_Holder") -> bool:
        """Whether another pool means something else by the name: one model may have many pools."""
        same_pool = (self.file, self.pool) == (other.file, other.pool)
        return not same_pool and self.meaning != other.meaning


class FolderClaims:
    """Takes pools one by one and refuses those that claim what another has or keeps."""

    def __init__(self) -> None:
        self._added: set[str] = set()
        self._key_files: dict[str, str] = {}
        self._holders: dict[str, _Holder] = {}

    def keep(self, file: str, before: InferencePool, after: InferencePool) -> None:
        """Reserve for a file's pool what it had before and still claims."""
        self._key_files[after.key] = file
        kept = _holders(file, before)
        for name, holder in _holders(file, after).items():
            if name in kept:
                self._holders[name] = holder

    def add(self, pool: InferencePool, file: str = "") -> None:
        """Take the pool, or raise ClaimError and change nothing."""
        if pool.key in self._added or self._key_files.get(pool.key, file) != file:
            raise ClaimError(f'there already is a pool "{pool.key}"')
        wanted = _holders(file, pool)
        for name, claim in wanted.items():
            holder = self._holders.get(name)
            if holder is not None and holder.clashes_with(claim):
                raise ClaimError(f'name "{name}" is already served by pool "{holder.pool}"')
        self._added.add(pool.key)
        self._holders = {**wanted, **self._holders}


def _holders(file: str, pool: InferencePool) -> dict[str, _Holder]:
    meanings = meanings_of(claimant_of(pool, 0.0))
    return {name: _Holder(file, pool.key, meaning) for name, meaning in meanings.items()}
