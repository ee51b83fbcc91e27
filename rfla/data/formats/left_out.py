"""What a reader leaves out of a split, counted, with the first place of each kind."""

from collections import Counter
from dataclasses import dataclass, field

from rfla.data.annotations import REFUSED, REFUSED_FILES, Annotations
from rfla.errors import DataError


@dataclass
class LeftOut:
    """Rows and objects that are not in the split.

    Attributes:
        strict: Malformed rows are refused instead.
        counts: What was repaired or refused, and how often.
        dropped: Objects that the format holds and training cannot use.
        examples: The first place of each entry of the two.
    """

    strict: bool
    counts: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def refuse(self, error: DataError) -> None:
        """Count a malformed row; where `strict` says so, raise its error."""
        self._refuse(error, REFUSED)

    def refuse_file(self, error: DataError) -> None:
        """Count the malformed file of an image; where `strict` says so, raise its error."""
        self._refuse(error, REFUSED_FILES)

    def _refuse(self, error: DataError, what: str) -> None:
        if self.strict:
            raise error
        self.counts[what] += 1
        self.examples.setdefault(what, str(error))

    def drop(self, what: str, where: str) -> None:
        """Count an object that cannot be used."""
        self.dropped[what] += 1
        self.examples.setdefault(what, where)

    def noted_in(self, store: Annotations) -> Annotations:
        """Return the split, with all of this in its counts."""
        store.counts.update(self.counts)
        store.dropped.update(self.dropped)
        store.examples.update(self.examples)
        return store


NOTHING = LeftOut(strict=True)
"""For reading a file of which every row has to be right."""
