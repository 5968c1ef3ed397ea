"""Generated talk in several languages, with realistic word frequencies (Zipf); the same in every run."""

from __future__ import annotations

import bisect
import itertools
import random
from collections.abc import Callable, Sequence

WORDS = 40_000  # per language with spaces
SIGNS = 3_000  # Chinese characters in use
ENGLISH = (
    "the", "to", "and", "a", "of", "in", "is", "it", "you", "that", "for", "on", "we", "be", "have", "with", "this", "are", "not",
    "but",
)  # fmt: skip
LATIN = ("a e i o u", "b c d f g h k l m n p r s t v w z th st sh")
CYRILLIC = ("а е и о у ы", "б в г д ж з к л м н п р с т ш ст")
ARABIC = ("ا و ي", "ب ت ج ح د ر س ش ع ف ق ك ل م ن ه")


class Zipf:
    """Draws from `items`, with frequencies of 1 / (rank + 2.7)."""

    def __init__(self, items: Sequence[str]) -> None:
        self.items = items
        self._sums = list(itertools.accumulate(1 / (rank + 2.7) for rank in range(len(items))))

    def draw(self, chance: random.Random) -> str:
        return self.items[bisect.bisect(self._sums, chance.random() * self._sums[-1])]


def words_of(chance: random.Random, letters: tuple[str, str], first: Sequence[str] = ()) -> list[str]:
    """Return words; `first`: the most common ones."""
    vowels, consonants = (group.split() for group in letters)
    made = dict.fromkeys(first)
    while len(made) < WORDS:
        syllables = 1 + min(len(made) // 400, 2) + (chance.random() < 0.3)
        made["".join(chance.choice(consonants) + chance.choice(vowels) for _ in range(syllables))] = None
    return list(made)


class Talk:
    """`text()` returns a message; `language` returns the language of a channel."""

    def __init__(self, seed: int = 1) -> None:
        self.chance = chance = random.Random(seed)
        self.english = Zipf(words_of(chance, LATIN, ENGLISH))
        self.russian = Zipf(words_of(chance, CYRILLIC, ("и", "в", "не", "на", "что")))
        self.arabic = Zipf(words_of(chance, ARABIC, ("من", "في", "على")))
        signs = [chr(code) for code in chance.sample(range(0x4E00, 0x9FA5), SIGNS)]
        self.chinese = Zipf(signs)
        self.kana = Zipf([chr(code) for code in range(0x3042, 0x3093)])
        syllables = Zipf([chr(code) for code in chance.sample(range(0xAC00, 0xD7A3), 1_200)])
        self.korean = Zipf(
            ["".join(syllables.draw(chance) for _ in range(chance.randint(1, 4))) for _ in range(20_000)]
        )
        self._languages: list[Callable[[], str]] = [
            lambda: self._spaced(self.english), lambda: self._spaced(self.english), lambda: self._spaced(self.russian),
            lambda: self._spaced(self.arabic), lambda: self._unspaced(self.chinese), self._japanese,
            lambda: self._spaced(self.korean),
        ]  # fmt: skip

    def text(self, channel: int) -> str:
        text = self._languages[channel % len(self._languages)]()
        if self.chance.random() < 0.05:
            text += f" https://example.com/{self.chance.randrange(1_000_000)}"
        if self.chance.random() < 0.05:
            text += " 👍"
        return text

    def _length(self, mean: int) -> int:
        return 1 + min(int(self.chance.expovariate(1 / mean)), 40 * mean)

    def _spaced(self, words: Zipf) -> str:
        return " ".join(words.draw(self.chance) for _ in range(self._length(11)))

    def _unspaced(self, signs: Zipf) -> str:
        return "".join(signs.draw(self.chance) for _ in range(self._length(18)))

    def _japanese(self) -> str:
        return "".join(
            (self.kana if self.chance.random() < 0.6 else self.chinese).draw(self.chance)
            for _ in range(self._length(18))
        )
